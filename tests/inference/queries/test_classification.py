"""What a guide's classifier says: draws, calibration, the guide run alone, two stages as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg
from probgen.basics.randomness import fixed_seed
from probgen.inference.traces import trace_guide, trace_pair
from probgen.variables import SCALE_FLOOR
from tests.pairs import CASES, binary, labels

CPU: Any = {"device": "cpu"}


@pytest.mark.parametrize("name", ["M2", "M1M2", "ADGM"])
@pytest.mark.parametrize("particles", [1, 3])
def test_the_guide_alone_is_the_guide_of_the_pair(name: str, particles: int) -> None:
    torch.manual_seed(0)
    pair, x = CASES[name].build().double(), {"x": binary(5).double()}
    with torch.no_grad(), fixed_seed(1, torch.device("cpu")):
        whole = trace_pair(pair, x, num_particles=particles)
    with torch.no_grad(), fixed_seed(1, torch.device("cpu")):
        alone = trace_guide(pair, x, "y", num_particles=particles)
    order = list(whole.guide)
    assert list(alone.guide) == order[: order.index("y") + 1]
    for site in alone.guide:
        assert torch.equal(alone.log_q[site], whole.log_q[site])
    assert alone.guide_sums == {"y": whole.guide_sums["y"]}


def test_the_model_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the checks of the input, which take two data."""
    pair = CASES["ADGM"].build()
    sizes, model = [], pair.model

    def watched(**given: Any) -> Any:
        sizes.append(len(given["x"]))
        return model(**given)

    monkeypatch.setattr(pair, "model", watched)
    monkeypatch.setattr(type(pair), "__deepcopy__", lambda self, memo: self, raising=False)
    pg.class_probabilities(pair, binary(50), num_samples=4, **CPU)
    assert max(sizes, default=0) <= 2


@pytest.mark.parametrize("name", ["M1M2", "ADGM"])
def test_the_same_points_serve_all_data(name: str) -> None:
    torch.manual_seed(0)
    pair, x = CASES[name].build().double(), binary(7).double()
    given: dict[str, Any] = {"num_samples": 64, "draws": "rqmc", "seed": 3, **CPU}
    whole = pg.class_probabilities(pair, x, **given)
    for row in range(7):
        one = pg.class_probabilities(pair, x[row : row + 1], **given)
        assert torch.allclose(one[0], whole[row], atol=1e-12)
    many = pg.class_probabilities(pair, x, num_samples=20_000, **CPU)
    assert torch.allclose(whole, many, atol=0.02)
    assert not torch.equal(whole, pg.class_probabilities(pair, x, **{**given, "seed": 4}))


def test_draws_refused() -> None:
    with pytest.raises(ValueError, match='draws must be "iid" or "rqmc", got \'sobol\''):
        pg.class_probabilities(CASES["M2"].build(), binary(2), draws="sobol", **CPU)  # type: ignore[arg-type]


def test_calibration_error_by_hand() -> None:
    shares = [[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [0.45, 0.55]]
    # One bin holds the first two (one right), another the last two (both right).
    expected = 0.5 * abs(0.5 - 0.95) + 0.5 * abs(1 - 0.575)
    assert pg.calibration_error(shares, [0, 1, 1, 1], num_bins=5) == pytest.approx(expected)
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 200_000)
    right = rng.uniform(size=len(p)) < p
    calibrated = np.stack([p, 1 - p], 1)
    assert pg.calibration_error(calibrated, 1 - right) < 0.005
    assert pg.calibration_error([[1.0, 0.0]], [0]) == 0


@pytest.mark.parametrize(
    ("shares", "y", "message"),
    [
        ([0.5, 0.5], [0, 1], "as many true classes y"),
        ([[0.5, 0.5]], [0, 1], "as many true classes y"),
        (np.zeros((0, 2)), [], "as many true classes y"),
        ([[0.5, 0.6]], [0], "must sum to one"),
        ([[float("nan"), 0.6]], [0], "must sum to one"),
    ],
)
def test_calibration_error_refuses(shares: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pg.calibration_error(shares, y)


# ------------------------------------------------------------------ two stages as one model


def stages(size: int = 5, columns: tuple[int, ...] = (3, 0, 4)) -> tuple[Any, ...]:
    torch.manual_seed(0)
    vae = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(size), hidden=(7,)).double()
    m2 = pg.models.M2(
        x=pg.Normal(len(columns)), y=pg.Categorical(3), z=pg.Normal(2), hidden=(8,)
    ).double()
    with torch.no_grad():
        m2.p_x.network.layers[-1].bias += 30.0  # type: ignore[union-attr, index]  # a large scale too
    mean = torch.tensor([0.3, -1.0, 2.0]).double()
    scale = torch.tensor([0.5, 2.0, 1.5]).double()
    place = {"columns": torch.tensor(columns), "mean": mean, "scale": scale}
    return vae, m2, place, pg.models.M1M2.stacked(vae, m2, **place)


def test_the_stack_is_its_two_stages() -> None:
    vae, m2, place, stack = stages()
    x, y = binary(4).double(), labels(4) % 3
    z1, z2 = torch.randn(4, 5).double(), torch.randn(4, 2).double()
    chosen = (z1[:, place["columns"]] - place["mean"]) / place["scale"]
    with torch.no_grad():
        assert torch.equal(stack.q_z1(x=x).mean, vae.q_z(x=x).mean)
        assert torch.equal(stack.p_x(z1=z1).log_prob(x), vae.p_x(z=z1).log_prob(x))
        assert torch.allclose(stack.q_y(z1=z1).logits, m2.q_y(x=chosen).logits)
        assert torch.allclose(stack.q_z2(z1=z1, y=y).stddev, m2.q_z(x=chosen, y=y).stddev)
        # The density of z1: that of the standardized elements, N(0, 1) of the others.
        found = stack.p_z1(y=y, z2=z2).log_prob(z1)
        rest = [i for i in range(5) if i not in place["columns"].tolist()]
        others = torch.distributions.Normal(0.0, 1.0).log_prob(z1[:, rest]).sum(-1)
        expected = m2.p_x(y=y, z=z2).log_prob(chosen) - place["scale"].log().sum() + others
    assert torch.allclose(found, expected, rtol=1e-6)


def test_small_scales_stay_above_the_floor() -> None:
    _, m2, _, stack = stages()
    with torch.no_grad():
        m2.p_x.network.layers[-1].weight.zero_()
        m2.p_x.network.layers[-1].bias.fill_(-40.0)
        found = stack.p_z1(y=torch.zeros(1).long(), z2=torch.zeros(1, 2).double())
    assert found.log_prob(found.mean).isfinite().all()
    assert (found.stddev >= SCALE_FLOOR).all()


def test_the_stack_is_a_pair_like_others() -> None:
    _, _, _, stack = stages()
    x = binary(12).double()
    assert pg.class_probabilities(stack, x, **CPU).shape == (12, 3)
    assert stack.sample(3, y=torch.arange(3))["x"].shape == (3, 3, 6)
    data = pg.Dataset({"x": x, "y": labels(12) % 3}, observed={"y": torch.arange(12) % 2 == 0})
    result = pg.fit(stack, data, num_epochs=2, objective=pg.SemiSupervised(), precision="float64",
                    progress=False, **CPU)  # fmt: skip
    assert len(result.elbo) == 2


def test_stages_that_do_not_fit() -> None:
    vae, m2, place, _ = stages()
    with pytest.raises(ValueError, match="got 2 columns of a latent"):
        pg.models.M1M2.stacked(vae, m2, **{**place, "columns": torch.tensor([0, 1])})
    with pytest.raises(ValueError, match="got 3 columns of a latent"):
        pg.models.M1M2.stacked(vae, m2, **{**place, "columns": torch.tensor([0, 1, 9])})
    other = pg.models.M2(x=pg.Bernoulli(3), y=pg.Categorical(3), z=pg.Normal(2))
    with pytest.raises(TypeError, match="the M2's data must be latents"):
        pg.models.M1M2.stacked(vae, other)


def _with_prior(kind: str) -> pg.models.VAE:
    """A VAE whose latents do not begin at N(0, I)."""
    scale: Any = {"learned": "network", "fixed": 0.5}.get(kind, kind)
    z = pg.Normal(5, scale)
    vae = pg.models.VAE(x=pg.Bernoulli(6), z=z, hidden=(7,))
    if kind == "learned":
        vae.p_z = pg.Conditional(pg.Normal(5), learned=True)
    with torch.no_grad():
        for parameter in vae.p_z.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return vae.double()


class _FlatNetwork(torch.nn.Module):
    """A user's network: one batch dim, and outputs in one row."""

    def __init__(self, as_tuple: bool) -> None:
        super().__init__()
        self.linear, self.as_tuple = torch.nn.Linear(5, 6), as_tuple

    def forward(self, y: torch.Tensor, z: torch.Tensor) -> Any:
        out = self.linear(torch.cat([y, z], -1))
        return (out[:, :3], out[:, 3:]) if self.as_tuple else out


@pytest.mark.parametrize("kind", ["learned", "shared", "isotropic", "fixed"])
@pytest.mark.parametrize("network", ["mlp", "flat", "tuple"])
def test_the_stack_keeps_the_priors_of_its_stages(kind: str, network: str) -> None:
    """The log joint is that of the stages, with the VAE's prior on what the M2 does not know."""
    torch.manual_seed(0)
    vae, (_, m2, place, _) = _with_prior(kind), stages()
    m2.p_y = pg.Conditional(pg.Categorical(3), learned=True)
    m2.p_z = pg.Conditional(pg.Normal(2, "shared"), learned=True)
    if network != "mlp":
        parents = {"y": pg.Categorical(3), "z": pg.Normal(2)}
        m2.p_x = pg.Conditional(pg.Normal(3), parents, _FlatNetwork(network == "tuple"))
    m2 = m2.double()
    with torch.no_grad():
        for parameter in (*m2.p_y.parameters(), *m2.p_z.parameters()):
            parameter.copy_(torch.randn_like(parameter))
    stack = pg.models.M1M2.stacked(vae, m2, **place)
    x, y = binary(4).double(), labels(4) % 3
    z1, z2 = torch.randn(4, 5).double(), torch.randn(4, 2).double()
    rest = [i for i in range(5) if i not in place["columns"].tolist()]
    with torch.no_grad():
        prior = vae.p_z().base_dist
        others = torch.distributions.Normal(prior.loc[rest], prior.scale[rest])
        chosen = (z1[:, place["columns"]] - place["mean"]) / place["scale"]
        expected = (
            m2.p_y().log_prob(y) + m2.p_z().log_prob(z2) + m2.p_x(y=y, z=z2).log_prob(chosen)
            - place["scale"].log().sum() + others.log_prob(z1[:, rest]).sum(-1)
            + vae.p_x(z=z1).log_prob(x)
        )  # fmt: skip
        trace = trace_pair(stack, {"x": x, "y": y, "z1": z1, "z2": z2})
        found = sum(value for value in trace.log_p.values())
    assert torch.allclose(found, expected, rtol=1e-9)  # type: ignore[arg-type]
    x2, y2 = stack.sample(7, seed=0)["x"], stack.sample(7, seed=0)["y"]
    assert x2.shape == (7, 6) and y2.shape == (7,)  # leading dims pass through


class _OwnModel(pg.models.VAE):
    def model(self, x: Any = None, z: Any = None) -> Any:
        return super().model(x=x, z=z)


def test_stages_that_say_more_than_the_stack_could() -> None:
    vae, m2, place, _ = stages()
    stacked = pg.models.M1M2.stacked
    own = _OwnModel(pg.Bernoulli(6), pg.Normal(5), hidden=())
    with pytest.raises(TypeError, match="_OwnModel has model of its own"):
        stacked(own, m2, **place)
    with pytest.raises(TypeError, match=r"needs a pg.models.VAE, got M2"):
        stacked(m2, m2, **place)
    with pytest.raises(TypeError, match=r"needs a pg.models.M2, got VAE"):
        stacked(vae, vae, **place)
    vae.p_w = pg.Conditional(pg.Normal(1))
    with pytest.raises(
        TypeError, match=r"needs VAE's factors, but VAE has p\(z\) p\(x \| z\) p\(w\)"
    ):
        stacked(vae, m2, **place)
    vae, m2, place, _ = stages()
    vae.q_z = pg.Conditional(pg.Normal(5, "shared"), {"x": pg.Bernoulli(6)}, hidden=())
    with pytest.raises(TypeError, match=r"q_z1 is of Normal\(5\), but the stage has .*'shared'"):
        stacked(vae, m2, **place)
    square = pg.models.M2(x=pg.Normal((3, 1)), y=pg.Categorical(3), z=pg.Normal(2))
    vae = stages()[0]
    with pytest.raises(ValueError, match=r"the M2 has data \(3, 1\)"):
        stacked(vae, square, **place)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("columns", [0, 0, 1], "each once"),
        ("columns", [-1, 0, 1], "from 0 to 4"),
        ("columns", [True, False, True], "must be the numbers of elements"),
        ("columns", [0.0, 1.0, 2.0], "must be the numbers of elements"),
        ("scale", [1.0, 0.0, 1.0], "above 0"),
        ("scale", [1.0, -2.0, 1.0], "above 0"),
        ("mean", [1.0, float("nan"), 1.0], "means must be finite"),
    ],
)
def test_places_that_are_none(part: str, value: Any, message: str) -> None:
    vae, m2, place, _ = stages()
    with pytest.raises(ValueError, match=message):
        pg.models.M1M2.stacked(vae, m2, **{**place, part: torch.tensor(value)})
