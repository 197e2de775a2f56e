"""The ELBO, value and gradient: against Pyro, against closed forms, against sums by hand."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import probgen as pg
from probgen.inference.traces import trace_pair
from tests import pairs
from tests.pairs import CASES, HandM2, binary, labels


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


def linear_gaussian(seed: int = 0) -> tuple[pg.models.FactorAnalysis, Tensor]:
    torch.manual_seed(seed)
    pair = pg.models.FactorAnalysis(x=pg.Normal(5), z=pg.Normal(2)).double()
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return pair, 1.5 * torch.randn(4, 5, dtype=torch.float64)


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


# ------------------------------------------------------------------ details


def test_closed_form_kl_only_where_it_is_the_expectation() -> None:
    """In a bottom-up guide z1 is drawn before its model parent z2: its KL has no closed form, and
    the bound must still be the bound."""
    pair, data = CASES["hierarchical"].build().double(), CASES["hierarchical"].data(3)
    x = {"x": data["x"].double()}
    plain = torch.stack([pg.ELBO(1000)(pair, x).detach() for _ in range(40)])
    analytic = torch.stack([pg.ELBO(1000, analytic_kl=True)(pair, x).detach() for _ in range(40)])
    error = ((plain.var(0) + analytic.var(0)) / 40).sqrt()
    assert ((plain.mean(0) - analytic.mean(0)).abs() < 4 * error).all()
    assert (analytic.var(0) < plain.var(0)).any()  # z2 does have one


def test_warm_up_weights_the_kl_terms_only() -> None:
    pair, x = linear_gaussian()

    def at(weight: float) -> Tensor:
        torch.manual_seed(1)
        return pg.ELBO(3)(pair, {"x": x}, kl_weight=torch.tensor(weight))  # fmt: skip

    full = at(1.0)
    torch.manual_seed(1)
    assert torch.allclose(full, pg.ELBO(3)(pair, {"x": x}))
    assert torch.allclose(at(0.25), 0.75 * at(0.0) + 0.25 * at(1.0))
    torch.manual_seed(1)
    trace = trace_pair(pair, {"x": x}, num_particles=3)
    assert torch.allclose(at(0.0), trace.log_p["x"].mean(0))


def test_warm_up_leaves_a_known_label_alone() -> None:
    pair, x = HandM2(), binary(4)
    mask = {"y": torch.tensor([True, True, False, False])}
    torch.manual_seed(1)
    value = pg.ELBO()(pair, {"x": x, "y": labels(4)}, observed=mask, kl_weight=torch.zeros(()))
    torch.manual_seed(1)
    trace = trace_pair(pair, {"x": x, "y": labels(4)}, observed=mask)
    chosen = trace.log_p["x"][labels(4), torch.arange(4)]
    assert torch.allclose(value[:2], chosen[:2] - math.log(3))


def test_warm_up_is_refused_inside_a_sum() -> None:
    with pytest.raises(ValueError, match="KL warm-up"):
        pg.ELBO()(pairs.mixture(), {"x": torch.randn(2, pairs.X)}, kl_weight=torch.tensor(0.5))


class _Broken(HandM2):
    """A pair that breaks the contract in the way its `how` says."""

    how = ""

    def guide(self, x: Any = None, y: Any = None, z: Any = None) -> None:
        import pyro.distributions as dist

        with pyro.plate("data", len(x), dim=-1):
            if y is None:
                y = pyro.sample("y", self.q_y(x=x))
            if self.how == "auxiliary":
                pyro.sample("a", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            if self.how == "extra":
                pyro.sample("a", dist.Normal(0.0, 1.0))
            if self.how == "delta":
                pyro.sample("z", dist.Delta(self.q_z(x=x, y=y).mean).to_event(1))
            elif self.how == "scaled":
                with pyro.poutine.scale(scale=0.5):
                    pyro.sample("z", self.q_z(x=x, y=y))
            elif self.how not in ("missing", "outside"):
                pyro.sample("z", self.q_z(x=x, y=y))
        if self.how == "outside":
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(2))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("extra", "guide samples a, but the model has no such site"),
        ("delta", "point mass on z"),
        ("scaled", "z is scaled by 0.5"),
        ("missing", "z is not given and has no guide factor"),
        ("outside", "z stands outside pyro.plate"),
    ],
)
def test_breaches_of_the_contract_are_named(how: str, message: str) -> None:
    pair = _Broken()
    pair.how = how
    with pytest.raises(ValueError, match=message):
        pg.ELBO()(pair, {"x": binary(4), "y": labels(4)})


def test_an_auxiliary_guide_site_is_allowed() -> None:
    pair = _Broken()
    pair.how = "auxiliary"
    assert pg.ELBO()(pair, {"x": binary(4), "y": labels(4)}).isfinite().all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"y": labels(4)}, "x"),
        ({"x": binary(4), "y": labels(3)}, "same first dim"),
    ],
)
def test_missing_and_uneven_data(data: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        pg.ELBO()(HandM2(), data)


def test_a_leaf_that_nothing_infers_must_be_given() -> None:
    with pytest.raises((ValueError, TypeError), match="x"):
        pg.ELBO()(CASES["VAE"].build(), {"z": torch.zeros(3, 2)})
    mixture = pg.declare("p(y) p(c | y)", y=pg.Categorical(2), c=pg.Categorical(4))
    with pytest.raises(ValueError, match="c must be given"):
        pg.ELBO()(mixture, {"y": torch.zeros(3, dtype=torch.long)})


@pytest.mark.parametrize("bad", [{"num_particles": 0}, {"num_particles": 1.5},
                                 {"warmup_epochs": -1}])  # fmt: skip
def test_bad_settings(bad: Any) -> None:
    with pytest.raises(ValueError, match="ELBO"):
        pg.ELBO(**bad)


# ------------------------------------------------------------------ sites of unusual kinds


class _Gaussian(pg.LatentVariableModel):
    """z ~ N(0, 1), x ~ N(z, 1): p(z | x) = N(x / 2, 1/2), with a guide that `how` bends."""

    how = ""

    def model(self, x: Any = None, z: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
            z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0), obs=z)
            loc = pyro.deterministic("loc", z) if self.how == "deterministic" else z
            obs = None if self.how == "not observed" else x
            pyro.sample("x", pyro.distributions.Normal(loc, 1.0), obs=obs)

    def guide(self, x: Any = None, z: Any = None) -> None:
        posterior = pyro.distributions.Normal(x / 2, 0.5**0.5)
        with pyro.plate("data", len(x), dim=-1):
            if self.how == "auxiliary":
                pyro.sample("a", pyro.distributions.Normal(0.0, 5.0), infer={"is_auxiliary": True})
            if self.how == "auxiliary class":
                chances = torch.tensor([0.1, 0.2, 0.7])
                pyro.sample("a", pyro.distributions.Categorical(chances),
                            infer={"is_auxiliary": True})  # fmt: skip
            if self.how == "tensor scale":
                with pyro.poutine.scale(scale=torch.tensor(0.5)):
                    pyro.sample("z", posterior)
            elif self.how == "param":
                width = pyro.param("width", torch.tensor(1.0))
                pyro.sample("z", pyro.distributions.Normal(x, width))
            elif self.how == "misnamed":
                pyro.sample("zz", posterior)
            elif self.how == "second plate":
                with pyro.plate("more", 3, dim=-2):
                    pyro.sample("z", posterior)
            else:
                pyro.sample("z", posterior)


@pytest.mark.parametrize("how", ["", "auxiliary", "auxiliary class", "deterministic"])
def test_exact_guides_stay_exact_beside_auxiliary_sites(how: str) -> None:
    """What the guide draws besides adds nothing: bound and log p(x) stay those of the exact guide."""
    pair, x = _Gaussian(), torch.tensor([0.3, -1.1])
    pair.how = how
    exact = Normal(0.0, 2.0**0.5).log_prob(x)
    for particles in (1, 4):
        assert torch.allclose(pg.ELBO(particles)(pair, {"x": x}), exact, atol=1e-5)
    score = pg.log_marginal_likelihood(pair, x, num_samples=30)
    assert torch.allclose(torch.from_numpy(score.log_prob).float(), exact, atol=1e-5)
    assert score.is_exact and score.measure == "density of x"


@pytest.mark.parametrize(
    ("how", "message"),
    [("tensor scale", "is scaled by"), ("second plate", "a further plate, more")],
)
def test_scales_and_plates_that_would_change_the_numbers_are_refused(
    how: str, message: str
) -> None:
    pair = _Gaussian()
    pair.how = how
    with pytest.raises(ValueError, match=message):
        pg.ELBO()(pair, {"x": torch.zeros(2)})
    pyro.get_param_store().clear()


def test_closed_form_kl_respects_masks() -> None:
    mask = torch.tensor([True, False, True, False])

    class Masked(HandM2):
        def model(self, *args: Any, **named: Any) -> None:
            with pyro.poutine.mask(mask=mask):
                super().model(**named)

        def guide(self, *args: Any, **named: Any) -> None:
            with pyro.poutine.mask(mask=mask):
                super().guide(**named)

    pair, data = Masked(), {"x": binary(4), "y": labels(4)}
    bound = pg.ELBO(analytic_kl=True)(pair, data)
    assert torch.equal(bound[[1, 3]], torch.zeros(2)) and (bound[[0, 2]] != 0).all()


def test_closed_form_kl_under_a_summed_class() -> None:
    """A binary latent under a class: the KL broadcasts over classes, and the bound is exact."""
    pair = pg.declare(
        "p(y) p(z) p(x | y)", "q(y | x) q(z | x, y)", hidden=(4,),
        y=pg.Categorical(3), z=pg.Bernoulli(2), x=pg.Bernoulli(3),
    ).double()  # fmt: skip
    x = torch.bernoulli(torch.full((5, 3), 0.5)).double()
    exact = torch.zeros(5, dtype=torch.float64)
    for y in range(3):
        label = torch.full((5,), y)
        log_q = pair.q_y(x=x).log_prob(label)
        kl = kl_divergence(
            pair.q_z(x=x, y=label).base_dist, pair.p_z().base_dist.expand((5, 2))
        ).sum(-1)
        log_p = pair.p_x(y=label).log_prob(x) - math.log(3)
        exact = exact + log_q.exp() * (log_p - kl - log_q)
    assert torch.allclose(pg.ELBO(analytic_kl=True)(pair, {"x": x}), exact, rtol=1e-10)


def test_guide_and_model_must_agree_on_the_classes() -> None:
    class Fewer(HandM2):
        def __init__(self) -> None:
            super().__init__()
            self.q_y = pg.Conditional(pg.Categorical(2), {"x": pg.Bernoulli(pairs.X)}, hidden=(4,))

    with pytest.raises(ValueError, match="y has 2 classes in the guide and 3 in the model"):
        pg.ELBO()(Fewer(), {"x": binary(4)})
    for name, classes in (("q_y", 2), ("p_y", 5)):
        own = {"x": pg.Bernoulli(6)} if name == "q_y" else {}
        mine: Any = {name: pg.Conditional(pg.Categorical(classes), own)}
        with pytest.raises(ValueError, match=f"{name} is a Conditional of Categorical"):
            pg.declare("p(y) p(x | y)", "q(y | x)", y=pg.Categorical(3), x=pg.Bernoulli(6), **mine)


def test_pyros_objectives_on_classes_summed_in_the_model() -> None:
    """TraceEnum_ELBO sums as we do; those that would draw the class from its prior are refused."""
    from probgen.inference.objectives import as_objective

    pair, x = pairs.mixture(), {"x": torch.randn(5, pairs.X)}
    ours = pg.ELBO()(pair, x).mean()
    theirs = as_objective(TraceEnum_ELBO(max_plate_nesting=1))(pair, x).mean()
    assert theirs.item() == pytest.approx(ours.item(), rel=1e-5)
    for loss in (Trace_ELBO(), TraceMeanField_ELBO()):
        with pytest.raises(ValueError, match="would draw y from the prior"):
            as_objective(loss)(pair, x)
    with pytest.raises(TypeError, match="RenyiELBO has no differentiable_loss"):
        as_objective(pyro.infer.RenyiELBO())


def test_a_class_that_the_guide_needs_must_be_given() -> None:
    pair = pg.declare("p(y) p(z) p(x | y, z)", "q(z | x, y)", hidden=(4,),
                      y=pg.Categorical(3), z=pg.Normal(2), x=pg.Bernoulli(6))  # fmt: skip
    assert "summed" not in repr(pair) and pair.data_names == ["y", "x"]
    partly = pg.Dataset({"x": binary(4), "y": labels(4)}, observed={"y": labels(4) > 0})
    with pytest.raises(ValueError, match="needs y, got x"):
        pg.log_marginal_likelihood(pair, {"x": binary(4)}, num_samples=30)
    with pytest.raises(ValueError, match="y is observed for some data only"):
        pg.fit(pair, partly, num_epochs=1, batch_size=2, progress=False)
    full = pg.Dataset({"x": binary(4), "y": labels(4)}, observed={"y": labels(4) >= 0})
    assert pg.fit(pair, full, num_epochs=1, batch_size=2, progress=False).elbo
