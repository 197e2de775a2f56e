"""Datasets, their transformations, and the loaders."""

from __future__ import annotations

import gzip
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import probgen as pg
from probgen.data.fingerprint import fingerprint
from probgen.data.sources import mnist


def test_digits_are_dequantized_by_one_stored_draw() -> None:
    data = pg.load("digits")
    assert (len(data.train), len(data.validation or ()), len(data.test or ())) == (1257, 180, 360)
    raw = load_digits().data
    parts = [data.train, data.validation, data.test]
    x = torch.cat([part["x"] for part in parts if part is not None]).double()
    levels = (x * 17).floor()
    assert sorted(levels.sum(1).tolist()) == sorted(raw.sum(1).tolist())
    assert x.min() >= 0 and x.max() < 1
    noise = x * 17 - levels
    # A uniform draw: mean 1/2 and variance 1/12 within four standard errors.
    n = noise.numel()
    assert abs(noise.mean() - 0.5) < 4 * math.sqrt(1 / 12 / n)
    assert abs(noise.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / n)
    assert data.train.log_jacobians["x"] == pytest.approx(-64 * math.log(17))
    assert "one stored draw" in data.train.transformations["x"]
    again = pg.load("digits")
    assert torch.equal(again.train["x"], data.train["x"])
    assert not torch.equal(pg.load("digits", seed=1).train["x"], data.train["x"])


def test_parts_do_not_overlap() -> None:
    data = pg.load("digits", transform="none")
    assert data.validation is not None and data.test is not None
    rows = torch.cat([data.train["x"], data.validation["x"], data.test["x"]])
    assert len(rows) == 1797 and len(rows.unique(dim=0)) == len(
        np.unique(load_digits().data, axis=0)
    )


def test_log_jacobian_takes_the_density_back() -> None:
    """log p of k + u is log p of (k + u) / 17 plus the log-Jacobian: uniform data, by hand."""
    data = pg.load("digits").train
    on_unit_cube = 0.0  # the uniform density of (k + u) / 17
    assert on_unit_cube + data.log_jacobians["x"] == pytest.approx(64 * math.log(1 / 17))


@pytest.mark.parametrize("transform", ["none", "static", "dynamic", "dequantize"])
@pytest.mark.parametrize("flat", [True, False])
def test_transforms(transform: Any, flat: bool) -> None:
    data = pg.load("digits", transform=transform, flat=flat)
    assert data.validation is not None and data.test is not None
    assert data.train["x"].shape[1:] == ((64,) if flat else (1, 8, 8))
    assert data.train["x"].min() >= 0 and data.train["x"].max() <= 1
    binary = [bool(((p["x"] == 0) | (p["x"] == 1)).all()) for p in (data.train, data.test)]
    assert binary == [transform == "static", transform in ("static", "dynamic")]
    assert data.train.redrawn == (("x",) if transform == "dynamic" else ())
    assert data.test.redrawn == ()


def test_binarization_has_the_grey_values_as_probabilities() -> None:
    grey = torch.rand(200, 50)
    ones = torch.stack(
        [pg.Dataset({"x": grey}).binarized("static", seed=s)["x"] for s in range(100)]
    )
    z = (ones.mean(0) - grey) / (grey * (1 - grey) / 100).sqrt().clamp(min=1e-3)
    assert z.abs().max() < 6 and 0.95 < z.std() < 1.05


def test_keep_labels() -> None:
    data = pg.load("digits").train
    few = data.keep_labels(5, seed=3)
    mask = (few.observed or {})["y"]
    assert mask.sum() == 50
    assert torch.equal(torch.bincount(few["y"][mask]), torch.full((10,), 5))
    assert torch.equal(mask, (data.keep_labels(5, seed=3).observed or {})["y"])
    assert not torch.equal(mask, (data.keep_labels(5, seed=4).observed or {})["y"])
    assert "y known for 50" in repr(few)
    with pytest.raises(ValueError, match="class 0 has"):
        data.keep_labels(5000)


def test_split_is_by_seed_and_complete() -> None:
    data = pg.Dataset({"x": torch.arange(100.0)[:, None], "y": torch.arange(100)},
                      observed={"y": torch.arange(100) < 50})  # fmt: skip
    splits = data.split(validation=0.1, test=25, seed=1)
    assert splits.validation is not None and splits.test is not None
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [65, 10, 25]
    together = torch.cat([splits.train["y"], splits.validation["y"], splits.test["y"]])
    assert torch.equal(together.sort().values, torch.arange(100))
    assert torch.equal((splits.test.observed or {})["y"], splits.test["y"] < 50)
    assert torch.equal(data.split(test=25, seed=1).test["y"], splits.test["y"])  # type: ignore[index]
    assert "train" in repr(splits) and "validation" in repr(splits)


def test_fingerprints_tell_data_apart() -> None:
    x = torch.rand(5, 3)
    first = fingerprint({"x": x})
    assert first == fingerprint({"x": x.double()}) == fingerprint({"x": x.clone()})
    assert first != fingerprint({"w": x}) and first != fingerprint({"x": x[:, [1, 0, 2]]})
    changed = x.clone()
    changed[4, 2] += 1e-6
    assert first != fingerprint({"x": changed})
    mask = {"x": torch.tensor([True, True, True, True, False])}
    assert fingerprint({"x": x}, mask) == fingerprint({"x": changed}, mask) != first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pg.Dataset(torch.ones(3)), "values must be a dict"),  # type: ignore[arg-type]
        (lambda: pg.Dataset({}), "must be a dict of arrays by variable name, .* got no variable"),
        (lambda: pg.Dataset({"x": torch.ones(0, 2)}), "is empty; give at least one datum"),
        (lambda: pg.Dataset({"x": torch.ones(3), "y": torch.ones(4)}), "x has 3, y has 4"),
        (lambda: pg.Dataset({"x": torch.tensor(3.0)}), "first dim is the data"),
        (lambda: pg.Dataset({"x": ["a", "b"]}), "must hold numbers"),
        (lambda: pg.Dataset({"x": torch.ones(3)}, observed={"y": torch.ones(3).bool()}), "no such"),
        (lambda: pg.Dataset({"x": torch.ones(3)}, observed={"x": torch.ones(3)}), "must be a boolean mask"),
        (lambda: pg.Dataset({"x": torch.ones(3)}).split(test=3), "leave nothing"),
        (lambda: pg.Dataset({"x": torch.ones(3)}).split(test=-1), "count or a fraction"),
        (lambda: pg.Dataset({"x": 2 * torch.ones(3)}).binarized("static"), r"must lie in \[0, 1\]"),
        (lambda: pg.Dataset({"x": torch.ones(3)}).binarized("sometimes"), '"static" or "dynamic"'),  # type: ignore[arg-type]
        (lambda: pg.Dataset({"x": torch.ones(3) / 3}).dequantized(levels=17), "whole grey levels"),
        (lambda: pg.Dataset({"x": 17 * torch.ones(3)}).dequantized(levels=17), "0..16"),
        (lambda: pg.load("dgits"), "unknown data set 'dgits'; known are"),
        (lambda: pg.load("digits", transform="bin"), "transform must be"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_unknown_variable_is_named() -> None:
    with pytest.raises(KeyError, match="'w' is not among the variables x"):
        pg.Dataset({"x": torch.ones(3)})["w"]


# ------------------------------------------------------------------ MNIST


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four well-formed IDX files of our own, with their hashes in place of the canonical ones."""
    import pooch

    folder = tmp_path / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    hashes = {}
    for prefix, n in (("train", 10_030), ("t10k", 20)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, n, dtype=np.uint8)
        for suffix, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            path = folder / f"{prefix}-{suffix}-ubyte.gz"
            path.write_bytes(gzip.compress(head + array.tobytes(), 1))
            hashes[path.name] = pooch.file_hash(str(path))
    monkeypatch.setattr(mnist, "MNIST_FILES", hashes)
    monkeypatch.setenv("PROBGEN_DATA_DIR", str(tmp_path))
    return folder


def test_mnist_is_read_from_idx_files(small_mnist: Path) -> None:
    data = pg.load("mnist")
    assert data.validation is not None and data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10_000, 20)
    assert data.train.redrawn == ("x",) and data.test.redrawn == ()
    assert pg.load("mnist", flat=False).test["x"].shape == (20, 1, 28, 28)  # type: ignore[index]
    raw = pg.load("mnist", transform="none").test
    assert raw is not None
    grey = (raw["x"] * 255).round()
    assert torch.equal(grey / 255, raw["x"]) and grey.max() == 255
    assert pg.load("mnist", transform="dequantize").train.log_jacobians["x"] == pytest.approx(
        -784 * math.log(256)
    )


def test_corrupt_files_are_refused(small_mnist: Path) -> None:
    path = small_mnist / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not the canonical MNIST file.*Delete it"):
        pg.load("mnist")


def test_truncated_idx_is_refused(small_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_mnist / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-3]))
    monkeypatch.setattr("pooch.file_hash", lambda name: mnist.MNIST_FILES[Path(name).name])
    with pytest.raises(ValueError, match="cut short"):
        pg.load("mnist")


def test_absent_and_offline_says_what_to_put_where(
    small_mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("pooch.retrieve", offline)
    shutil.rmtree(small_mnist)
    with pytest.raises(FileNotFoundError, match="PROBGEN_DATA_DIR") as error:
        pg.load("mnist")
    assert str(small_mnist) in str(error.value)
    assert "train-images-idx3-ubyte.gz" in str(error.value)


def test_jacobians_add_up_and_leave_with_a_binarization() -> None:
    data = pg.Dataset({"x": torch.zeros(3, 4), "w": torch.zeros(3, 3)})
    both = data.dequantized("x", levels=17).dequantized("w", levels=256)
    assert both.log_jacobians == {
        "x": pytest.approx(-4 * math.log(17)), "w": pytest.approx(-3 * math.log(256))
    }  # fmt: skip
    bits = both.binarized("static", "x")
    assert set(bits.log_jacobians) == {"w"}
    assert (
        bits.transformations["x"].startswith("(x + u) / 17")
        and "then x bin" in bits.transformations["x"]
    )


def test_labels_once_hidden_stay_hidden() -> None:
    data = pg.load("digits").train.keep_labels(5, seed=0)
    fewer = data.keep_labels(2, seed=1)
    first, second = (data.observed or {})["y"], (fewer.observed or {})["y"]
    assert second.sum() == 20 and not (second & ~first).any()
    hidden = pg.Dataset(
        {"y": torch.tensor([0, 1, -1])}, observed={"y": torch.tensor([1, 1, 0]).bool()}
    )
    assert (hidden.keep_labels(1).observed or {})["y"].tolist() == [True, True, False]


def test_arrays_of_odd_dtypes() -> None:
    plain = np.arange(6.0).reshape(3, 2)
    for array in (
        plain.astype(">f8"),
        plain.astype(np.longdouble),
        plain[::-1][::-1],
        plain.T.copy().T,
    ):
        assert torch.equal(pg.Dataset({"x": array})["x"].double(), torch.from_numpy(plain))
    with pytest.raises(TypeError, match="need names"):
        pg.Dataset({0: plain})  # type: ignore[dict-item]
