"""Values that float32 cannot tell apart: said before the first step, with a way out that works."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg

START = 1_750_000_000
SECONDS = np.arange(START, START + 60)
TABLE = np.stack([np.linspace(-1, 1, 60), SECONDS], 1)


def pair(size: int = 1) -> Any:
    torch.manual_seed(0)
    return pg.models.FactorAnalysis(x=pg.Normal(size), z=pg.Normal(1))


def exact(x: Any, **settings: Any) -> float:
    score = pg.log_marginal_likelihood(pair(), x, method="exact", device="cpu", **settings)
    return float(score.mean)


def test_timestamps_are_warned_about() -> None:
    """A minute of seconds is one float32, or two: numbers are 128 apart at 1.75e9."""
    assert len(np.unique(SECONDS.astype(np.float32))) <= 2
    x = pg.Dataset({"x": SECONDS[:, None]})
    words = r"1 of 1 elements of x.*number 0.*1\.75e\+09.*128 apart.*deviation is 17\.3.*standardized\(\)"
    with pytest.warns(UserWarning, match=f"fit: float32 is too coarse for {words}"):
        pg.fit(pair(), x, num_epochs=1, progress=False, device="cpu")
    with pytest.warns(UserWarning, match="log_marginal_likelihood: float32 is too coarse"):
        exact(x)
    with pytest.warns(UserWarning, match="1 of 2 elements of x, the first is number 1"):
        pg.fit(pair(2), TABLE, num_epochs=1, progress=False, device="cpu")


def test_standardizing_keeps_every_value(tmp_path: Path) -> None:
    """A shift by a day leaves the score as it is: moments are taken and subtracted in float64."""
    np.save(tmp_path / "a.npy", SECONDS)
    np.save(tmp_path / "b.npy", SECONDS + 86_400)
    made = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("a", "b"):
            data = pg.load(tmp_path / f"{name}.npy", transform="standardize", split=(0, 0)).train
            assert len(data["x"].unique()) == 60
            made.append(exact(data))
        by_hand = (SECONDS - SECONDS.mean()) / SECONDS.std()
        made.append(exact(by_hand[:, None]))
        made.append(exact(pg.Dataset({"x": SECONDS[:, None]}).standardized()))
        pg.fit(
            pair(),
            SECONDS[:, None],
            num_epochs=1,
            precision="float64",
            progress=False,
            device="cpu",
        )
    assert made == pytest.approx([made[0]] * 4, abs=1e-6)


@pytest.mark.parametrize(
    "x",
    [
        np.full((60, 1), 1.75e9),
        np.arange(60)[:, None],
        np.arange(1960, 2020)[:, None],
        (np.arange(60) == 7)[:, None],
        np.random.default_rng(0).normal(5.0, 0.01, (60, 1)),
        np.random.default_rng(0).normal(0.0, 1e-30, (60, 1)),
        np.arange(60, dtype=np.uint8)[:, None],
        torch.linspace(0, 1, 60, dtype=torch.float16)[:, None],
    ],
)
def test_other_values_pass_without_a_word(x: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact(x)


def test_the_border_is_a_thousandth() -> None:
    """At 2**20 numbers are 2**-3 apart, so that standard deviations below 125 are too small."""
    for scale, coarse in ((124.0, True), (126.0, False)):
        x = 2.0**20 + 2**17 + scale * np.array([1.0, -1.0] * 5)[:, None]
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            exact(x)
        assert any("too coarse" in str(warning.message) for warning in seen) == coarse


def test_values_that_float32_cannot_hold_are_refused() -> None:
    """1e300 is infinite there, and finite in float64."""
    x = np.array([[0.0], [1e300]] * 2)
    words = (
        r"x has values beyond 3\.4e\+38.*in 2 of 4 data, the first in row 1.*precision=\"float64\""
    )
    for use in (exact, lambda x: pg.fit(pair(), x, num_epochs=1, progress=False, device="cpu")):
        with pytest.raises(ValueError, match=words):
            use(x)
    assert np.isfinite(exact(np.full((4, 1), 1e100), precision="float64"))


def test_inputs_and_probabilities_are_checked_as_well() -> None:
    """A variable without a distribution, and the grey values that ones are drawn from."""
    cvae = pg.declare("p(z) p(x | z, c)", "q(z | x, c)", x=pg.Normal(1), z=pg.Normal(1),
                      c=pg.Normal(1), hidden=(2,))  # fmt: skip
    x = torch.zeros(4, 1)
    with pytest.raises(ValueError, match="c has NaN or infinite values in 1 of 4 data"):
        pg.fit(cvae, {"x": x, "c": torch.tensor([[0.0], [1.0], [torch.nan], [0.0]])}, num_epochs=1,
               progress=False, device="cpu")  # fmt: skip
    vae = pg.models.VAE(x=pg.Bernoulli(1), z=pg.Normal(1), hidden=(2,))
    for value in (torch.nan, 1.5):
        grey = pg.Dataset({"x": x + torch.tensor([[0.5], [0.5], [value], [0.0]])}, redrawn=("x",))
        with pytest.raises(ValueError, match=r"x has (NaN|values outside its support)"):
            pg.fit(vae, grey, num_epochs=1, progress=False, device="cpu")
