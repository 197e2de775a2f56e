"""Files of the user's own as data: what is read, how it is prepared, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(40, 3)) * [1.0, 100.0, 0.01] + [0.0, 5.0, -2.0]


def write_csv(path: Path, header: str = "a,b,c,kind", kinds: Any = ("low", "high")) -> Path:
    lines = [header] if header else []
    lines += [f"{a},{b},{c},{kinds[i % len(kinds)]}" for i, (a, b, c) in enumerate(TABLE.tolist())]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_with_names_and_labels(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv")
    data = pg.load(path, labels="kind", split=(4, 6), seed=3)
    assert {name: len(part) for name, part in data.parts.items()} == {
        "train": 30, "validation": 4, "test": 6,
    }  # fmt: skip
    rows = np.concatenate([part["x"].numpy() for part in data.parts.values()])
    assert np.allclose(np.sort(rows, 0), np.sort(TABLE, 0))
    assert data.train.transformations["y"] == "y coded 0=high, 1=low"
    for x, y in zip(data.train["x"], data.train["y"], strict=True):
        row = int(np.abs(TABLE - x.numpy()).sum(1).argmin())
        assert int(y) == (1 if row % 2 == 0 else 0)
    assert data.source is not None and data.source["columns"] == ["a", "b", "c"]
    assert data.train.name == "t" and data.source is not None and data.source["seed"] == 3
    again = pg.load(**{**data.source, "split": tuple(data.source["split"])})
    assert torch.equal(again.train["x"], data.train["x"])


def test_a_table_without_names(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", header="", kinds=(1, 2, 5))
    data = pg.load(path, labels="3", columns=["0", "2"], split=(0, 0))
    assert data.train["x"].shape == (40, 2) and data.parts.keys() == {"train"}
    assert data.train.transformations["y"] == "y coded 0=1, 1=2, 2=5"
    assert pg.load(path).train["x"].shape == (28, 4)  # the labels are numbers like others


def test_unknown_labels_are_masked(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", kinds=("0", "", "1", "2"))
    data = pg.load(path, labels="kind", split=(0, 0)).train
    assert data.observed is not None and int(data.observed["y"].sum()) == 30
    assert sorted(data["y"][data.observed["y"]].unique().tolist()) == [0, 1, 2]
    assert data.transformations.get("y") is None


def test_arrays_and_images(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (30, 5, 7), dtype=np.uint8)
    np.save(tmp_path / "i.npy", images)
    assert pg.load(tmp_path / "i.npy").train["x"].shape == (21, 1, 5, 7)
    assert pg.load(tmp_path / "i.npy", flat=True).train["x"].shape == (21, 35)
    grey = pg.load(tmp_path / "i.npy", transform="static").train
    assert set(grey["x"].unique().tolist()) == {0.0, 1.0} and "binarized" in repr(grey)
    noisy = pg.load(tmp_path / "i.npy", transform="dequantize").train
    assert math.isclose(noisy.log_jacobians["x"], -35 * math.log(256))
    redrawn = pg.load(tmp_path / "i.npy", transform="dynamic")
    assert redrawn.train.redrawn == ("x",) and redrawn.test is not None and not redrawn.test.redrawn

    np.save(tmp_path / "v.npy", np.arange(10.0))
    assert pg.load(tmp_path / "v.npy").train["x"].shape == (7, 1)
    np.savez(tmp_path / "b.npz", x=images.reshape(30, -1) > 100, y=np.arange(30) % 3)
    both = pg.load(tmp_path / "b.npz", split=(0, 0)).train
    assert both["x"].dtype == torch.bool and both["y"].max() == 2
    np.savez(tmp_path / "n.npz", pixels=images, digit=np.arange(30) % 3)
    named = pg.load(tmp_path / "n.npz", labels="digit", split=(0, 0)).train
    assert named["x"].shape == (30, 1, 5, 7) and len(named["y"]) == 30
    binary = (images > 128).astype(np.uint8)
    np.save(tmp_path / "z.npy", binary)  # bytes, but zeros and ones: no grey levels
    assert set(pg.load(tmp_path / "z.npy").train["x"].unique().tolist()) == {0, 1}


def test_standardized_by_the_training_data_only(tmp_path: Path) -> None:
    data = pg.load(write_csv(tmp_path / "t.csv"), labels="kind", transform="standardize")
    raw = pg.load(tmp_path / "t.csv", labels="kind")
    assert data.test is not None and raw.test is not None
    mean, scale = raw.train["x"].mean(0), raw.train["x"].std(0, correction=0)
    assert torch.allclose(data.train["x"].mean(0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(
        data.train["x"].double().std(0, correction=0), torch.ones(3).double(), atol=1e-6
    )
    assert torch.allclose(data.test["x"], ((raw.test["x"] - mean) / scale).float(), atol=1e-6)
    assert math.isclose(data.test.log_jacobians["x"], -float(scale.log().sum()), rel_tol=1e-9)


def test_the_density_of_standardized_data_is_that_of_the_data(tmp_path: Path) -> None:
    """log p of a Gaussian with the sample's moments, with and without standardizing."""
    data = pg.load(
        write_csv(tmp_path / "t.csv"), labels="kind", transform="standardize", split=(0, 0)
    )
    raw = pg.load(tmp_path / "t.csv", labels="kind", split=(0, 0)).train["x"]
    normal = torch.distributions.Normal(raw.mean(0), raw.std(0, correction=0))
    exact = normal.log_prob(raw).sum(1).mean()
    unit = torch.distributions.Normal(0.0, 1.0).log_prob(data.train["x"].double()).sum(1).mean()
    assert math.isclose(exact, unit + data.train.log_jacobians["x"], abs_tol=1e-5)


def test_other_data_are_prepared_as_those_of_training(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv")
    settings: Any = {"labels": "kind", "transform": "standardize"}
    data = pg.load(path, **settings)
    pair = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
    pg.fit(pair, data, num_epochs=1, run_dir=tmp_path / "run", progress=False)
    run = pg.load_run(tmp_path / "run")
    other = tmp_path / "other.csv"
    other.write_text("c,a,b\n" + "\n".join(f"{c},{a},{b}" for a, b, c in TABLE[:5].tolist()) + "\n")
    with_order = pg.load_run(tmp_path / "run").load_other(str(other)).train
    raw = pg.load(path, labels="kind").train["x"]
    mean, scale = raw.mean(0), raw.std(0, correction=0)
    # Columns are taken by name, in the order of the training data.
    expected = (torch.from_numpy(TABLE[:5]) - mean) / scale
    assert torch.allclose(with_order["x"], expected.float(), atol=1e-5)
    other.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv has no column 'c'"):
        run.load_other(str(other))
    with pytest.raises(ValueError, match="neither a data set nor a"):
        run.load_other("nothing")


def test_labels_coded_otherwise_are_refused(tmp_path: Path) -> None:
    data = pg.load(write_csv(tmp_path / "t.csv"), labels="kind")
    pair = pg.declare("p(y) p(x | y)", hidden=(), y=pg.Categorical(2), x=pg.Normal(3, "shared"))
    pg.fit(pair, data, num_epochs=1, run_dir=tmp_path / "run", progress=False)
    run = pg.load_run(tmp_path / "run")
    same = write_csv(tmp_path / "same.csv")
    assert len(run.load_other(str(same)).train) == 40
    other = write_csv(tmp_path / "other.csv", kinds=("low", "middle"))
    with pytest.raises(pg.RunError, match="0=low, 1=middle, but those of the training data"):
        run.load_other(str(other))


BAD: dict[str, tuple[str, bytes, dict[str, Any], str]] = {
    "no such column": ("t.csv", b"a,b\n1,2\n3,4\n", {"labels": "kind"}, "no column 'kind'; its columns are a, b"),
    "text": ("t.csv", b"a,b\n1,2\n3,low\n", {}, "column 'b' of t.csv holds text ('low' in line 3)"),
    "empty cell": ("t.csv", b"a,b\n1,2\n3,\n5,6\n", {}, "1 empty or NaN cells, the first in line 3"),
    "NaN": ("t.csv", b"a,b\n1,NaN\n", {}, "empty or NaN cells, the first in line 2"),
    "header only": ("t.csv", b"a,b\n", {}, "no row below its header"),
    "empty": ("t.csv", b"", {}, "t.csv is empty"),
    "ragged": ("t.csv", b"a,b\n1,2\n3,4,5\n6\n", {}, "cannot be read as a table"),
    "not text": ("t.csv", b"\xff\xfe\x00\x01", {}, "cannot be read as a table"),
    "only labels": ("t.csv", b"kind\n1\n2\n", {"labels": "kind"}, "no column besides the labels"),
    "real labels": ("t.csv", b"a,k\n1,0.5\n2,1.5\n", {"labels": "k"}, "0.5 is not a whole number"),
    "no label known": ("t.csv", b"a,k\n1,\n2,\n", {"labels": "k"}, "no label of t.csv is known"),
    "cut short": ("t.npy", b"\x93NUMPY\x01\x00v\x00{'descr'", {}, "cannot be read as .npy"),
    "not npy": ("t.npy", b"hello", {}, "cannot be read as .npy"),
    "not npz": ("t.npz", b"PK\x03\x04hello", {}, "cannot be read as .npz"),
    "empty npy": ("t.npy", b"", {}, "cannot be read as .npy"),
    "labels of npy": ("t.npy", b"", {"labels": "y"}, "one array, so it has no labels 'y'"),
    "columns of npy": ("t.npy", b"", {"columns": ["a"]}, "columns are chosen in .csv files only"),
    "suffix": ("t.parquet", b"", {}, "A file must end in .npy, .npz, .csv"),
    "split": ("t.csv", b"a\n1\n2\n3\n", {"split": (1, 2)}, "leave nothing of 3 data"),
    "split of three": ("t.csv", b"a\n1\n2\n3\n", {"split": (1, 1, 1)}, "split must be two numbers"),
    "levels": ("t.csv", b"a\n1\n2\n3\n", {"transform": "dequantize"}, "say how many grey levels"),
    "grey": ("t.csv", b"a\n1\n2\n3\n4\n5\n6\n", {"transform": "static"}, r"must lie in [0, 1]"),
    "constant": ("t.csv", b"a,b\n1,2\n1,3\n1,4\n1,5\n1,6\n", {"transform": "standardize"}, "1 elements of x are constant, the first is number 0"),
    "flat": ("t.csv", b"a,b\n1,2\n1,3\n1,4\n1,5\n1,6\n", {"flat": False}, "x has 2 elements, which make no square image"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path) -> None:
    file, content, settings, message = BAD[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError) as error:
        pg.load(tmp_path / file, **settings)
    assert message in str(error.value)


def test_arrays_that_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        pg.load(tmp_path / "o.npy")
    np.save(tmp_path / "s.npy", np.array(["a", "b"]))
    with pytest.raises(ValueError, match="must hold numbers"):
        pg.load(tmp_path / "s.npy")
    np.save(tmp_path / "e.npy", np.zeros((0, 3)))
    with pytest.raises(ValueError, match="is empty"):
        pg.load(tmp_path / "e.npy")
    np.savez(tmp_path / "n.npz", a=np.ones(3), b=np.ones(3))
    with pytest.raises(ValueError, match="needs an array named x"):
        pg.load(tmp_path / "n.npz")
    with pytest.raises(ValueError, match="no array 'k'"):
        pg.load(tmp_path / "n.npz", labels="k")
    np.savez(tmp_path / "y.npz", x=np.ones((3, 2)), y=np.ones(4))
    with pytest.raises(ValueError, match="3 data but 4 labels"):
        pg.load(tmp_path / "y.npz")
    np.savez(tmp_path / "y2.npz", x=np.ones((3, 2)), y=np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"the labels of y2\.npz have shape"):
        pg.load(tmp_path / "y2.npz")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        pg.load(tmp_path / "none.npy")
    with pytest.raises(ValueError, match='did you mean "mnist"'):
        pg.load("mnits")
    with pytest.raises(ValueError, match="labels, columns and levels are for files"):
        pg.load("digits", labels="y")
