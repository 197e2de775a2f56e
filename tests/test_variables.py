"""Variables, conditionals and networks: shapes, scales, families, user networks."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import probgen as pg
from probgen.inference.queries.decode import decode
from probgen.variables import SCALE_FLOOR, positive_scale, raw_from_scale


class Poisson(pg.Variable):
    """A family of one's own: counts, with the logarithm of the rate from the network."""

    discrete = True

    def distribution(self, log_rate: Tensor) -> Any:
        return dist.Poisson(log_rate.exp())


@pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")
def test_a_further_family_trains_and_scores() -> None:
    """Poisson factor analysis on counts of two kinds: its log p(x) passes the best single rate's."""
    torch.manual_seed(0)
    rates = torch.tensor([[8.0, 1.0, 1.0, 8.0], [1.0, 8.0, 8.0, 1.0]])
    x = torch.poisson(rates[torch.arange(200) % 2])
    pair = pg.declare("p(z) p(x | z)", "q(z | x)", hidden=(16,), x=Poisson(4), z=pg.Normal(1))
    pg.fit(pair, x, num_epochs=60, batch_size=50, learning_rate=1e-2, progress=False)
    score = pg.log_marginal_likelihood(pair, x, num_samples=500)
    independent = dist.Poisson(x.mean(0)).log_prob(x).sum(-1).mean().item()
    assert score.mean > independent + 1
    assert score.measure == "probability mass of x"
    assert "def __init__(self, x, hidden=" in pair.source
    with pytest.raises(ValueError, match="outside its support"):
        pg.fit(pair, x + 0.5, num_epochs=1, batch_size=50, progress=False)
    with pytest.raises(ValueError, match="outside its support"):
        pg.fit(pair, x - 9, num_epochs=1, batch_size=50, progress=False)


class Cauchy(pg.Variable):
    """A family without a mean, of which pictures show the median."""

    def distribution(self, loc: Tensor) -> Any:
        return dist.Cauchy(loc, torch.ones_like(loc))

    def reconstruction(self, distribution: Any) -> Tensor:
        return distribution.base_dist.loc


def test_a_family_without_a_mean_says_what_pictures_show() -> None:
    torch.manual_seed(0)
    pair = pg.declare("p(z) p(x | z)", "q(z | x)", hidden=(4,), x=Cauchy(3), z=pg.Normal(1))
    x = torch.randn(5, 3)
    shown = pg.reconstruct(pair, x, device="cpu")["x"]
    z = pg.encode(pair, x, device="cpu")["z"]
    assert torch.allclose(shown, pair.p_x(z=z).base_dist.loc)
    assert torch.allclose(decode(pair, "x", {"z": z}), shown)
    other = pg.declare("p(z) p(x | z)", "q(z | x)", hidden=(4,), x=NoMean(3), z=pg.Normal(1))
    with pytest.raises(ValueError, match="no mean in closed form"):
        pg.reconstruct(other, x, device="cpu")


class NoMean(Cauchy):
    """The default: the mean, which there is none of."""

    reconstruction = pg.Variable.reconstruction


@pytest.mark.parametrize("shape", [(), 3, (2, 3), (1, 4, 5)])
@pytest.mark.parametrize("family", [pg.Normal, pg.Bernoulli, Poisson, partial(pg.Categorical, 3)])
def test_any_event_shape(family: Any, shape: Any) -> None:
    variable = family(shape)
    parents = {"z": pg.Normal(2), "w": family(shape)}
    conditional = pg.Conditional(variable, parents, hidden=(4,))
    p = conditional(z=torch.randn(7, 1, 2), w=variable_sample(variable, 5))
    assert p.batch_shape == (7, 5)
    assert p.event_shape == variable.event_shape
    assert p.log_prob(p.sample()).shape == (7, 5)
    prior = pg.Conditional(variable)()
    assert prior.batch_shape == () and prior.event_shape == variable.event_shape


def variable_sample(variable: pg.Variable, n: int) -> Tensor:
    return pg.Conditional(variable)().sample((n,))


def test_priors_are_the_standard_members() -> None:
    z = torch.randn(4, 3)
    expected = dist.Normal(torch.zeros(3), 1.0).to_event(1).log_prob(z)
    assert torch.allclose(pg.Conditional(pg.Normal(3))().log_prob(z), expected, atol=1e-6)
    bits = pg.Conditional(pg.Bernoulli(3))()
    assert bits.log_prob(torch.ones(3)).item() == pytest.approx(-3 * math.log(2))
    classes = pg.Conditional(pg.Categorical(5))()
    assert classes.log_prob(torch.tensor(2)).item() == pytest.approx(-math.log(5))
    assert not list(pg.Conditional(pg.Normal(3)).parameters())


def test_a_learned_prior_learns() -> None:
    pair = pg.declare("p(x)", x=pg.Bernoulli(2), p_x=pg.Conditional(pg.Bernoulli(2), learned=True))
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    pg.fit(pair, x, num_epochs=300, batch_size=4, learning_rate=0.1, progress=False)
    logits = pair.p_x.outputs.flatten()
    assert logits[0] > 5 and logits[1].sigmoid().item() == pytest.approx(0.25, abs=0.01)
    score = pg.log_marginal_likelihood(pair, x)
    assert score.is_exact and score.num_samples == 1


@pytest.mark.parametrize("scale", ["network", "shared", "isotropic", 0.3])
def test_scales(scale: Any) -> None:
    conditional = pg.Conditional(pg.Normal(3, scale=scale), {"z": pg.Normal(2)}, hidden=(4,))
    names = {name for name, _ in conditional.named_parameters()}
    assert ("raw_scale" in names) == (scale in ("shared", "isotropic"))
    p = conditional(z=torch.randn(5, 2))
    spread = p.stddev
    assert spread.shape == (5, 3) and (spread > 0).all()
    if scale == 0.3:
        assert torch.allclose(spread, torch.tensor(0.3))
    if scale != "network":
        assert torch.equal(spread, spread[:1].expand(5, 3))
        with torch.no_grad():
            for parameter in conditional.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
        spread = conditional(z=torch.randn(1, 2)).stddev[0]
        assert bool((spread == spread[0]).all()) == (scale != "shared")


def test_scale_is_bounded_below_cannot_overflow_and_inverts() -> None:
    raw = torch.tensor([-1e6, -100.0, 0.0, 100.0, 1e6], requires_grad=True)
    scale = positive_scale(raw)
    assert scale.isfinite().all() and (scale >= SCALE_FLOOR).all()
    assert scale[2].item() == pytest.approx(1)
    scale.sum().backward()
    assert raw.grad is not None and raw.grad.isfinite().all()
    wanted = torch.tensor([0.01, 0.5, 3.0], dtype=torch.float64)
    assert torch.allclose(positive_scale(raw_from_scale(wanted)), wanted)
    assert pg.Normal(2, scale="shared").inferred().scale == "network"


@pytest.mark.parametrize("leading", [(), (5,), (4, 1, 5)])
@pytest.mark.parametrize("extreme", [1.0, 30.0, 300.0])
def test_bernoulli_is_the_cross_entropy(leading: Any, extreme: float) -> None:
    """The product form equals torch's elementwise one, value and gradient, also where exp overflows."""
    logits = (extreme * torch.randn(*leading, 2, 3, 4)).requires_grad_()
    x = torch.bernoulli(torch.full((2, 3, 4), 0.5))
    p = pg.Bernoulli((3, 4)).distribution(logits).to_event(2)
    reference = dist.Bernoulli(logits=logits).to_event(2)
    ours, theirs = p.log_prob(x), reference.log_prob(x)
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-4)
    a = torch.autograd.grad(ours.sum(), logits)[0]
    b = torch.autograd.grad(theirs.sum(), logits)[0]
    assert torch.allclose(a, b, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(p.log_prob(x), ours, rtol=1e-5, atol=1e-4)
    assert type(p.expand(torch.Size((7, *leading, 2)))) is type(p)


@pytest.mark.parametrize("leading", [(), (5,), (4, 1, 5)])
def test_normal_is_torchs(leading: Any) -> None:
    """The event's log-probability and its gradient equal torch's elementwise ones, and so the KL."""
    loc = torch.randn(*leading, 2, 3, 4).requires_grad_()
    raw = torch.randn(*leading, 2, 3, 4).requires_grad_()
    z = torch.randn(2, 3, 4)
    p = pg.Normal((3, 4)).distribution(loc, raw).to_event(2)
    reference = dist.Normal(loc, positive_scale(raw)).to_event(2)
    ours, theirs = p.log_prob(z), reference.log_prob(z)
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-4)
    a = torch.autograd.grad(ours.sum(), [loc, raw], retain_graph=True)
    b = torch.autograd.grad(theirs.sum(), [loc, raw], retain_graph=True)
    assert all(torch.allclose(g, h, rtol=1e-4, atol=1e-4) for g, h in zip(a, b, strict=True))
    prior = pg.Normal((3, 4)).distribution(torch.zeros(3, 4), torch.zeros(3, 4)).to_event(2)
    kl = torch.distributions.kl_divergence(p, prior.expand(p.batch_shape))
    standard = dist.Normal(torch.zeros(3, 4), 1.0).to_event(2).expand(p.batch_shape)
    assert torch.allclose(kl, torch.distributions.kl_divergence(reference, standard), rtol=1e-4)
    assert type(p.expand(torch.Size((7, *leading, 2)))) is type(p)


# ------------------------------------------------------------------ networks


@pytest.mark.parametrize("leading", [(), (5,), (4, 1, 5)])
def test_networks_pass_leading_dims_through(leading: Any) -> None:
    image, vector = (1, 7, 6), (3,)
    inputs = [torch.randn(*leading, *image), torch.randn(2, *[1] * len(leading), *vector)]
    full = (2, *leading)
    for network in (
        pg.MLP([image, vector], (2, 4)),
        pg.MLP([image, vector], (5,), hidden=()),
        pg.ConvEncoder([image, vector], (2, 4)),
        pg.ConvDecoder([image, vector], (2, 1, 7, 6)),
    ):
        out = network(*inputs)
        assert out.shape == (*full, *network.output_shape)
        one = [
            x.expand(*full, *s)[(0,) * len(full)]
            for x, s in zip(inputs, (image, vector), strict=True)
        ]
        assert torch.allclose(out[(0,) * len(full)], network(*one), atol=1e-5)


def test_mlp_over_several_inputs_is_the_mlp_over_their_concatenation() -> None:
    network = pg.MLP([(3,), (2, 2)], (4,), hidden=(5,))
    a, b = torch.randn(6, 3), torch.randn(6, 2, 2)
    joined = torch.cat([a, b.flatten(1)], 1)
    first, second = network.layers
    assert torch.allclose(network(a, b), second(torch.tanh(first(joined))), atol=1e-6)


def test_hidden_is_the_widths_and_empty_is_linear() -> None:
    network = pg.MLP([(3,)], (2,), hidden=())
    x = torch.randn(4, 3)
    assert torch.allclose(network(2 * x) - network(x), network(x) - network(0 * x), atol=1e-6)


class Concatenating(nn.Module):
    """A user's module that knows nothing of particles: two inputs, batch norm, a tuple out."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.loc, self.raw = nn.BatchNorm1d(5), nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        assert y.dim() == z.dim() == 2
        h = self.norm(torch.cat([y, z], 1))
        return self.loc(h), self.raw(h)


def test_any_module_is_a_network() -> None:
    parents = {"y": pg.Categorical(3), "z": pg.Normal(2)}
    conditional = pg.Conditional(pg.Normal(4), parents, Concatenating()).eval()
    p = conditional(y=torch.arange(3)[:, None, None], z=torch.randn(7, 5, 2))
    assert p.batch_shape == (3, 7, 5) and p.event_shape == (4,)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 2 * 6), nn.Tanh())
    p = pg.Conditional(pg.Normal((2, 3)), {"x": pg.Bernoulli((3, 4))}, flat)(x=torch.ones(8, 3, 4))
    assert p.batch_shape == (8,) and p.event_shape == (2, 3)
    pair = pg.models.VAE(
        x=pg.Bernoulli((1, 8, 8)), z=pg.Normal(2),
        encoder=nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)),
        decoder=nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8))),
    )  # fmt: skip
    x = torch.bernoulli(torch.full((6, 1, 8, 8), 0.5))
    assert pg.ELBO(5)(pair, {"x": x}).shape == (6,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pg.Normal(0), "at least 1"),
        (lambda: pg.Normal(2.5), "int or a tuple"),  # type: ignore[arg-type]
        (lambda: pg.Normal("3"), "int or a tuple"),  # type: ignore[arg-type]
        (lambda: pg.Normal((2, 2.5)), "an int or a tuple of ints"),  # type: ignore[arg-type]
        (lambda: pg.Normal(True), "an int or a tuple of ints"),
        (lambda: pg.Normal(2, scale="netwrok"), "scale='netwrok' is unknown"),  # type: ignore[arg-type]
        (lambda: pg.Normal(2, scale=0), "above 0"),
        (lambda: pg.Normal(2, scale=float("nan")), "above 0"),
        (lambda: pg.Normal(2, scale=None), "word or a number"),  # type: ignore[arg-type]
        (lambda: pg.Categorical(1), "at least 2"),
        (lambda: pg.Categorical(2.0), "must be an int"),  # type: ignore[arg-type]
        (lambda: pg.Conditional(3), "expected a variable"),  # type: ignore[arg-type]
        (lambda: pg.Conditional(pg.Normal(2), {"z": 3}), "parent 'z' must be a variable"),  # type: ignore[dict-item]
        (lambda: pg.Conditional(pg.Normal(2), {"z": pg.Normal(2)}, 3), "torch.nn.Module or a callable"),  # type: ignore[arg-type]
        (lambda: pg.Conditional(pg.Normal(2), {}, nn.Linear(2, 2)), "has no parents"),
        (lambda: pg.Conditional(pg.Normal(2), {"z": pg.Normal(2)}, learned=True), "is for a prior"),
        (lambda: pg.Conditional(pg.Normal(2), {"z": pg.Normal(2)}, pg.ConvEncoder), "needs an image"),
        (lambda: pg.Conditional(pg.Normal(2), {"z": pg.Normal(2)}, pg.ConvDecoder), "must be an image"),
        (lambda: pg.models.PPCA(x=pg.Bernoulli(3), z=pg.Normal(1)), "x must be pg.Normal"),
    ],
)  # fmt: skip
def test_bad_definitions(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs 'z', got no parents"),
        ({"z": None}, "needs 'z', got no parents"),
        ({"w": torch.zeros(2)}, "needs 'z', got 'w'"),
        ({"z": torch.zeros(4, 3)}, r"parent 'z' has shape \(4, 3\), expected \(\.\.\., 2\)"),
    ],
)
def test_bad_calls(given: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        pg.Conditional(pg.Normal(2), {"z": pg.Normal(2)}, hidden=(3,))(**given)


@pytest.mark.parametrize("network", [lambda x: x, nn.Linear, lambda shapes, shape: 3])
def test_factories_that_make_no_network(network: Any) -> None:
    with pytest.raises(TypeError, match="network must be a module, or a function"):
        pg.Conditional(pg.Normal(2), {"z": pg.Normal(2)}, network)


def test_parents_come_by_name_and_networks_fail_in_words() -> None:
    conditional = pg.Conditional(pg.Normal(2), {"z": pg.Normal(3)}, nn.Linear(5, 4))
    with pytest.raises(TypeError, match="by name"):
        conditional(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"its Linear failed on inputs of shape \(4, 3\)"):
        conditional(z=torch.zeros(4, 3))


def test_a_network_of_the_wrong_size_says_so() -> None:
    conditional = pg.Conditional(pg.Normal(2), {"z": pg.Normal(3)}, nn.Linear(3, 5))
    with pytest.raises(ValueError, match=r"Linear returned shape \(5,\).*expected 4 numbers"):
        conditional(z=torch.zeros(6, 3))


def test_variables_are_values() -> None:
    assert pg.Normal(3) == pg.Normal((3,)) != pg.Normal(3, scale=1.0)
    assert pg.Normal(3) != pg.Bernoulli(3) and len({pg.Normal(3), pg.Normal((3,))}) == 1
    for variable in (pg.Normal((1, 2), scale="shared"), pg.Categorical(4), pg.Categorical(4, (2,)),
                     pg.Bernoulli(())):  # fmt: skip
        assert eval(f"pg.{variable!r}") == variable
