"""Latents as data for another model: means, fresh draws in every batch, inactive elements dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import probgen as pg
from tests.fitting import QUICK, structured, vae, weights
from tests.pairs import CASES, binary


def data(n: int = 40) -> pg.Dataset:
    mask = torch.arange(n) % 4 == 0
    return pg.Dataset({"x": structured(n), "y": torch.arange(n) % 2}, observed={"y": mask})


def test_features_are_the_means_of_the_guide() -> None:
    pair = vae()
    found = pg.features(pair, data(), device="cpu")
    q = pair.q_z(x=structured(40))
    assert torch.equal(found["x"], q.mean.detach()) and not found.spread
    assert torch.equal(found["y"], data()["y"]) and found.observed is not None
    assert torch.equal(found.observed["y"], data().observed["y"])
    assert "x is z of VAE" in repr(found)
    few = pg.features(pair, data(), columns=torch.tensor([1]), device="cpu")
    assert torch.equal(few["x"], found["x"][:, 1:])
    images = CASES["VAE of images"]
    assert pg.features(images.build(), pg.Dataset(images.data(3)), device="cpu")["x"].shape == (
        3,
        2,
    )


def test_drawn_anew_in_every_batch() -> None:
    pair = vae()
    drawn = pg.features(pair, data(4), redraw=True, device="cpu")
    q = pair.q_z(x=structured(4))
    rows = torch.tensor([2, 0])
    batches = torch.stack([drawn.batch(rows)[0]["x"] for _ in range(20_000)])
    error = q.stddev[rows].detach() / 20_000**0.5
    assert ((batches.mean(0) - q.mean[rows]).abs() < 5 * error).all()
    assert torch.allclose(batches.std(0), q.stddev[rows], rtol=0.03)
    assert "drawn anew in every batch" in repr(drawn)


def test_parts_and_stored_draws() -> None:
    drawn = pg.features(vae(), data(), redraw=True, device="cpu")
    part = drawn.subset(slice(3, 5))
    assert torch.equal(part.spread["x"], drawn.spread["x"][3:5])
    assert not drawn.only("y").spread and drawn.only("x").spread
    splits = drawn.split(test=10, seed=1)
    assert splits.test is not None and len(splits.test.spread["x"]) == 10
    scaled = drawn.standardized()
    assert torch.allclose(scaled.spread["x"] * drawn["x"].std(0, correction=0), drawn.spread["x"])
    kept = drawn.stored(seed=2)
    assert not kept.spread and torch.equal(kept["x"], drawn.stored(seed=2)["x"])
    assert not torch.equal(kept["x"], drawn.stored(seed=3)["x"])
    z = (kept["x"] - drawn["x"]) / drawn.spread["x"]
    assert 0.7 < float(z.std()) < 1.3 and "one stored draw (seed 2)" in repr(kept)


@pytest.mark.parametrize("compile", [False, True])
def test_a_model_of_features(compile: bool, tmp_path: Path, monkeypatch: Any) -> None:
    """M1+M2 in two stages; repeatable, captured or not, and other spreads are other data."""
    from probgen.inference.compute import capture

    monkeypatch.setattr(capture, "has_compiler", lambda device: False)
    drawn = pg.features(vae(), data(), redraw=True, device="cpu")
    settings: Any = {"batch_size": 16, "compile": compile, **QUICK,
                     "objective": pg.SemiSupervised(labelled_batch=4)}  # fmt: skip

    def build() -> Any:
        torch.manual_seed(1)
        return pg.models.M2(x=pg.Normal(2), y=pg.Categorical(2), z=pg.Normal(2), hidden=(8,))

    a, b, c = build(), build(), build()
    pg.fit(a, drawn, num_epochs=4, **settings)
    pg.fit(b, drawn, num_epochs=2, run_dir=tmp_path, **settings)
    pg.fit(b, drawn, num_epochs=4, run_dir=tmp_path, resume=True, **settings)
    assert torch.equal(weights(a), weights(b))
    means = pg.features(vae(), data(), device="cpu")
    pg.fit(c, means, num_epochs=4, **settings)
    assert not torch.equal(weights(a), weights(c))
    with pytest.raises(pg.RunError, match="was begun with data"):
        pg.fit(build(), means, num_epochs=5, run_dir=tmp_path, resume=True, **settings)
    found = pg.class_probabilities(a, drawn, device="cpu")
    assert torch.equal(found, pg.class_probabilities(a, means, device="cpu"))


def test_active_units() -> None:
    pair = vae()
    with torch.no_grad():
        last: Any = list(pair.q_z.parameters())[-2:]
        last[0][1].zero_()  # the mean of the second element no longer moves
    assert pg.active_units(pair, data(), threshold=1e-3, device="cpu").tolist() == [0]
    with pytest.raises(
        ValueError, match=r"no element of z is active: .* not above 100\. Train VAE for more epochs"
    ):
        pg.active_units(pair, data(), threshold=100, device="cpu")


def test_refused() -> None:
    with pytest.raises(
        ValueError, match=r"h must be a continuous latent of VAE.*the guide has z\."
    ):
        pg.features(vae(), data(), latent="h", device="cpu")
    m2 = CASES["M2"].build()
    with pytest.raises(
        ValueError, match=r"z must be a continuous latent of .* from the data alone"
    ):
        pg.features(m2, pg.Dataset({"x": binary(3)}), device="cpu")
    stack = CASES["M1M2"].build()
    z1 = pg.features(stack, pg.Dataset({"x": binary(3)}), latent="z1", redraw=True, device="cpu")
    assert z1["x"].shape == (3, 2)
    for latent, order in (("y", "z1, y"), ("z2", "z1, y, z2")):
        with pytest.raises(ValueError, match=rf"must be a continuous latent .* {order}"):
            pg.features(stack, pg.Dataset({"x": binary(3)}), latent=latent, device="cpu")
    with pytest.raises(ValueError, match="y must be a continuous latent"):
        pg.features(m2, pg.Dataset({"x": binary(3)}), latent="y", device="cpu")
    with pytest.raises(TypeError, match=r"data must be a pg\.Dataset, got Tensor"):
        pg.features(vae(), structured(4), device="cpu")  # type: ignore[arg-type]
    for spread in (torch.ones(3), -torch.ones(3, 1)):
        with pytest.raises(
            ValueError, match=r"spread\['x'\], .* must be at least 0 and have the shape of x"
        ):
            pg.Dataset({"x": torch.zeros(3, 1)}, spread={"x": spread})
    drawn = pg.features(vae(), data(), redraw=True, device="cpu").only("x")
    pair = pg.models.PPCA(x=pg.Normal(2), z=pg.Normal(1))
    with pytest.raises(ValueError, match="x is drawn anew in every batch, so its score"):
        pg.log_marginal_likelihood(pair, drawn)
    assert pg.log_marginal_likelihood(pair, drawn.stored(), method="exact").is_exact
