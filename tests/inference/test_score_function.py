"""Gradients where the guide draws what cannot be reparameterized: against sums over all its values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor

import probgen as pg
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import quiet_pyro

CPU = torch.device("cpu")
W, Y, B, X = pg.Categorical(2), pg.Categorical(3), pg.Bernoulli(2), pg.Bernoulli(3)
BITS = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 2)


class Everything(pg.LatentVariableModel):
    """p(w) p(y) p(c) p(b | w, y, c) p(x | b, y), q(w | x) q(b | w, x) q(a | b) q(y | a, b, w) q(c | y, b)

    Classes w and y are summed; b before y and c after it are drawn, and so is a, which is auxiliary:
    a class that the model does not have.
    """

    def __init__(self) -> None:
        super().__init__()
        hidden: Any = {"hidden": (4,)}
        self.p_w, self.p_y = pg.Conditional(W), pg.Conditional(Y, learned=True)
        self.p_c = pg.Conditional(B, learned=True)
        self.p_b = pg.Conditional(B, {"w": W, "y": Y, "c": B}, **hidden)
        self.p_x = pg.Conditional(X, {"b": B, "y": Y}, **hidden)
        self.q_w = pg.Conditional(W, {"x": X}, hidden=())
        self.q_b = pg.Conditional(B, {"w": W, "x": X}, **hidden)
        self.q_a = pg.Conditional(W, {"b": B}, **hidden)
        self.q_y = pg.Conditional(Y, {"a": W, "b": B, "w": W}, **hidden)
        self.q_c = pg.Conditional(B, {"y": Y, "b": B}, **hidden)

    def model(self, x: Any = None, w: Any = None, y: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, w=w, y=y), dim=-1):
            w = pyro.sample("w", self.p_w(), obs=w)
            y = pyro.sample("y", self.p_y(), obs=y)
            c = pyro.sample("c", self.p_c())
            b = pyro.sample("b", self.p_b(w=w, y=y, c=c))
            pyro.sample("x", self.p_x(b=b, y=y), obs=x)

    def guide(self, x: Any = None, w: Any = None, y: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, w=w, y=y), dim=-1):
            if w is None:
                w = pyro.sample("w", self.q_w(x=x))
            b = pyro.sample("b", self.q_b(w=w, x=x))
            a = pyro.sample("a", self.q_a(b=b), infer={"is_auxiliary": True})
            if y is None:
                y = pyro.sample("y", self.q_y(a=a, b=b, w=w))
            pyro.sample("c", self.q_c(y=y, b=b))


def everything() -> tuple[Everything, dict[str, Tensor], dict[str, Tensor]]:
    """The pair with marked weights, four data, and which of their classes are known."""
    torch.manual_seed(0)
    pair = Everything().double()
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]]).double()
    data = {"x": x, "w": torch.tensor([0, 1, 1, 0]), "y": torch.tensor([2, 0, 1, 1])}
    on, off = True, False
    masks = {"w": torch.tensor([on, off, on, off]), "y": torch.tensor([on, on, off, off])}
    return pair, data, masks


def exact(pair: Everything, data: Any, masks: Any, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """Of each datum the bound and E[log q(y | a, b, w)] at its label, summed over 192 states."""
    n, x = len(data["x"]), data["x"]
    w, b, a, y, c = (
        index[:, None].expand(-1, n)
        for index in torch.cartesian_prod(*map(torch.arange, (2, 4, 2, 3, 4))).T
    )
    bits_b, bits_c = BITS[b], BITS[c]
    log_q_w = pair.q_w(x=x.expand(192, n, 3)).log_prob(w)
    log_q_b = pair.q_b(w=w, x=x.expand(192, n, 3)).log_prob(bits_b)
    log_q_a = pair.q_a(b=bits_b).log_prob(a)
    log_q_y = pair.q_y(a=a, b=bits_b, w=w).log_prob(y)
    log_q_c = pair.q_c(y=y, b=bits_b).log_prob(bits_c)
    priors = [
        pair.p_c().log_prob(bits_c),
        pair.p_b(w=w, y=y, c=bits_c).log_prob(bits_b),
        -log_q_b,
        -log_q_c,
    ]
    likelihood = pair.p_x(b=bits_b, y=y).log_prob(x)
    weight = log_q_b.exp() * log_q_a.exp() * log_q_c.exp()
    before = log_q_b.exp() * log_q_a.exp()
    for name, value, log_q, log_p in (
        ("w", w, log_q_w, pair.p_w().log_prob(w)),
        ("y", y, log_q_y, pair.p_y().log_prob(y)),
    ):
        known, at = masks.get(name, torch.zeros(n) > 1), value == data[name]
        factor = torch.where(known, at.double(), log_q.exp())
        weight = weight * factor
        if name == "w":
            before = before * factor
        # The prior of a class that is known is a term of the data: no warm-up weighs it.
        likelihood = likelihood + torch.where(known, log_p, 0.0)
        priors.append(torch.where(known, 0.0, log_p - log_q))
    bound = (weight * (likelihood + kl_weight * torch.stack(priors).sum(0))).sum(0)
    # Every state of w, b and a comes with each of the four states of c.
    term = torch.where(y == data["y"], before * log_q_y, 0.0).sum(0) / 4
    return bound, term


def gradients(pair: Any, value: Tensor) -> Tensor:
    found = torch.autograd.grad(value, list(pair.parameters()), allow_unused=True)
    parts = [
        torch.zeros_like(p) if g is None else g
        for g, p in zip(found, pair.parameters(), strict=True)
    ]
    return torch.cat([part.flatten() for part in parts])


def unbiased(pair: Any, estimate: Callable[[], Tensor], expected: Tensor, times: int = 40) -> None:
    """Value and gradient of an estimate are right on average, within their standard errors."""
    values, draws = [], []
    for seed in range(times):
        with fixed_seed(seed, CPU), quiet_pyro():
            value = estimate()
        values.append(value.detach()[None])
        draws.append(gradients(pair, value))
    for found, right in (
        (torch.stack(values), expected.detach()[None]),
        (torch.stack(draws), gradients(pair, expected)),
    ):
        error = found.std(0) / math.sqrt(times)
        assert ((found.mean(0) - right).abs() < 4.5 * error + 1e-9).all()
        assert (error < 0.1 * right.norm()).all()  # the test can tell a part that is missing


@pytest.mark.parametrize("settings", [{}, {"analytic_kl": True}, {"kl_weight": 0.3}], ids=str)
def test_the_classifiers_term_has_its_whole_gradient(settings: dict[str, Any]) -> None:
    """α E[log q(y | ·)] over what is drawn before y, beside the bound."""
    pair, data, masks = everything()
    bound, term = exact(pair, data, masks, settings.get("kl_weight", 1.0))
    expected = bound.mean() + 3 * term[masks["y"]].mean()
    given = {n: torch.tensor(v).double() for n, v in settings.items() if n == "kl_weight"}
    rest = {n: v for n, v in settings.items() if n != "kl_weight"}
    goal = pg.SemiSupervised(alpha=3, num_particles=400, **rest)
    unbiased(pair, lambda: goal(pair, data, observed=masks, **given).mean(), expected)


def test_with_one_particle_too() -> None:
    pair, data, masks = everything()
    bound, term = exact(pair, data, masks)
    expected = bound.mean() + 30 * term[masks["y"]].mean()
    many = {name: value.repeat_interleave(500, 0) for name, value in data.items()}
    known = {name: mask.repeat_interleave(500) for name, mask in masks.items()}
    goal = pg.SemiSupervised(alpha=30)
    unbiased(pair, lambda: goal(pair, many, observed=known).mean(), expected)


@pytest.mark.parametrize("known", ["w and y", "neither"])
def test_the_bound_has_its_whole_gradient(known: str) -> None:
    """With auxiliary classes, a warm-up and closed-form KL terms, whatever is known."""
    pair, data, masks = everything()
    masks = {name: mask for name, mask in masks.items() if name in known}
    given = {name: value for name, value in data.items() if name == "x" or name in masks}
    expected = exact(pair, data, masks, 0.5)[0].mean()
    goal = pg.ELBO(400, analytic_kl=True)
    half = torch.tensor(0.5).double()
    unbiased(pair, lambda: goal(pair, given, observed=masks, kl_weight=half).mean(), expected)


def test_a_class_that_the_model_sums_leaves_the_gradient_whole() -> None:
    pair = pg.declare(
        "p(y) p(b | y) p(x | b, y)", "q(b | x)", hidden=(4,), y=Y, b=B, x=X
    ).double()  # fmt: skip
    x = torch.tensor([[1, 0, 1], [0, 1, 1]]).double()
    bits, y = BITS[:, None, None].expand(4, 3, 2, 2), torch.arange(3)[:, None].expand(4, 3, 2)
    log_q = pair.q_b(x=x).log_prob(BITS[:, None].expand(4, 2, 2))
    joint = -math.log(3) + pair.p_b(y=y).log_prob(bits) + pair.p_x(b=bits, y=y).log_prob(x)
    expected = (log_q.exp() * (joint.logsumexp(1) - log_q)).sum(0).mean()
    unbiased(pair, lambda: pg.ELBO(400)(pair, {"x": x}).mean(), expected)


def classifiers_term(pair: Any, data: Any, masks: Any) -> Tensor:
    """What α multiplies, from two passes on the same noise."""
    both = []
    for alpha in (1, 0):
        with fixed_seed(0, CPU), quiet_pyro():
            both.append(pg.SemiSupervised(alpha=alpha)(pair, data, observed=masks).mean())
    return both[0] - both[1]


def test_what_is_drawn_after_the_class_adds_no_noise_to_its_term() -> None:
    """q(y | x) q(b | x, y): the gradient of log q(y | x), in a single draw."""
    pair = pg.declare(
        "p(y) p(b) p(x | b, y)", "q(y | x) q(b | x, y)", hidden=(4,), y=Y, b=B, x=X
    ).double()  # fmt: skip
    x, y = torch.tensor([[1, 0, 1], [0, 1, 1]]).double(), torch.tensor([2, 0])
    expected = pair.q_y(x=x).log_prob(y).mean()
    found = classifiers_term(pair, {"x": x, "y": y}, {})
    assert torch.allclose(found, expected)
    assert torch.allclose(gradients(pair, found), gradients(pair, expected), atol=1e-12)


def test_classes_before_the_class_that_depend_on_each_other() -> None:
    """q(v | x) q(w | v, x) q(y | v, w, x): averaged over q(v | x) q(w | v, x), value and gradient."""
    torch.manual_seed(0)
    pair = pg.declare(
        "p(v) p(w) p(y) p(x | v, w, y)", "q(v | x) q(w | v, x) q(y | v, w, x)", hidden=(4,),
        v=pg.Categorical(2), w=pg.Categorical(4), y=Y, x=X,
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.copy_(2 * torch.randn_like(parameter))
    x = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0]]).double()
    label, known_w = torch.tensor([2, 0, 1]), torch.tensor([True, False, False])
    data, masks = {"x": x, "w": torch.tensor([3, 0, 0]), "y": label}, {"w": known_w}
    v, w = (i[:, None].expand(8, 3) for i in torch.cartesian_prod(*map(torch.arange, (2, 4))).T)
    wide = x.expand(8, 3, 3)
    weight = pair.q_v(x=wide).log_prob(v).exp() * torch.where(
        known_w, (w == data["w"]).double(), pair.q_w(v=v, x=wide).log_prob(w).exp()
    )
    classifier = pair.q_y(v=v, w=w, x=wide)
    expected = (weight * classifier.log_prob(label)).sum(0).mean()
    found = classifiers_term(pair, data, masks)
    assert torch.allclose(found, expected)
    assert torch.allclose(gradients(pair, found), gradients(pair, expected), atol=1e-12)
    given = pg.Dataset({"x": x, "w": data["w"]}, observed=masks)
    probabilities = pg.class_probabilities(pair, given, device="cpu")
    by_hand = (weight[..., None] * classifier.probs).sum(0).detach()
    assert torch.allclose(probabilities, by_hand)


# ------------------------------------------------------------------ Pyro's objectives


def binary_latents() -> Any:
    return pg.declare("p(b) p(x | b)", "q(b | x)", hidden=(4,), b=B, x=X)


def crossed() -> Any:
    """The guide draws z1 before z2, on which z1 depends in the model."""
    z = pg.Normal(2)
    return pg.declare(
        "p(z2) p(z1 | z2) p(x | z1)", "q(z1 | x) q(z2 | z1)", hidden=(4,), z1=z, z2=z, x=X
    )


@pytest.mark.parametrize(
    ("build", "loss", "message"),
    [
        (Everything, Trace_ELBO(), "would add -log q of a, which Everything has in the guide only"),
        (binary_latents, TraceMeanField_ELBO(), "no score-function gradient, and b of"),
        (crossed, TraceMeanField_ELBO(), "draws z1, z2 in the guide and z2, z1 in the model"),
    ],
)
def test_pyros_objectives_refuse_what_they_get_wrong(build: Any, loss: Any, message: str) -> None:
    """Pyro checks these only where its validation is on, which it is not in a fit."""
    with pytest.raises(ValueError, match=message):
        pg.fit(
            build(), torch.ones(8, 3), num_epochs=1, objective=loss, device="cpu", progress=False
        )
