"""What is read off a pair: which latents data inform, what must be given, and what is said of it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import probgen as pg
from tests.pairs import BY_HAND, CASES

QUIET: Any = {"progress": False, "device": "cpu"}


# ---------------------------------------------------------------- what cannot be read is not claimed


def _one(variable: pg.Variable, **parents: pg.Variable) -> pg.Conditional:
    """A linear conditional with weight one and no bias."""
    made = pg.Conditional(variable, parents, hidden=())
    network: Any = made.network
    layer = network.layers[0]
    torch.nn.init.eye_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    return made


class Chain(pg.LatentVariableModel):
    """z1 ~ N(0, 1), z2 ~ N(z1, 1), x ~ N(z2, 1), with p(z2 | z1) under the name `transition`."""

    def __init__(self) -> None:
        super().__init__()
        z1, z2, x = pg.Normal(1), pg.Normal(1, scale=1.0), pg.Normal(1, scale=1.0)
        self.p_z1 = pg.Conditional(z1)
        self.transition = _one(z2, z1=z1)
        self.p_x = _one(x, z2=z2)
        self.encoder = torch.nn.Linear(1, 1)
        self.q_z1 = _one(z1, z2=z2)
        with torch.no_grad():  # the means of the posterior, and more than its spread
            self.encoder.weight.fill_(2 / 3)
            self.encoder.bias.zero_()
            next(self.q_z1.parameters()).mul_(0.5)

    def prior_z2(self, z1: torch.Tensor) -> Any:
        return self.transition(z1=z1)

    def model(self, x: Any = None, z1: Any = None, z2: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, z1=z1, z2=z2), dim=-1):
            z1 = pyro.sample("z1", self.p_z1(), obs=z1)
            z2 = pyro.sample("z2", self.prior_z2(z1), obs=z2)
            pyro.sample("x", self.p_x(z2=z2), obs=x)

    def guide(self, x: Any = None, z1: Any = None, z2: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, z1=z1, z2=z2), dim=-1):
            if z2 is None:
                z2 = pyro.sample("z2", dist.Normal(self.encoder(x), 1.0).to_event(1))
            if z1 is None:
                pyro.sample("z1", self.q_z1(z2=z2))


class Walk(Chain):
    """The same with a transition that has no parameters and is no module."""

    def prior_z2(self, z1: torch.Tensor) -> Any:
        return dist.Normal(z1, 1.0).to_event(1)


@pytest.mark.parametrize("kind", [Chain, Walk])
def test_a_transition_of_another_name_is_no_input(kind: type[Chain]) -> None:
    """x = z1 + two steps of noise: N(0, 3), exactly."""
    torch.manual_seed(0)
    pair = kind()
    assert pair.input_names == [] and pair.data_names == ["x"]
    assert "an input" not in repr(pair) and repr(pair).count("sampled from the guide") == 2
    assert pair.sample(2)["z2"].shape == (2, 1)
    x = torch.linspace(-2, 2, 5).unsqueeze(-1)
    score = pg.log_marginal_likelihood(pair, x, num_samples=4000, device="cpu")
    exact = dist.Normal(0.0, 3**0.5).log_prob(x.squeeze(-1))
    assert (abs(score.log_prob - exact.numpy()) <= 4.5 * score.standard_error).all()
    assert pg.fit(pair, x, num_epochs=1, **QUIET).elbo


def test_asking_a_pair_leaves_no_trace() -> None:
    pair = Walk().train()
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    assert pair.data_names == ["x"]
    assert torch.equal(torch.rand(2), wanted) and pair.training
    assert copy.deepcopy(pair).data_names == pickle.loads(pickle.dumps(pair)).data_names == ["x"]


class EncoderOnly(Chain):
    """Only the model's conditionals bear their names; the class is summed."""

    def __init__(self) -> None:
        super().__init__()
        y, x = pg.Categorical(2), pg.Normal(1, scale=1.0)
        self.__delattr__("p_z1")
        self.__delattr__("q_z1")
        self.p_x = pg.Conditional(x, {"y": y}, hidden=())
        self.prior = torch.nn.Parameter(torch.zeros(2))

    def model(self, x: Any = None, y: Any = None) -> None:  # type: ignore[override]
        with pyro.plate("data", self.batch_size(x=x, y=y), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.prior), obs=y)
            pyro.sample("x", self.p_x(y=y), obs=x)

    def guide(self, x: Any = None, y: Any = None) -> None:  # type: ignore[override]
        """The class is summed in the model."""


def test_a_class_whose_prior_cannot_be_read_is_summed_all_the_same() -> None:
    """A mixture of two Gaussians; the mask of labels is taken as well."""
    pair = EncoderOnly()
    assert pair.data_names == ["x"] and pair.summed_names == ["y"]
    assert "summed out exactly over 2 classes, in the model" in repr(pair)
    x = torch.linspace(-1, 1, 4).unsqueeze(-1)
    means = pair.p_x(y=torch.tensor([[0], [1]])).mean.detach()  # (classes, 1, 1)
    exact = dist.Normal(means, 1.0).log_prob(x).squeeze(-1).logsumexp(0) - torch.tensor(2.0).log()
    assert torch.allclose(pg.ELBO()(pair, {"x": x}), exact)
    mask = torch.tensor([True, False, True, False])
    pg.fit(pair, pg.Dataset({"x": x, "y": torch.tensor([0, 1, 1, 0])}, observed={"y": mask}),
           num_epochs=1, **QUIET)  # fmt: skip


def test_an_input_is_still_an_input() -> None:
    for name in ("CVAE", "CVAE of the library"):
        pair = CASES[name].build()
        assert pair.input_names == ["y"] and pair.data_names == ["x", "y"]
    assert BY_HAND["CVAE"]().input_names == ["y"]
