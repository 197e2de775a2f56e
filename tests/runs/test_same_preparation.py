"""What is scored later is prepared as what was trained on, and is what it is said to be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg
from tests.fitting import QUICK, structured, vae

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")

STACK = np.random.default_rng(0).integers(0, 256, (60, 3, 4), dtype=np.uint8)


def trained(folder: Path, data: Any, **settings: Any) -> pg.Run:
    splits = pg.load(data, **settings) if isinstance(data, (str, Path)) else data
    shape = tuple((splits.train if isinstance(splits, pg.Splits) else splits)["x"].shape[1:])
    pair = pg.models.VAE(x=pg.Normal(shape), z=pg.Normal(1), hidden=(2,))
    pg.fit(pair, splits, num_epochs=1, run_dir=folder, **QUICK)
    return pg.load_run(folder)


@pytest.mark.parametrize("transform", ["none", "standardize", "dequantize", "static"])
@pytest.mark.parametrize("flat", [None, True])
def test_the_same_rows_in_another_file(tmp_path: Path, transform: Any, flat: bool | None) -> None:
    np.save(tmp_path / "a.npy", STACK)
    run = trained(
        tmp_path / "run", tmp_path / "a.npy", transform=transform, flat=flat, split=(0, 0)
    )
    loaded = run.load_data().train
    for dtype in (np.uint8, np.int64, np.float32):
        np.save(tmp_path / "b.npy", STACK.astype(dtype))
        other = run.load_other(str(tmp_path / "b.npy")).train
        assert other["x"].shape == loaded["x"].shape
        assert other.log_jacobians == pytest.approx(loaded.log_jacobians)
        if transform in ("none", "standardize"):  # the others have draws of their own
            order = (
                np.lexsort(loaded["x"].flatten(1).T.numpy()),
                np.lexsort(other["x"].flatten(1).T.numpy()),
            )
            assert torch.allclose(
                loaded["x"][order[0]].double(), other["x"][order[1]].double(), atol=1e-6
            )
        else:
            assert loaded["x"].max() <= 1 and other["x"].max() <= 1
            assert abs(float(loaded["x"].mean() - other["x"].mean())) < 0.05


def test_levels_are_not_inferred_anew(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    run = trained(tmp_path / "run", tmp_path / "a.npy")
    np.save(tmp_path / "dark.npy", np.minimum(STACK, 1))
    assert run.load_other(str(tmp_path / "dark.npy")).train["x"].max() == pytest.approx(1 / 255)
    np.save(tmp_path / "bits.npy", np.minimum(STACK, 1))
    bits = trained(tmp_path / "bits", tmp_path / "bits.npy")
    assert bits.load_other(str(tmp_path / "a.npy")).train["x"].max() == STACK.max()
    np.save(tmp_path / "wide.npy", STACK.astype(np.int64) * 2)
    with pytest.raises(ValueError, match=r"whole grey levels 0\.\.255, got values from 0 to 5"):
        run.load_other(str(tmp_path / "wide.npy"))


def test_grey_values_know_their_jacobian(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    data = pg.load(tmp_path / "a.npy").train
    assert data.log_jacobians["x"] == pytest.approx(-12 * math.log(255))
    assert "x" not in data.binarized("static").log_jacobians


def test_data_sets_keep_their_split_and_preparation(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "digits", split=(0, 100))
    again = run.load_other("digits")
    assert again.validation is None and again.test is not None and len(again.test) == 100
    with pytest.raises(pg.RunError, match="whose preparation cannot be applied to mnist"):
        run.load_other("mnist")


def test_arrays_prepared_in_python_are_not_mixed_with_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK.reshape(60, -1))
    plain = trained(tmp_path / "plain", pg.Dataset({"x": STACK.reshape(60, -1).astype(float)}))
    assert plain.load_other(str(tmp_path / "a.npy")).train["x"].max() == STACK.max()
    moved = trained(tmp_path / "moved", pg.Dataset({"x": STACK.reshape(60, -1)}).standardized())
    with pytest.raises(pg.RunError, match="prepared in Python"):
        moved.load_other(str(tmp_path / "a.npy"))


def test_labels_that_look_like_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "a,k\n" + "".join(f"{i},{k}\n" for i, k in enumerate(["None", "mild", "NA", ""] * 3))
    )
    data = pg.load(path, labels="k", split=(0, 0)).train
    assert data.transformations["y"] == "y coded 0=NA, 1=None, 2=mild"
    assert data.observed is not None and int(data.observed["y"].sum()) == 9
    path.write_text("a,k\n" + "".join(f"{i},{i % 3}\n" for i in range(300_000)) + "1,X\n" * 10)
    mixed = pg.load(path, labels="k", split=(0, 0)).train
    assert not mixed.observed and len(mixed["y"].unique()) == 4
    np.savez(tmp_path / "b.npz", x=np.ones((4, 2)), y=np.array([b"u", b"v", b"u", b"v"]))
    assert (
        pg.load(tmp_path / "b.npz", split=(0, 0)).train.transformations["y"] == "y coded 0=u, 1=v"
    )


def test_tables_whose_columns_would_shift(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2,3\n4,5,6\n")
    with pytest.raises(ValueError, match="more cells in a row than its first line has names"):
        pg.load(tmp_path / "t.csv")
    (tmp_path / "u.csv").write_text("a ,a,b\n1,2,3\n4,5,6\n")
    with pytest.raises(ValueError, match="have the same name"):
        pg.load(tmp_path / "u.csv")


def test_many_classes_are_compared_to_the_last(tmp_path: Path) -> None:
    def write(name: str, last: str) -> Path:
        kinds = [f"k{i:02}" for i in range(23)] + [last]
        lines = [f"{i},{kinds[i % 24]}" for i in range(48)]
        (tmp_path / name).write_text("a,k\n" + "\n".join(lines) + "\n")
        return tmp_path / name

    pair = pg.declare("p(y) p(x | y)", hidden=(), y=pg.Categorical(24), x=pg.Normal(1, "shared"))
    pg.fit(
        pair,
        pg.load(write("a.csv", "z"), labels="k"),
        num_epochs=1,
        run_dir=tmp_path / "r",
        **QUICK,
    )
    run = pg.load_run(tmp_path / "r")
    run.load_other(str(write("b.csv", "z")))
    with pytest.raises(pg.RunError, match="Code both in the same way"):
        run.load_other(str(write("c.csv", "zz")))


def test_another_pair_of_the_same_shapes_is_refused(tmp_path: Path) -> None:
    pg.fit(vae(), structured(16), num_epochs=1, run_dir=tmp_path, **QUICK)
    other = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(8,), activation=torch.nn.ReLU)
    with pytest.raises(pg.RunError, match="a run of another pair than the one given"):
        pg.load_run(tmp_path, pair=other)
    assert pg.load_run(tmp_path, pair=vae()).pair.name == "VAE"


def test_resuming_notices_what_a_hash_does_not(tmp_path: Path) -> None:
    grey = pg.Dataset({"x": 0.25 + 0.5 * structured(40)})
    pair = pg.models.VAE(x=pg.Normal(6), z=pg.Normal(2), hidden=(4,))
    pg.fit(pair, grey.binarized("dynamic"), num_epochs=1, run_dir=tmp_path / "a", **QUICK)
    with pytest.raises(pg.RunError, match="begun with data"):
        pg.fit(pair, grey, num_epochs=2, run_dir=tmp_path / "a", resume=True, **QUICK)
    import pyro.infer

    settings: Any = {"run_dir": tmp_path / "b", **QUICK}
    pg.fit(vae(), structured(16), num_epochs=1, objective=pyro.infer.Trace_ELBO(1), **settings)
    with pytest.raises(pg.RunError, match="begun with objective"):
        pg.fit(
            vae(),
            structured(16),
            num_epochs=2,
            objective=pyro.infer.Trace_ELBO(9),
            resume=True,
            **settings,
        )


def test_pairs_from_a_file_share_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "import probgen as pg\nready = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2))\n"
    )
    a, b = (pg.load_pair(f"{tmp_path / 'm.py'}:ready") for _ in range(2))
    assert a is not b and next(a.parameters()) is not next(b.parameters())
    for name, size in (("one", 2), ("two", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "helper.py").write_text(f"SIZE = {size}\n")
        (tmp_path / name / "m.py").write_text(
            "import probgen as pg\nfrom helper import SIZE\n"
            "def build():\n    return pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(SIZE))\n"
        )
    pairs = [pg.load_pair(f"{tmp_path / name / 'm.py'}:build") for name in ("one", "two")]
    assert [p.variables["z"] for p in pairs] == [pg.Normal(2), pg.Normal(3)]


def test_a_bound_that_is_not_finite_does_not_end_a_run(tmp_path: Path) -> None:
    calls = [0]

    def objective(pair: Any, data: Any, **settings: Any) -> Any:
        bound = pg.ELBO()(pair, data, **settings)
        calls[0] += not torch.is_grad_enabled()
        return bound * torch.nan if calls[0] == 1 and not torch.is_grad_enabled() else bound

    pg.fit(vae(), structured(16), num_epochs=3, validation=structured(8), objective=objective,
           run_dir=tmp_path, **QUICK)  # fmt: skip
    run = pg.load_run(tmp_path)
    assert math.isnan(run.result.validation_elbo[0]) and (tmp_path / "figures").is_dir()
