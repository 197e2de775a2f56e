"""The ELBO, value and gradient: against Pyro, against closed forms, against sums by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import probgen as pg
from tests import pairs
from tests.pairs import CASES, HandM2, binary, labels, linear_gaussian


def gradients(value: Tensor, pair: pg.LatentVariableModel) -> list[Tensor]:
    found = torch.autograd.grad(value, list(pair.parameters()), allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g
        for g, p in zip(found, pair.parameters(), strict=True)
    ]


def against_pyro(pair: Any, data: Any, ours: pg.ELBO, theirs: Any, guide: Any = None) -> None:
    """Equal seed, equal draws: value and gradient agree up to the order of additions."""
    torch.manual_seed(1)
    value = ours(pair, data).sum()
    torch.manual_seed(1)
    loss = theirs.differentiable_loss(pair.model, guide or pair.guide, **data)
    assert value.item() == pytest.approx(-loss.item(), rel=1e-5)
    mine, other = gradients(value, pair), gradients(-loss, pair)
    assert any(g.abs().max() > 0 for g in mine)
    for a, b in zip(mine, other, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


SAMPLED = ["VAE", "VAE of images", "PPCA", "CVAE", "hierarchical", "M2", "auxiliary",
           "binary latents", "stacked M1+M2"]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("particles", [1, 5])
def test_equals_trace_elbo(name: str, particles: int) -> None:
    case = CASES[name]
    theirs: Any = Trace_ELBO(particles, vectorize_particles=True, max_plate_nesting=1)
    against_pyro(case.build(), case.data(7), pg.ELBO(particles), theirs)


@pytest.mark.parametrize("name", ["VAE", "PPCA", "CVAE", "M2"])
def test_analytic_kl_equals_trace_mean_field_elbo(name: str) -> None:
    case = CASES[name]
    against_pyro(case.build(), case.data(7), pg.ELBO(analytic_kl=True), TraceMeanField_ELBO())


@pytest.mark.parametrize("name", ["M2", "stacked M1+M2", "auxiliary", "convolutional M2"])
def test_missing_labels_equal_trace_enum_elbo(name: str) -> None:
    pair, data = CASES[name].build(), CASES[name].data(7)
    guide = config_enumerate(pair.guide)
    against_pyro(pair, {"x": data["x"]}, pg.ELBO(), TraceEnum_ELBO(max_plate_nesting=1), guide)


@pytest.mark.parametrize("name", ["mixture", "Gaussian mixture VAE"])
def test_sums_in_the_model_equal_trace_enum_elbo(name: str) -> None:
    pair, data = CASES[name].build(), CASES[name].data(7)

    class Marked:
        name = "marked"
        model = staticmethod(config_enumerate(pair.model))
        guide = staticmethod(pair.guide)
        parameters = pair.parameters

    torch.manual_seed(1)
    value = pg.ELBO()(pair, {"x": data["x"]}).sum()
    torch.manual_seed(1)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    loss = elbo.differentiable_loss(Marked.model, Marked.guide, x=data["x"])
    assert value.item() == pytest.approx(-loss.item(), rel=1e-5)
    for a, b in zip(gradients(value, pair), gradients(-loss, pair), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "theirs", [Trace_ELBO(), TraceMeanField_ELBO(), TraceEnum_ELBO(max_plate_nesting=1)],
    ids=["Trace_ELBO", "TraceMeanField_ELBO", "TraceEnum_ELBO"],
)  # fmt: skip
def test_fit_accepts_pyros_objectives(theirs: Any) -> None:
    """Same draws, same steps: the same weights as with our own objective."""
    data = {"x": binary(12), "y": labels(12)}
    ours: Any = "elbo"
    if isinstance(theirs, TraceMeanField_ELBO):
        ours = "analytic-kl"
    elif isinstance(theirs, TraceEnum_ELBO):
        data.pop("y")
    first, second = HandM2(), HandM2()
    second.load_state_dict(first.state_dict())
    settings: Any = {"num_epochs": 2, "batch_size": 4, "progress": False}
    a = pg.fit(first, data, objective=ours, **settings)
    b = pg.fit(second, data, objective=theirs, **settings)
    assert a.elbo == pytest.approx(b.elbo, rel=1e-4)
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-4)


# ------------------------------------------------------------------ closed forms


def exact_gap(pair: pg.models.FactorAnalysis, x: Tensor) -> Tensor:
    """KL(q(z | x) || p(z | x)) in closed form."""
    q = pair.q_z(x=x)
    return kl_divergence(
        MultivariateNormal(q.mean, torch.diag_embed(q.stddev**2)), pair.posterior(x)
    )


@pytest.mark.parametrize("analytic", [False, True])
def test_gap_is_the_kl_to_the_posterior(analytic: bool) -> None:
    pair, x = linear_gaussian()
    replicates = torch.stack(
        [pg.ELBO(1000, analytic_kl=analytic)(pair, {"x": x}).detach() for _ in range(50)]
    )
    error = replicates.std(0) / math.sqrt(50)
    expected = pair.log_prob(x) - exact_gap(pair, x)
    assert ((replicates.mean(0) - expected).abs() < 4 * error).all()
    assert (error < 0.02 * exact_gap(pair, x)).all()  # the test can tell a gap from none


@pytest.mark.parametrize("analytic", [False, True])
def test_gradient_is_the_closed_forms(analytic: bool) -> None:
    """E[ELBO] = log p(x) − KL(q || p(z | x)) can be differentiated exactly."""
    pair, x = linear_gaussian(1)
    expected = gradients((pair.log_prob(x) - exact_gap(pair, x)).sum(), pair)
    draws = [
        gradients(pg.ELBO(500, analytic_kl=analytic)(pair, {"x": x}).sum(), pair) for _ in range(60)
    ]
    for index, exact in enumerate(expected):
        stack = torch.stack([draw[index] for draw in draws])
        error = stack.std(0) / math.sqrt(len(draws))
        assert ((stack.mean(0) - exact).abs() < 4.5 * error + 1e-9).all()


def test_gradient_derived_by_hand() -> None:
    """x | z ~ N(w z + b, s²), q = N(a x + c, t²): dELBO/dw, /db and /dc on paper."""
    pair = pg.models.FactorAnalysis(x=pg.Normal(1), z=pg.Normal(1)).double()
    x = torch.tensor([[0.7], [-1.2]], dtype=torch.float64)
    w, b = pair.loadings.item(), pair.mean.item()
    encoder = pair.q_z.network.layers[0]  # type: ignore[union-attr, index]
    m = x * encoder.weight.item() + encoder.bias.item()  # type: ignore[union-attr]
    s2, t2 = pair.noise_variance.item(), pair.q_z(x=x).stddev[0].item() ** 2
    by_hand = {
        "p_x.network.layers.0.weight": (((x - b) * m - w * (m**2 + t2)) / s2).sum(),
        "p_x.network.layers.0.bias": ((x - w * m - b) / s2).sum(),
        "q_z.network.layers.0.bias": (w * (x - w * m - b) / s2 - m).sum(),
    }
    names = [name for name, _ in pair.named_parameters()]
    draws = [gradients(pg.ELBO(2000)(pair, {"x": x}).sum(), pair) for _ in range(60)]
    for name, exact in by_hand.items():
        stack = torch.stack([draw[names.index(name)] for draw in draws]).flatten()
        assert abs(stack.mean() - exact) < 4 * stack.std() / math.sqrt(len(draws)), name


def test_missing_label_is_the_sum_over_classes_by_hand() -> None:
    """Σ_y q(y | x) [log p(x, y, z_y) − log q(z_y | x, y) − log q(y | x)], value and gradient."""
    pair, x = HandM2().double(), binary(5).double()
    torch.manual_seed(2)
    ours = pg.ELBO()(pair, {"x": x})
    torch.manual_seed(2)
    noise = torch.normal(torch.zeros(3, 5, 2).double(), torch.ones(3, 5, 2).double())
    log_q_y = pair.q_y(x=x).logits  # normalized, (data, classes)
    total = torch.zeros(5, dtype=torch.float64)
    for y in range(3):
        label = torch.full((5,), y)
        q = pair.q_z(x=x, y=label)
        z = q.mean + q.stddev * noise[y]
        log_p = -math.log(3) + Normal(0, 1).log_prob(z).sum(-1) + pair.p_x(y=label, z=z).log_prob(x)
        total = total + log_q_y[:, y].exp() * (log_p - q.log_prob(z) - log_q_y[:, y])
    assert torch.allclose(ours, total, rtol=1e-10)
    for a, b in zip(gradients(ours.sum(), pair), gradients(total.sum(), pair), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)


def test_mixture_is_the_closed_form() -> None:
    """Without a guide factor the bound is log Σ_y p(y) p(x | y) itself."""
    pair, x = pairs.mixture().double(), torch.randn(5, pairs.X, dtype=torch.float64)
    ours = pg.ELBO()(pair, {"x": x})
    parts = [pair.p_x(y=torch.full((5,), y)).log_prob(x) - math.log(3) for y in range(3)]
    exact = torch.stack(parts).logsumexp(0)
    assert torch.allclose(ours, exact, rtol=1e-12)
    for a, b in zip(gradients(ours.sum(), pair), gradients(exact.sum(), pair), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_score_function_gradient_is_that_of_the_exact_bound() -> None:
    """Three binary latents have eight states: the bound and its gradient can be summed."""
    pair, x = pairs.binary_latents().double(), binary(3).double()
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 3)[:, None].expand(8, 3, 3)
    log_q = pair.q_z(x=x).log_prob(states)
    log_p = pair.p_z().log_prob(states) + pair.p_x(z=states).log_prob(x)
    exact = (log_q.exp() * (log_p - log_q)).sum(0)
    expected = gradients(exact.sum(), pair)
    values, draws = [], []
    for _ in range(80):
        value = pg.ELBO(500)(pair, {"x": x})
        values.append(value.detach())
        draws.append(gradients(value.sum(), pair))
    stack = torch.stack(values)
    assert ((stack.mean(0) - exact).abs() < 4 * stack.std(0) / math.sqrt(80)).all()
    for index, gradient in enumerate(expected):
        samples = torch.stack([draw[index] for draw in draws])
        error = samples.std(0) / math.sqrt(len(draws))
        assert ((samples.mean(0) - gradient).abs() < 4.5 * error + 1e-9).all()


def test_score_function_under_a_summed_class() -> None:
    """A binary latent that depends on a summed class: both kinds of gradient at once."""
    pair = pg.declare(
        "p(y) p(z) p(x | y, z)", "q(y | x) q(z | x, y)", hidden=(4,),
        y=pg.Categorical(2), z=pg.Bernoulli(2), x=pg.Bernoulli(3),
    ).double()  # fmt: skip
    x = torch.bernoulli(torch.full((2, 3), 0.5)).double()
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 2)[:, None].expand(4, 2, 2)
    exact = torch.zeros(2, dtype=torch.float64)
    for y in range(2):
        label = torch.full((2,), y)
        log_q_y = pair.q_y(x=x).log_prob(label)
        log_q = pair.q_z(x=x, y=label).log_prob(states)
        log_p = -3 * math.log(2) + pair.p_x(y=label, z=states).log_prob(x)
        inner = (log_q.exp() * (log_p - log_q - log_q_y)).sum(0)
        exact = exact + log_q_y.exp() * inner
    expected = gradients(exact.sum(), pair)
    draws = [gradients(pg.ELBO(500)(pair, {"x": x}).sum(), pair) for _ in range(80)]
    for index, gradient in enumerate(expected):
        samples = torch.stack([draw[index] for draw in draws])
        error = samples.std(0) / math.sqrt(len(draws))
        assert ((samples.mean(0) - gradient).abs() < 4.5 * error + 1e-9).all()
