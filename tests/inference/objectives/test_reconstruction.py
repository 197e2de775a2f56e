"""Autoencoders: the reconstruction against its formula, and what a point mass refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

import probgen as pg


def gaussian_data(n: int = 400) -> Tensor:
    """Five dimensions, of which two have most of the variance."""
    generator = torch.Generator().manual_seed(0)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator))
    scales = torch.tensor([3.0, 2.0, 0.3, 0.2, 0.1])
    return torch.randn(n, 5, generator=generator) * scales @ rotation + 1.0


def autoencoder(**settings: Any) -> pg.models.Autoencoder:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"x": pg.Normal(5, scale=1.0), "z": pg.Normal(2), "hidden": (8,)}
    return pg.models.Autoencoder(**{**arguments, **settings})


def test_the_value_is_the_log_probability_at_the_code() -> None:
    x = gaussian_data(7)
    for variable in (pg.Normal(5, scale=0.5), pg.Bernoulli(5)):
        model = autoencoder(x=variable)
        values = x if variable.__class__ is pg.Normal else (x > 1).float()
        mean = model.p_x(z=model.q_z(x=values).mean).mean
        if isinstance(variable, pg.Normal):
            expected = -0.5 * ((values - mean) / 0.5).square().sum(1)
            expected = expected - 5 * math.log(0.5 * math.sqrt(2 * math.pi))
        else:
            expected = torch.where(values == 1, mean, 1 - mean).log().sum(1)
        assert torch.allclose(pg.Reconstruction()(model, {"x": values}), expected, rtol=1e-4)


def test_the_prior_plays_no_part() -> None:
    """A learned prior gets no gradient, and the encoder and the decoder get one."""
    model = autoencoder()
    model.p_z = pg.Conditional(pg.Normal(2), learned=True)
    pg.Reconstruction()(model, {"x": gaussian_data(7)}).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.p_z.parameters())
    for factor in (model.p_x, model.q_z):
        assert all(p.grad is not None and p.grad.any() for p in factor.parameters())


def test_a_linear_autoencoder_spans_the_principal_subspace() -> None:
    x = gaussian_data()
    model = autoencoder(hidden=())
    settings: dict[str, Any] = {"precision": "float64", "progress": False, "device": "cpu"}
    for rate in (0.03, 0.003, 0.0003):
        result = pg.fit(model, x, num_epochs=200, batch_size=400, learning_rate=rate, **settings)
    assert result.quantity == "reconstruction"
    pca = PCA(2).fit(x.numpy())
    principal = pca.components_.T @ pca.components_
    decoder: Any = model.p_x.network
    weights = decoder.layers[0].weight.detach().double()
    basis = torch.linalg.qr(weights)[0].numpy()
    assert np.abs(basis @ basis.T - principal).max() < 1e-3
    ours = (pg.reconstruct(model, x.double(), device="cpu")["x"] - x).square().mean()
    best = np.square(pca.inverse_transform(pca.transform(x.numpy())) - x.numpy()).mean()
    assert best <= ours < best * 1.01


def test_a_point_mass_can_be_encoded_and_has_no_bound() -> None:
    model, x = autoencoder(), gaussian_data(6)
    code = pg.encode(model, x, device="cpu")["z"]
    assert torch.equal(code, pg.encode(model, x, seed=5, device="cpu")["z"])
    assert torch.allclose(code, model.q_z(x=x).mean)
    assert "point mass" in repr(model)
    features = pg.features(model, pg.Dataset({"x": x}), device="cpu")["x"]
    assert torch.equal(features, code)
    refusal = r"Autoencoder: the guide puts a point mass on z.*objective=\"reconstruction\""
    with pytest.raises(ValueError, match=refusal):
        pg.ELBO()(model, {"x": x})
    with pytest.raises(ValueError, match=refusal):
        pg.log_marginal_likelihood(model, x, num_samples=10, device="cpu")
    with pytest.raises(ValueError, match=refusal):
        pg.fit(model, x, objective="elbo", num_epochs=1, device="cpu", progress=False)
    with pytest.raises(ValueError, match="Trace_ELBO: the guide of Autoencoder puts a point mass"):
        pg.fit(
            model, x, objective=pyro.infer.Trace_ELBO(), num_epochs=1, device="cpu", progress=False
        )


def test_a_delta_written_by_hand_is_trained_too() -> None:
    class ByHand(pg.LatentVariableModel):
        def __init__(self) -> None:
            super().__init__()
            self.p_z = pg.Conditional(pg.Normal(2))
            self.p_x = pg.Conditional(pg.Normal(5, scale=1.0), {"z": pg.Normal(2)}, hidden=(8,))
            self.encoder = torch.nn.Linear(5, 2)

        def model(self, x: Any = None, z: Any = None) -> None:
            with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
                z = pyro.sample("z", self.p_z(), obs=z)
                pyro.sample("x", self.p_x(z=z), obs=x)

        def guide(self, x: Any = None, z: Any = None) -> None:
            with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
                if z is None:
                    pyro.sample("z", dist.Delta(self.encoder(x)).to_event(1))

    torch.manual_seed(0)
    model, x = ByHand(), gaussian_data(64)
    result = pg.fit(
        model, x, objective="reconstruction", num_epochs=20, learning_rate=0.01, device="cpu",
        progress=False,
    )  # fmt: skip
    assert result.elbo[-1] > result.elbo[0] + 1
    assert pg.encode(model, x, device="cpu")["z"].shape == (64, 2)
    with pytest.raises(ValueError, match="ByHand: the guide puts a point mass on z"):
        pg.ELBO()(model, {"x": x})


def test_a_vae_is_reconstructed_from_draws() -> None:
    """The ELBO without its KL term: equal to it where the guide is the prior."""
    torch.manual_seed(0)
    vae = pg.models.VAE(x=pg.Bernoulli(5), z=pg.Normal(2), hidden=())
    with torch.no_grad():
        for parameter in vae.q_z.parameters():
            parameter.zero_()
    x = torch.bernoulli(torch.full((6, 5), 0.5))
    torch.manual_seed(1)
    value = pg.Reconstruction()(vae, {"x": x})
    torch.manual_seed(1)
    assert torch.allclose(value, pg.ELBO()(vae, {"x": x}), atol=1e-5)


def test_missing_classes_are_refused() -> None:
    mixture = pg.declare("p(y) p(x | y)", y=pg.Categorical(2), x=pg.Normal(5))
    with pytest.raises(ValueError, match="no value of y for some data"):
        pg.Reconstruction()(mixture, {"x": gaussian_data(3)})
