"""Stored draws: by the part's role and the seed, so that the same images are the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg
from probgen.data import load as sources
from probgen.data.fingerprint import fingerprint


@pytest.mark.parametrize("transform", ["dequantize", "static", "dynamic"])
def test_test_data_do_not_depend_on_validation_data(transform: Any) -> None:
    both = [pg.load("digits", transform=transform, split=(n, 360)) for n in (180, 0, 37)]
    assert both[1].validation is None
    tests = [splits.parts["test"] for splits in both]
    for other in tests[1:]:
        assert torch.equal(other["x"], tests[0]["x"])
        assert other.transformations == tests[0].transformations


def test_parts_have_noise_of_their_own() -> None:
    """Uniform draws of two parts are independent: correlation 0 within four standard errors."""
    raw, noisy = (
        pg.load("digits", transform="none", split=(360, 360)),
        pg.load("digits", split=(360, 360)),
    )
    noise = [
        (noisy.parts[p]["x"][:360] * 17 - raw.parts[p]["x"][:360] * 16).flatten()
        for p in ("train", "validation", "test")
    ]
    found = torch.corrcoef(torch.stack(noise)) - torch.eye(3)
    assert float(found.abs().max()) < 4 / noise[0].numel() ** 0.5


def test_the_draws_of_the_usual_splits_are_as_they_were() -> None:
    """The recorded hash of the digits' test data."""
    assert fingerprint({"x": pg.load("digits").parts["test"]["x"]}) == "b2bee02aa0e9"


def test_a_run_of_other_draws_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run from when the test data's noise was that of the second part there was."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 4, (30, 2)))
    settings: Any = {"levels": 4, "transform": "dequantize", "split": (0, 10)}
    if hasattr(sources, "_draw_seed"):
        monkeypatch.setattr(
            sources, "_draw_seed", lambda seed, part: 1000 * seed + (part == "test")
        )
    old = pg.load(tmp_path / "x.npy", **settings)
    pair = pg.models.PPCA(x=pg.Normal(2), z=pg.Normal(1))
    pg.fit(pair, old, num_epochs=1, run_dir=tmp_path / "run", progress=False, device="cpu")
    monkeypatch.undo()
    with pytest.raises(
        pg.RunError,
        match=r"test data of .* cannot be prepared again.*seed 1\).*seed 2\).*has not changed",
    ):
        pg.load_run(tmp_path / "run").load_data()
    now = pg.load(tmp_path / "x.npy", **settings)
    scores = {
        name: pg.Score.closed_form(np.zeros(10), splits.parts["test"])
        for name, splits in (("a", old), ("b", now))
    }
    with pytest.raises(ValueError, match=r"different transformations.*\(seed 1\).*\(seed 2\)"):
        pg.table(scores)


def test_a_run_whose_file_has_changed_still_says_that(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 4, (30, 2)))
    data = pg.load(tmp_path / "x.npy", levels=4, transform="dequantize")
    pair = pg.models.PPCA(x=pg.Normal(2), z=pg.Normal(1))
    pg.fit(pair, data, num_epochs=1, run_dir=tmp_path / "run", progress=False, device="cpu")
    np.save(tmp_path / "x.npy", np.random.default_rng(1).integers(0, 4, (30, 2)))
    with pytest.raises(pg.RunError, match=r"x\.npy has changed since"):
        pg.load_run(tmp_path / "run").load_data()
