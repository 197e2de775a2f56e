"""The adversarial objective against mathematics: optimal critic, values and gradients by hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import probgen as pg
from probgen.basics.randomness import fixed_seed
from probgen.inference.objectives.collapse import signs_of_collapse


def gan(size: int = 2, **settings: Any) -> pg.models.GAN:
    torch.manual_seed(0)
    return pg.models.GAN(x=pg.Normal(size), z=pg.Normal(2), hidden=(8,), **settings)


def real(n: int, size: int = 2) -> Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(1)) + 2


def drawn(function: Any, *arguments: Any) -> Any:
    with fixed_seed(3, torch.device("cpu")):
        return function(*arguments)


def logits_and_samples(model: Any, critic: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """l(x) and l(G(z)), from the layers and not from what the objective calls."""

    def logit(values: Tensor) -> Tensor:
        first, second = critic.network.layers
        hidden = nn.functional.leaky_relu(values @ first.weight.T + first.bias, 0.2)
        return (hidden @ second.weight.T + second.bias).squeeze(-1)

    z = model.draw_latents(len(x))["z"]
    first, second = model.p_x.network.layers
    samples = (z @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias
    return logit(x), logit(samples)


@pytest.mark.parametrize("loss", ["non-saturating", "minimax"])
def test_both_values_and_gradients_are_those_by_hand(loss: Any) -> None:
    model, x = gan().double(), real(6).double()
    game = pg.Adversarial(hidden=(8,), loss=loss, r1=0.7)
    critic = game.networks(model).double()
    first, second = game.players(model, critic)
    assert (first.name, second.name) == ("critic", "generator")
    assert set(first.parameters) == set(critic.parameters())
    assert set(second.parameters) == set(model.parameters())

    value, metrics = drawn(lambda: first.value(model, {"x": x}))
    x_leaf = x.clone().requires_grad_()
    on_data, on_samples = drawn(logits_and_samples, model, critic, x_leaf)
    (slope,) = torch.autograd.grad(on_data.sum(), x_leaf, create_graph=True)
    by_hand = on_data.sigmoid().log() + (1 - on_samples.sigmoid()).log() - 0.35 * (slope**2).sum(1)
    assert torch.allclose(value, by_hand)
    assert torch.allclose(metrics["D(x)"], on_data.sigmoid().mean())
    assert torch.allclose(metrics["D(G(z))"], on_samples.sigmoid().mean())
    ours = torch.autograd.grad(value.sum(), first.parameters)
    theirs = torch.autograd.grad(by_hand.sum(), first.parameters)
    assert all(torch.allclose(a, b) and bool(a.any()) for a, b in zip(ours, theirs, strict=True))

    value = drawn(lambda: second.value(model, {"x": x}))
    _, on_samples = drawn(logits_and_samples, model, critic, x)
    d = on_samples.sigmoid()
    by_hand = d.log() if loss == "non-saturating" else -(1 - d).log()
    assert torch.allclose(value, by_hand)
    ours = torch.autograd.grad(value.sum(), second.parameters)
    theirs = torch.autograd.grad(by_hand.sum(), second.parameters)
    assert all(torch.allclose(a, b) and bool(a.any()) for a, b in zip(ours, theirs, strict=True))


def test_the_critic_learns_the_ratio_of_two_gaussians() -> None:
    """Against samples of N(0, 1), data of N(1, 1): l(x) = log p(x) / q(x) = x - 1/2."""
    torch.manual_seed(0)
    model = pg.models.GAN(x=pg.Normal(1), z=pg.Normal(1), generator=nn.Identity())
    game = pg.Adversarial(hidden=())
    critic = game.networks(model)
    player, _ = game.players(model, critic)
    optimizer = torch.optim.LBFGS(critic.parameters(), max_iter=50)
    x = torch.randn(200_000, 1) + 1

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -drawn(lambda: player.value(model, {"x": x}))[0].mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    at = torch.linspace(-3, 4, 15)[:, None]
    with torch.no_grad():
        learned = critic(x=at).mean
    p, q = (torch.distributions.Normal(m, 1.0).log_prob(at[:, 0]).exp() for m in (1.0, 0.0))
    assert (learned - p / (p + q)).abs().max() < 0.01


def test_the_value_at_the_optimum_is_minus_two_log_two_where_samples_are_data() -> None:
    """Goodfellow et al. (2014), theorem 1: V = -log 4 at D = 1/2."""
    model = gan()
    game = pg.Adversarial(hidden=())
    critic = game.networks(model)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.zero_()
    value, metrics = game.players(model, critic)[0].value(model, {"x": real(5)})
    assert torch.allclose(value, torch.full((5,), -4.0).abs().log().neg())
    assert metrics["D(x)"] == metrics["D(G(z))"] == 0.5


def test_a_gan_learns_a_gaussian() -> None:
    torch.manual_seed(0)
    model = pg.models.GAN(x=pg.Normal(1), z=pg.Normal(1), hidden=())
    x = 0.5 * torch.randn(2000, 1) + 1
    game = pg.Adversarial(hidden=(32,), r1=0.02, critic_steps=5)
    result = pg.fit(
        model, x, objective=game, num_epochs=60, batch_size=200, learning_rate=5e-3,
        optimizer=partial(torch.optim.Adam, betas=(0.5, 0.99)), device="cpu", progress=False,
    )  # fmt: skip
    samples = model.sample(5000, seed=0)["x"]
    assert abs(float(samples.mean()) - 1) < 0.1
    assert 0.4 < float(samples.std()) < 0.6
    assert result.quantity == "critic value"
    assert set(result.metrics) == {"D(x)", "D(G(z))", "generator", "spread"}
    assert all(len(curve) == 60 for curve in result.metrics.values())
    assert abs(result.metrics["D(x)"][-1] - 0.5) < 0.1
    assert abs(result.metrics["D(G(z))"][-1] - 0.5) < 0.1


def test_graphs_equal_the_steps_as_written() -> None:
    """Both players, with the penalty, whose gradient is a second derivative."""

    def trained(compile: bool) -> list[Tensor]:
        model = gan()
        game = pg.Adversarial(hidden=(8,), r1=0.5, critic_steps=2)
        pg.fit(
            model, real(64).double(), objective=game, num_epochs=3, batch_size=16, compile=compile,
            precision="float64", device="cpu", progress=False,
        )  # fmt: skip
        return list(model.state_dict().values())

    for written, captured in zip(trained(False), trained(True), strict=True):
        assert torch.allclose(written, captured, rtol=1e-9, atol=1e-12)


def test_a_class_is_an_input_of_generator_and_critic() -> None:
    class Conditioned(pg.ImplicitModel):
        def __init__(self) -> None:
            super().__init__()
            y, z = pg.Categorical(2), pg.Normal(1)
            self.p_z = pg.Conditional(z)
            self.p_x = pg.Conditional(pg.PointMass(pg.Normal(1)), {"z": z, "y": y}, hidden=())

    torch.manual_seed(0)
    model = Conditioned()
    y = torch.arange(1000) % 2
    x = 3.0 * y[:, None] + 0.3 * torch.randn(1000, 1)
    pg.fit(
        model, {"x": x, "y": y}, objective=pg.Adversarial(hidden=(32,), r1=0.1), num_epochs=60,
        learning_rate=5e-3, device="cpu", progress=False,
    )  # fmt: skip
    means = model.sample(2000, seed=0, y=torch.tensor([0, 1]))["x"].mean(0)[:, 0]
    assert (means - torch.tensor([0.0, 3.0])).abs().max() < 0.4


def test_networks_are_exchangeable() -> None:
    torch.manual_seed(0)
    model = pg.models.GAN(
        x=pg.Bernoulli((1, 8, 8)), z=pg.Normal(3), generator=pg.ConvDecoder
    )  # fmt: skip
    x = torch.rand(32, 1, 8, 8)
    game = pg.Adversarial(critic=pg.ConvEncoder)
    result = pg.fit(model, x, objective=game, num_epochs=2, device="cpu", progress=False)
    assert len(result.elbo) == 2 and model.sample(2)["x"].shape == (2, 1, 8, 8)


def test_implicit_models_have_no_bound_and_pairs_no_critic() -> None:
    model: Any = gan()
    x = real(4)
    for call in (
        lambda: pg.ELBO()(model, {"x": x}),
        lambda: pg.log_marginal_likelihood(model, x, device="cpu"),
        lambda: pg.encode(model, x, device="cpu"),
        lambda: pg.reconstruct(model, x, device="cpu"),
        lambda: pg.class_probabilities(model, x, device="cpu"),
        lambda: pg.fit(model, x, objective="elbo", num_epochs=1, progress=False, device="cpu"),
    ):
        with pytest.raises(TypeError, match=r"GAN is an implicit model.*pg\.fit\(model, data\)"):
            call()
    vae = pg.models.VAE(x=pg.Normal(2), z=pg.Normal(1))
    with pytest.raises(TypeError, match=r"such as pg\.models\.GAN, got VAE"):
        pg.fit(vae, x, objective="adversarial", num_epochs=1, progress=False, device="cpu")


def test_data_binarized_anew_are_refused() -> None:
    model = pg.models.GAN(x=pg.Bernoulli(4), z=pg.Normal(1))
    data = pg.Dataset({"x": torch.rand(8, 4)}).binarized("dynamic")
    with pytest.raises(ValueError, match="binarized anew in every batch"):
        pg.fit(model, data, num_epochs=1, progress=False, device="cpu")


@pytest.mark.parametrize(
    "settings", [{"loss": "least-squares"}, {"r1": -1.0}, {"critic_steps": 0}, {"hidden": (0,)}]
)
def test_settings_out_of_range_are_refused(settings: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        pg.Adversarial(**settings)


def test_signs_of_collapse_need_ten_epochs_in_a_row() -> None:
    fine = {"spread": [0.9] * 40, "D(x)": [0.6] * 40, "D(G(z))": [0.4] * 40}
    assert not list(signs_of_collapse(fine))
    alike = {**fine, "spread": [0.9] * 29 + [0.3] * 11}
    (remark,) = signs_of_collapse(alike)
    assert remark.startswith("Mode collapse: in epochs 30 to 39 the samples varied by 30%")
    # The same words after further epochs, so that they are said once.
    longer = {name: [*curve, curve[-1] / 2] for name, curve in alike.items()}
    assert list(signs_of_collapse(longer)) == [remark]
    assert not list(signs_of_collapse({**fine, "spread": [0.3] * 29 + [0.9] + [0.3] * 9 + [0.9]}))
    won = {**fine, "D(x)": [0.999] * 40, "D(G(z))": [0.001] * 40}
    (remark,) = signs_of_collapse(won)
    assert remark.startswith("The critic has won: in epochs 21 to 30")
    # In the first epochs samples are alike because training has just begun.
    assert not list(signs_of_collapse({name: curve[:29] for name, curve in won.items()}))


def test_a_collapse_is_said_once_in_words() -> None:
    """A generator that ignores z: its samples are one point, whatever is learned."""
    torch.manual_seed(0)
    model: Any = gan()
    with torch.no_grad():
        model.p_x.network.layers[0].weight.zero_()
    model.p_x.network.layers[0].weight.requires_grad_(False)
    with pytest.warns(UserWarning, match="Mode collapse") as warned:
        pg.fit(model, real(64), num_epochs=35, device="cpu", progress=False)
    assert sum("Mode collapse" in str(w.message) for w in warned) == 1
