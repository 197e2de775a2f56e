"""Data sets by name: one file each, and those that a user registers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import probgen as pg
from probgen.data.sources import SOURCES


class Stripes(pg.Source):
    """Images of 4 x 4 pixels with three grey levels."""

    levels = 3
    transform = "dequantize"
    images = True
    split = (2, 3)

    def load(self, split: tuple[float, float], seed: int) -> pg.Splits:
        x = torch.arange(20)[:, None, None, None] % 3 * torch.ones(1, 1, 4, 4)
        data = pg.Dataset({"x": x, "y": torch.arange(20) % 3}, "stripes")
        return data.split(validation=split[0], test=split[1], seed=seed)


@pytest.fixture
def stripes() -> Iterator[type[Stripes]]:
    yield pg.register_source(Stripes)
    SOURCES._registered.pop("stripes")


def test_the_library_has_digits_and_mnist() -> None:
    assert SOURCES.names()[:2] == ("digits", "mnist")
    assert SOURCES.help("digits").startswith("The 1,797 handwritten digits")


def test_names_and_help_need_no_pytorch() -> None:
    code = "import sys; from probgen.data.sources import SOURCES as s; print(s.names(), s.help('mnist'));"
    code += "assert not {'torch', 'sklearn', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_registered_data_set_is_loaded_with_its_defaults(stripes: type[Stripes]) -> None:
    data = pg.load("stripes", seed=5)
    assert {n: len(part) for n, part in data.parts.items()} == {
        "train": 15, "validation": 2, "test": 3,
    }  # fmt: skip
    x = data.train.fields["x"]
    assert x.values.shape[1:] == (1, 4, 4) and x.is_images and 0 <= x.values.min() < 1
    assert "(x + u) / 3" in data.train.transformations["x"]
    flat = pg.load("stripes", transform="none", flat=True, split=(0, 1)).train.fields["x"]
    assert flat.values.shape[1:] == (16,) and flat.is_images
    assert set(flat.values.unique().tolist()) == {0, 0.5, 1}


def test_a_run_on_a_registered_data_set_loads_it_again(
    stripes: type[Stripes], tmp_path: Path
) -> None:
    data = pg.load("stripes", flat=True)
    pair = pg.models.PPCA(x=pg.Normal(16), z=pg.Normal(1))
    pg.fit(pair, data, num_epochs=1, run_dir=tmp_path / "run", progress=False, device="cpu")
    again = pg.load_run(tmp_path / "run").load_data()
    assert again.test is not None and data.test is not None
    assert torch.equal(again.test["x"], data.test["x"])
    SOURCES._registered.pop("stripes")
    try:
        with pytest.raises(ValueError, match=r"unknown data set 'stripes'.*register_source"):
            pg.load_run(tmp_path / "run").load_data()
    finally:
        pg.register_source(stripes)


def test_what_is_refused(stripes: type[Stripes]) -> None:
    with pytest.raises(ValueError, match=r'known are "digits", "mnist", "stripes", did you mean'):
        pg.load("strip")
    with pytest.raises(ValueError, match="labels, columns and levels are for files"):
        pg.load("stripes", levels=3)
    with pytest.raises(TypeError, match=r"expected a subclass of pg\.Source"):
        pg.register_source(Stripes())  # type: ignore[type-var]

    class Digits(Stripes):
        pass

    with pytest.raises(ValueError, match=r"digits.* is registered already by the library"):
        pg.register_source(Digits)


@pytest.mark.parametrize("made", [torch.zeros(3, 2), pg.Splits(pg.Dataset({"w": [1.0]}))])
def test_a_data_set_must_return_splits_of_x(
    stripes: type[Stripes], made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripes, "load", lambda *_: made)
    with pytest.raises(TypeError, match=r"Stripes\.load must return pg\.Splits .* variable x"):
        pg.load("stripes")
