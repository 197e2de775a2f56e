"""What is wrong with any part of the data shows before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg

X = np.random.default_rng(0).normal(size=(20, 2))
LAST_OF_TEST = int(np.random.default_rng(0).permutation(20)[3])
"""A row of the test data, where four of twenty are."""


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [".npy", ".npz", ".csv"])
def test_a_file_is_checked_to_the_last_row(kind: str, value: float, tmp_path: Path) -> None:
    x = X.copy()
    x[LAST_OF_TEST, 1] = value
    path = tmp_path / f"t{kind}"
    if kind == ".npy":
        np.save(path, x)
    elif kind == ".npz":
        np.savez(path, x=x)
    else:
        np.savetxt(path, x, delimiter=",")
    row = f"row {LAST_OF_TEST} " if kind != ".csv" else f"line {LAST_OF_TEST + 1}"
    with pytest.raises(ValueError, match=rf"load: .*(NaN|infinite).*first in {row}"):
        pg.load(path, split=(0, 4))


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x": np.where(np.eye(4, 2) > 0, np.nan, 0.0)}, "x has NaN or infinite values in 2 of 4 data"),
        ({"x": np.ones((4, 3))}, r"x has shape \(4, 3\)"),
        ({"x": np.ones((4, 2)), "y": np.array([0, 1, 2, 0])}, "y has values outside its support"),
    ],
)  # fmt: skip
def test_fit_looks_at_the_other_parts_first(part: str, wrong: Any, message: str) -> None:
    good = {"x": X[:4], "y": np.array([0, 1, 0, 1])}
    parts: Any = {part: pg.Dataset({**good, **wrong})}
    splits = pg.Splits(pg.Dataset(good), **parts)
    pair = pg.models.M2(x=pg.Normal(2), y=pg.Categorical(2), z=pg.Normal(1), hidden=(2,))
    steps: list[int] = []
    with pytest.raises(ValueError, match=f"fit, {part} data: {message}"):
        pg.fit(
            pair, splits, num_epochs=1, validation=None, progress=False, device="cpu",
            callback=lambda *_: steps.append(1),
        )  # fmt: skip
    assert not steps


def test_parts_may_lack_what_is_not_needed() -> None:
    """Test data without labels, labels that are unknown, and grey values drawn anew are fine."""
    pair = pg.models.M2(x=pg.Bernoulli(2), y=pg.Categorical(2), z=pg.Normal(1), hidden=(2,))
    x, y = torch.rand(8, 2), torch.tensor([0, 1, 9, 9, 0, 1, 0, 1])
    known = {"y": y < 2}
    whole = pg.Dataset({"x": x, "y": y}, observed=known).binarized("dynamic")
    splits = pg.Splits(whole, whole, pg.Dataset({"x": x}).binarized("static"))
    result = pg.fit(pair, splits, num_epochs=1, validation=None, progress=False, device="cpu")
    assert len(result.elbo) == 1
