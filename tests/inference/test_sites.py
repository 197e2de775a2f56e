"""Objectives on warm-up, masks, auxiliary sites, and pairs that break the contract."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import probgen as pg
from probgen.inference.traces import trace_pair
from tests import pairs
from tests.pairs import CASES, HandM2, binary, labels, linear_gaussian


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
        ("outside", "z is outside pyro.plate"),
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
    from probgen.inference.objectives.registry import as_objective

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
