"""The importance-weighted marginal likelihood against exact answers, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import probgen as pg
from probgen.inference.objectives.elbo import log_importance_weights
from probgen.inference.scoring import importance
from probgen.inference.scoring.table import table
from probgen.inference.traces import trace_pair
from tests import pairs
from tests.pairs import CASES, HandM2, binary, labels

# Guides here are rough on purpose; the warning itself has a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")

DOUBLE: Any = {"precision": "float64", "device": "cpu"}


def factor_analysis(seed: int = 0, latents: int = 2) -> pg.models.FactorAnalysis:
    torch.manual_seed(seed)
    pair = pg.models.FactorAnalysis(x=pg.Normal(5), z=pg.Normal(latents)).double()
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return pair


@torch.no_grad()
def with_good_guide(pair: pg.models.FactorAnalysis, widen: float = 0.0) -> pg.models.FactorAnalysis:
    """Give the diagonal guide the exact mean and the exact marginal scale, or a wider one."""
    zero = torch.zeros(1, 5, dtype=torch.float64)
    posterior = pair.posterior(zero)
    slope = torch.stack(
        [(pair.posterior(row[None]).mean - posterior.mean)[0] for row in torch.eye(5).double()], 1
    )
    encoder: Any = pair.q_z.network.layers[0]  # type: ignore[union-attr, index]
    encoder.weight.copy_(slope)
    encoder.bias.copy_(posterior.mean[0])
    from probgen.variables import raw_from_scale

    pair.q_z.raw_scale.copy_(raw_from_scale(posterior.stddev[0] * (1 + widen)))  # type: ignore[union-attr]
    return pair


class ExactGuide(pg.models.FactorAnalysis):
    """The full-covariance posterior, written by hand."""

    def guide(self, x: Any = None, z: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
            posterior = self.posterior(x)
            pyro.sample("z", dist.MultivariateNormal(posterior.mean, posterior.covariance_matrix))


@torch.no_grad()
def weights(pair: Any, data: dict[str, Tensor], draws: int, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return log_importance_weights(trace_pair(pair, data, num_particles=draws))


def test_average_weight_is_the_density() -> None:
    """E[w] = p(x): over many draws, and over replicates of a few draws each."""
    pair = with_good_guide(factor_analysis(), widen=0.3)
    x = pair.sample(20, seed=1)["x"]
    ratio = (weights(pair, {"x": x}, 40_000) - pair.log_prob(x)).exp()
    z = (ratio.mean(0) - 1) / (ratio.std(0) / math.sqrt(len(ratio)))
    assert z.abs().max() < 4
    assert z.abs().mean() > 0.1  # an error that is really there
    replicates = ratio.reshape(4000, 10, 20).mean(1)
    z = (replicates.mean(0) - 1) / (replicates.std(0) / math.sqrt(4000))
    assert z.abs().max() < 4


@pytest.mark.parametrize("draws", [100, 400, 1000])
def test_values_within_their_standard_errors(draws: int) -> None:
    pair = with_good_guide(factor_analysis(), widen=0.2)
    x = pair.sample(200, seed=2)["x"]
    assert weights(pair, {"x": x}, 2000).std(0).max() <= 1
    score = pg.log_marginal_likelihood(pair, x, num_samples=draws, **DOUBLE)
    exact = pair.log_prob(x).detach().numpy()
    z = (score.log_prob - exact) / score.standard_error
    assert np.abs(z).max() < 4
    assert 0.8 < z.std() < 1.25  # errors neither too small nor too large
    assert abs(score.mean - exact.mean()) < 4 * score.monte_carlo_error
    assert not score.is_exact


def test_rough_guide_is_low_by_the_bias_it_reports() -> None:
    """sd(log w) of about one and few draws: low in expectation, by the size of the estimate."""
    pair = with_good_guide(factor_analysis(3), widen=0.45)
    x = pair.sample(40, seed=2)["x"]
    spread = weights(pair, {"x": x}, 4000).std(0)
    assert 0.5 < spread.median() < 2
    exact = pair.log_prob(x).detach().numpy()
    scores = [
        pg.log_marginal_likelihood(pair, x, num_samples=40, seed=seed, **DOUBLE)
        for seed in range(300)
    ]
    gaps = np.array([score.mean - exact.mean() for score in scores])
    bias, error = gaps.mean(), gaps.std() / math.sqrt(len(gaps))
    assert bias < -5 * error
    reported = np.mean([score.mean_bias for score in scores])
    assert 0.7 < reported / bias < 1.4
    assert 0.8 < np.mean([s.monte_carlo_error for s in scores]) / gaps.std() < 1.2


def test_exact_full_covariance_guide() -> None:
    pair = ExactGuide(x=pg.Normal(5), z=pg.Normal(2)).double()
    pair.load_state_dict(factor_analysis(4).state_dict())
    x = 2 * torch.randn(30, 5, dtype=torch.float64)
    score = pg.log_marginal_likelihood(pair, x, num_samples=50, **DOUBLE)
    exact = pg.log_marginal_likelihood(pair, x, method="exact", **DOUBLE)
    assert np.abs(score.log_prob - exact.log_prob).max() < 1e-9
    assert np.isneginf(score.khat).all()
    assert score.is_exact and "exact" in repr(score)


def test_exact_diagonal_guide_for_orthogonal_loadings() -> None:
    torch.manual_seed(0)
    pair = pg.models.PPCA(x=pg.Normal(5), z=pg.Normal(2)).double()
    x = torch.randn(50, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    pair.set_maximum_likelihood(x)
    assert abs((pair.loadings[:, 0] @ pair.loadings[:, 1]).item()) < 1e-9
    score = pg.log_marginal_likelihood(pair, x, num_samples=30, **DOUBLE)
    assert np.abs(score.log_prob - pair.log_prob(x).detach().numpy()).max() < 1e-9


def test_bound_rises_with_the_draws() -> None:
    pair = with_good_guide(factor_analysis(3), widen=0.45)
    x = pair.sample(40, seed=2)["x"]
    exact = pair.log_prob(x).mean().item()
    means = []
    log_weights = weights(pair, {"x": x}, 20_000)
    for draws in (1, 2, 5, 25, 200):
        groups = log_weights[: 20_000 // draws * draws].reshape(-1, draws, 40)
        means.append(float((groups.logsumexp(1) - math.log(draws)).mean()))
    assert means == sorted(means)
    assert means[0] < exact - 0.1
    assert means[-1] == pytest.approx(exact, abs=0.02)
    elbo = pg.ELBO(20_000)(pair, {"x": x}).mean().item()
    assert means[0] == pytest.approx(elbo, abs=0.02)


# ------------------------------------------------------------------ sums over classes


def test_classes_are_summed_inside_the_weight() -> None:
    """M2 by hand: each weight is Σ_y p(x, y, z_y) / q(z_y | x, y); q(y | x) plays no part."""
    pair, x = HandM2().double(), binary(4).double()
    found = weights(pair, {"x": x}, 6, seed=2)
    torch.manual_seed(2)
    noise = torch.normal(torch.zeros(3, 6, 4, 2).double(), torch.ones(3, 6, 4, 2).double())
    parts = []
    for y in range(3):
        label = torch.full((4,), y)
        q = pair.q_z(x=x, y=label)
        z = q.mean + q.stddev * noise[y]
        prior = dist.Normal(z.new_zeros(2), 1.0).to_event(1).log_prob(z) - math.log(3)
        parts.append(prior + pair.p_x(y=label, z=z).log_prob(x) - q.log_prob(z))
    assert torch.allclose(found, torch.stack(parts).logsumexp(0), rtol=1e-10)
    with torch.no_grad():
        for parameter in pair.q_y.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert torch.allclose(found, weights(pair, {"x": x}, 6, seed=2), rtol=1e-12)


def test_summed_over_everything_is_exact() -> None:
    """A mixture has nothing to sample: one pass, no error, whatever the number of samples."""
    pair, x = pairs.mixture().double(), torch.randn(7, pairs.X, dtype=torch.float64)
    score = pg.log_marginal_likelihood(pair, x, num_samples=1000, **DOUBLE)
    parts = [pair.p_x(y=torch.full((7,), y)).log_prob(x) - math.log(3) for y in range(3)]
    assert np.allclose(score.log_prob, torch.stack(parts).logsumexp(0).detach().numpy(), rtol=1e-12)
    assert score.is_exact and score.monte_carlo_error == 0 and score.num_samples == 1


@pytest.mark.parametrize("name", ["M2", "auxiliary", "stacked M1+M2", "Gaussian mixture VAE"])
def test_joint_of_labels_sums_to_the_marginal(name: str) -> None:
    """log p(x) = log Σ_y p(x, y), each side estimated by itself."""
    pair, data = CASES[name].build(), CASES[name].data(5)
    marginal = pg.log_marginal_likelihood(pair, {"x": data["x"]}, num_samples=4000, **DOUBLE)
    joints = [
        pg.log_marginal_likelihood(
            pair, {"x": data["x"], "y": torch.full((5,), y)}, num_samples=4000, seed=y + 1, **DOUBLE
        )
        for y in range(3)
    ]
    total = np.logaddexp.reduce([joint.log_prob for joint in joints])
    shares = np.exp([joint.log_prob - total for joint in joints])
    error = np.sqrt(
        marginal.standard_error**2
        + sum((s * j.standard_error) ** 2 for s, j in zip(shares, joints, strict=True))
    )
    assert (np.abs(marginal.log_prob - total) < 4.5 * error + 1e-9).all()
    assert marginal.measure == "probability mass of x"
    assert joints[0].measure.startswith("probability mass of") and "y" in joints[0].measure


def test_labels_known_for_some() -> None:
    pair = HandM2()
    x, y, mask = binary(6), labels(6), torch.tensor([True, False] * 3)
    data = pg.Dataset({"x": x, "y": y}, observed={"y": mask})
    partly = pg.log_marginal_likelihood(pair, data, num_samples=4000, **DOUBLE)
    joint = pg.log_marginal_likelihood(pair, {"x": x, "y": y}, num_samples=4000, **DOUBLE)
    marginal = pg.log_marginal_likelihood(pair, {"x": x}, num_samples=4000, **DOUBLE)
    expected = np.where(mask, joint.log_prob, marginal.log_prob)
    error = np.hypot(partly.standard_error, np.where(mask, joint.standard_error,
                                                     marginal.standard_error))  # fmt: skip
    assert (np.abs(partly.log_prob - expected) < 4.5 * error).all()
    assert "y (where known)" in partly.measure


# ------------------------------------------------------------------ bookkeeping


@pytest.mark.parametrize("draws", [2, 3, 7, 10, 23, 1001])
def test_divides_by_what_was_drawn(draws: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the chunks: an exact guide gives the exact value for any number of draws."""
    monkeypatch.setattr(importance, "rows_in_a_pass", lambda *_: 10)
    pair = ExactGuide(x=pg.Normal(5), z=pg.Normal(2)).double()
    x = torch.randn(7, 5, dtype=torch.float64)
    score = pg.log_marginal_likelihood(pair, x, num_samples=draws, **DOUBLE)
    assert np.abs(score.log_prob - pair.log_prob(x).detach().numpy()).max() < 1e-9
    assert score.num_samples == draws
    assert np.allclose(score.ess, draws)


@pytest.mark.parametrize("rows", [1, 10, 64, 100_000])
def test_chunks_agree_within_monte_carlo_error(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "rows_in_a_pass", lambda *_: rows)
    pair = with_good_guide(factor_analysis(), widen=0.2)
    x = pair.sample(9, seed=2)["x"]
    score = pg.log_marginal_likelihood(pair, x, num_samples=60, **DOUBLE)
    exact = pair.log_prob(x).detach().numpy()
    assert (np.abs(score.log_prob - exact) < 5 * score.standard_error).all()


def test_same_seed_same_numbers() -> None:
    pair, data = HandM2(), {"x": binary(5)}
    first = pg.log_marginal_likelihood(pair, data, num_samples=50)
    torch.rand(3)
    assert np.array_equal(
        first.log_prob, pg.log_marginal_likelihood(pair, data, num_samples=50).log_prob
    )
    other = pg.log_marginal_likelihood(pair, data, num_samples=50, seed=1)
    assert not np.array_equal(first.log_prob, other.log_prob)


def test_float32_agrees_and_leaves_the_pair_alone() -> None:
    pair = with_good_guide(factor_analysis(), widen=0.2)
    before = {n: v.clone() for n, v in pair.state_dict().items()}
    x = pair.sample(9, seed=2)["x"]
    single = pg.log_marginal_likelihood(pair, x, num_samples=500)
    double = pg.log_marginal_likelihood(pair, x, num_samples=500, **DOUBLE)
    error = np.hypot(single.standard_error, double.standard_error)
    assert (np.abs(single.log_prob - double.log_prob) < 4 * error).all()
    for name, value in pair.state_dict().items():
        assert value.dtype == torch.float64 and torch.equal(value, before[name])


def test_errors_are_printed_apart() -> None:
    pair = with_good_guide(factor_analysis(), widen=0.2)
    x = pair.sample(50, seed=2)["x"]
    score = pg.log_marginal_likelihood(pair, x, num_samples=200, **DOUBLE)
    text = repr(score)
    assert f"± {score.monte_carlo_error:.2g} Monte Carlo" in text
    assert f"± {score.sampling_error:.2g} test sampling (50 data, K=200)" in text
    assert "ESS" in text and "k̂" in text and "density of x" in text and score.data_hash in text
    exact = pair.log_prob(x)
    assert score.sampling_error == pytest.approx(exact.std().item() / math.sqrt(50), rel=0.05)


def test_lower_bound_and_warning_in_words() -> None:
    """A guide far off: the number is called a lower bound, and a warning says why."""
    pair = factor_analysis(5)
    x = 4 * torch.randn(30, 5, dtype=torch.float64)
    with pytest.warns(pg.UnreliableEstimateWarning, match="lower bound"):
        score = pg.log_marginal_likelihood(pair, x, num_samples=100, **DOUBLE)
    assert score.is_lower_bound
    assert repr(score).startswith("log p(x) >=")
    assert score.mean < pair.log_prob(x).mean().item()


def test_few_samples_have_no_khat() -> None:
    pair = with_good_guide(factor_analysis(), widen=0.2)
    score = pg.log_marginal_likelihood(pair, pair.sample(5)["x"], num_samples=20, **DOUBLE)
    assert np.isnan(score.khat).all()
    assert "fewer than 25" in repr(score)


def test_tables_refuse_to_mix() -> None:
    pair = with_good_guide(factor_analysis(), widen=0.2)
    x, other = pair.sample(5)["x"], pair.sample(5)["x"]
    a = pg.log_marginal_likelihood(pair, x, num_samples=200, **DOUBLE)
    exact = pg.log_marginal_likelihood(pair, x, method="exact", **DOUBLE)
    text = table({"sampled": a, "exact": exact})
    assert "sampled" in text and "density of x" in text
    assert len({len(line) for line in text.splitlines()[:4]}) == 1  # aligned
    with pytest.raises(ValueError, match="different data"):
        table({"a": a, "b": pg.log_marginal_likelihood(pair, other, num_samples=200, **DOUBLE)})
    mass = pg.log_marginal_likelihood(CASES["VAE"].build(), binary(5), num_samples=200, **DOUBLE)
    with pytest.raises(ValueError, match="different measures"):
        table({"a": a, "mass": mass})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 1}, "at least 2"),
        ({"num_samples": 2.5}, "at least 2"),
        ({"method": "magic"}, 'method must be one of "exact", "importance", "auto"'),
        ({"precision": "float16"}, "precision='float16'"),
        ({"device": "cuda:99"}, "not available"),
        ({"device": "toaster"}, "not available"),
        ({"method": "exact"}, "has no closed form"),
    ],
)
def test_bad_settings(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pg.log_marginal_likelihood(HandM2(), {"x": binary(3)}, **settings)


def test_dynamic_binarization_has_no_score() -> None:
    data = pg.Dataset({"x": torch.rand(4, pairs.X)}).binarized("dynamic")
    with pytest.raises(ValueError, match="Store a draw"):
        pg.log_marginal_likelihood(CASES["VAE"].build(), data)


def test_nan_weights_name_the_datum() -> None:
    pair = CASES["PPCA"].build()
    x = torch.randn(4, pairs.X)
    x[2] = 1e30
    with pytest.raises(FloatingPointError, match="datum 2"):
        pg.log_marginal_likelihood(pair, x, num_samples=10)


def test_khat_of_both_arviz_majors_agree() -> None:
    """The two take log-weights with opposite signs; their tails differ by a draw or two."""
    array_stats = pytest.importorskip("arviz_stats.base").array_stats
    from probgen.inference.scoring.arviz import pareto_khat

    log_weights = (
        np.random.default_rng(0).normal(size=(50, 1000)) * np.linspace(0.1, 3, 50)[:, None]
    )
    _, khat = array_stats.psislw(-log_weights, r_eff=1.0, axis=-1)
    assert np.abs(pareto_khat(log_weights) - khat).max() < 0.1


def test_one_impossible_draw_is_not_exactness() -> None:
    from probgen.inference.scoring.arviz import pareto_khat

    log_weights = np.random.default_rng(0).normal(size=(3, 200))
    log_weights[1, 7] = -np.inf
    log_weights[2] = -5.0
    khat = pareto_khat(log_weights)
    assert np.isfinite(khat[:2]).all() and khat[2] == -np.inf


def test_one_hash_for_the_same_bits_of_any_dtype() -> None:
    x = binary(6)
    scores = {
        str(kind): pg.log_marginal_likelihood(CASES["VAE"].build(), x.to(kind), num_samples=30)
        for kind in (torch.float32, torch.uint8, torch.bool)
    }
    scores["elsewhere"] = pg.Score.closed_form(
        np.full(6, -4.0), pg.Dataset({"x": x.long()}), measure="probability mass of x"
    )
    assert "elsewhere" in table(scores)
    with pytest.raises(TypeError, match="must be a Score"):
        table({"a": 3.0})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="expected 6 finite values"):
        pg.Score.closed_form(np.array([np.nan] * 6), pg.Dataset({"x": x}))


def test_closed_form_of_other_variables() -> None:
    pair = factor_analysis()
    with pytest.raises(ValueError, match="closed form of FactorAnalysis is of x"):
        pg.log_marginal_likelihood(
            pair, {"x": torch.zeros(2, 5), "z": torch.zeros(2, 2)}, method="exact"
        )


@pytest.mark.parametrize("seed", [None, -1, 2**60, 1.5])
def test_bad_seeds(seed: Any) -> None:
    for call in (
        lambda: pg.log_marginal_likelihood(HandM2(), {"x": binary(3)}, seed=seed),
        lambda: pg.fit(HandM2(), {"x": binary(3)}, num_epochs=1, batch_size=3, seed=seed),
    ):
        with pytest.raises((ValueError, TypeError), match="seed must be"):
            call()


def test_a_score_says_what_it_is_of() -> None:
    """log p(x, y), log p(x | y) and log p(x) are told apart, and only one goes into a table."""
    data = pg.Dataset({"x": binary(6), "y": labels(6)})
    draws: dict[str, Any] = {"num_samples": 200}
    joint = pg.log_marginal_likelihood(HandM2(), data, **draws)
    marginal = pg.log_marginal_likelihood(HandM2(), data.only("x"), **draws)
    given = pg.log_marginal_likelihood(CASES["CVAE"].build(), data, **draws)
    assert [s.quantity for s in (joint, marginal, given)] == [
        "log p(y, x)",
        "log p(x)",
        "log p(x | y)",
    ]
    assert repr(given).startswith("log p(x | y) ")
    with pytest.raises(ValueError, match=r"different quantities.*data\.only"):
        table({"joint": joint, "marginal": marginal})
    vae = pg.log_marginal_likelihood(CASES["VAE"].build(), data, **draws)
    assert "log p(x)" in table({"vae": vae, "m2": marginal})


def test_what_a_dataset_was_made_of_goes_along() -> None:
    data = pg.load("digits").train
    assert data.only("x").log_jacobians == data.log_jacobians
    assert data.only("y").transformations == {} and list(data.only("y").values) == ["y"]
    with pytest.raises(KeyError, match="'w'"):
        data.only("w")
    with pytest.raises(TypeError, match="subset"):
        data[:5]  # type: ignore[index]
