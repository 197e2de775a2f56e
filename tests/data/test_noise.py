"""Noise that is drawn anew: moments against exact values, rows, and what is refused."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import pyro
import pytest
import torch

import probgen as pg
from probgen.data.noise import Binarization, Corruption, GaussianNoise, Noise

N = 40_000
SCALE = 0.7
MOMENTS: dict[str, tuple[Noise, Any, Any]] = {
    # noise, E[x̃] and E[x̃²] given x
    "binarization": (Binarization(), lambda x: x, lambda x: x),
    "gaussian": (GaussianNoise(torch.full((N, 3), SCALE)), lambda x: x, lambda x: x**2 + SCALE**2),
    "masking": (Corruption("masking", 0.3), lambda x: 0.7 * x, lambda x: 0.7 * x**2),
    "salt-and-pepper": (
        Corruption("salt-and-pepper", 0.4),
        lambda x: 0.6 * x + 0.2,
        lambda x: 0.6 * x**2 + 0.2,
    ),
    "corruption by gaussian noise": (
        Corruption("gaussian", SCALE),
        lambda x: x,
        lambda x: x**2 + SCALE**2,
    ),
}
X = torch.tensor([0.1, 0.4, 0.9]).expand(N, 3)


@pytest.mark.parametrize("name", MOMENTS)
@pytest.mark.parametrize("stored", [False, True])
def test_moments(name: str, stored: bool) -> None:
    """Mean and variance of each element within five standard errors of their exact values."""
    noise, mean, second = MOMENTS[name]
    torch.manual_seed(0)
    values = noise.store(X, 0) if stored else noise.draw(X, slice(None))
    x = X[0].double()
    exact_mean, exact_variance = mean(x), second(x) - mean(x) ** 2
    found = values.double()
    assert values.dtype == X.dtype and values.shape == X.shape
    assert ((found.mean(0) - exact_mean).abs() < 5 * (exact_variance / N).sqrt()).all()
    squares = (found - exact_mean) ** 2
    assert ((squares.mean(0) - exact_variance).abs() < 5 * squares.std(0) / math.sqrt(N)).all()
    assert torch.corrcoef(found.T).sub(torch.eye(3)).abs().max() < 5 / math.sqrt(N)


def test_corruption_changes_the_copy_alone() -> None:
    data = pg.Dataset({"x": torch.rand(50, 8)}).corrupted("masking", 0.5)
    first, _ = data.batch(torch.arange(50))
    second, _ = data.batch(torch.arange(50))
    assert torch.equal(first["x"], data["x"]) and torch.equal(second["x"], data["x"])
    assert not torch.equal(first["x_in"], second["x_in"])
    kept = first["x_in"] != 0
    assert torch.equal(first["x_in"][kept], data["x"][kept])
    assert data.drawn_anew == ("x_in",) and data.redrawn == () and not data.spread
    words = data.transformations["x_in"]
    assert words == "x, with 50 % of its elements set to 0, drawn anew in every batch"
    part = data.subset(slice(3, 9)).only("x_in")
    assert len(part) == 6 and part.drawn_anew == ("x_in",)


def test_parts_of_splits_have_stored_noise_of_their_own() -> None:
    whole = pg.Dataset({"x": torch.ones(30, 40)})
    splits = pg.Splits(whole, whole, whole).corrupted("masking", 0.5, seed=2)
    again = pg.Splits(whole, None, whole).corrupted("masking", 0.5, seed=2)
    assert splits.validation is not None and splits.test is not None and again.test is not None
    assert splits.train.drawn_anew == ("x_in",) and not splits.test.drawn_anew
    assert torch.equal(splits.test["x_in"], again.test["x_in"])
    assert not torch.equal(splits.test["x_in"], splits.validation["x_in"])


class Denoising(pg.LatentVariableModel):
    """p(z) p(x | z) and q(z | x_in): what a denoising autoencoder needs of its data."""

    def __init__(self) -> None:
        super().__init__()
        x, z = pg.Normal(2, scale="shared"), pg.Normal(2)
        self.p_z = pg.Conditional(z)
        self.p_x = pg.Conditional(x, {"z": z}, hidden=())
        self.q_z = pg.Conditional(z, {"x_in": x}, hidden=())

    def model(self, x: Any = None, z: Any = None, x_in: Any = None) -> Any:
        with pyro.plate("data", self.batch_size(x=x, z=z, x_in=x_in), dim=-1):
            z = pyro.sample("z", self.p_z(), obs=z)
            return pyro.sample("x", self.p_x(z=z), obs=x)

    def guide(self, x: Any = None, z: Any = None, x_in: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, z=z, x_in=x_in), dim=-1):
            if z is None:
                pyro.sample("z", self.q_z(x_in=x_in))


def test_a_pair_sees_the_clean_values_and_the_corrupted_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 2)
    pair = Denoising()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    guide = Denoising.guide

    def noted(self: Any, x: Any = None, z: Any = None, x_in: Any = None) -> None:
        seen.append((x, x_in))
        guide(self, x, z, x_in)

    monkeypatch.setattr(Denoising, "guide", noted)
    data = pg.Dataset({"x": x}).corrupted("gaussian", 0.4)
    result = pg.fit(pair, data, num_epochs=3, batch_size=64, validation=None, progress=False,
                    device="cpu", compile=False)  # fmt: skip
    assert len(result.elbo) == 3
    errors = [b - a for a, b in seen if a is not None and len(a) == 64]
    assert len(errors) >= 3 and not torch.equal(errors[-1], errors[-2])
    assert 0.3 < float(torch.cat(errors[-3:]).std()) < 0.5
    with pytest.raises(ValueError, match="x_in is drawn anew in every batch"):
        pg.log_marginal_likelihood(pair, data, num_samples=10, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few samples are enough to see that it works
        score = pg.log_marginal_likelihood(pair, data.stored(), num_samples=30, device="cpu")
    assert len(score.log_prob) == 64


@pytest.mark.parametrize(
    ("how", "level", "message"),
    [
        ("blur", 0.1, 'how must be one of "masking"'),
        ("masking", 0.0, "a probability above 0 and at most 1, got 0.0"),
        ("salt-and-pepper", 1.5, "a probability above 0"),
        ("gaussian", -1.0, "a positive standard deviation"),
        ("gaussian", math.inf, "a positive standard deviation"),
        ("masking", math.nan, "a probability"),
        ("masking", True, "a probability"),
    ],
)
def test_refused_corruptions(how: Any, level: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pg.Dataset({"x": torch.rand(3, 2)}).corrupted(how, level)


def test_what_noise_cannot_be_added_to() -> None:
    data = pg.Dataset({"x": torch.rand(4, 2), "n": torch.arange(4)})
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got values from 0 to 3"):
        data.corrupted("salt-and-pepper", 0.1, "n")
    with pytest.raises(ValueError, match="there is a variable 'n' already"):
        data.corrupted("masking", 0.1, into="n")
    with pytest.raises(ValueError, match=r"would contain another draw.*stored"):
        data.binarized("dynamic").corrupted("masking", 0.1)
    noisy = data.corrupted("masking", 0.1)
    for change in (
        lambda: noisy.standardized("x_in"),
        lambda: noisy.binarized("static", "x_in"),
        lambda: noisy.dequantized("x_in", levels=2),
        lambda: data.binarized("dynamic").standardized(),
    ):
        with pytest.raises(ValueError, match=r"x(_in)? is drawn anew in every batch"):
            change()
    whole = replace(data.fields["n"], noise=Corruption("masking", 0.1))
    with pytest.raises(TypeError, match="must hold floats"):
        pg.Dataset.from_fields({"n": whole})
