"""Methods of scoring: their names and costs in a score, `"auto"`, and a method of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import probgen as pg
from probgen.basics.progress import Progress
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.inference.scoring.accumulate import accumulate
from probgen.inference.scoring.base import METHODS, Estimate, ScoreSettings, ScoringMethod
from probgen.inference.scoring.chunks import Chunk
from probgen.runs.scores import score_from
from tests.pairs import binary, labels

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")
X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


def ppca() -> pg.models.PPCA:
    return pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1)).set_maximum_likelihood(X)


def score(pair: pg.LatentVariableModel, data: Any, **settings: Any) -> pg.Score:
    return pg.log_marginal_likelihood(pair, data, device="cpu", **settings)


class FromPrior(ScoringMethod):
    """Importance sampling from the prior: weights p(x | z), with z drawn from p(z)."""

    num_processes = "one"

    def estimate(
        self, pair: pg.LatentVariableModel, data: pg.Dataset, device: torch.device,
        settings: ScoreSettings, *, rank: int = 0, first_row: int = 0,
    ) -> Estimate:  # fmt: skip
        def log_weights(values: Any, masks: Any, first: int, draws: int, repeated: bool) -> Tensor:
            z = pair.p_z().sample((draws, len(values["x"])))
            likelihood: Tensor = pair.p_x(z=z).log_prob(values["x"])
            return likelihood

        draws = settings.num_samples
        with evaluation(pair), fixed_seed(settings.seed, device), Progress("", 1, False) as bar:
            columns = accumulate(log_weights, data, draws, Chunk(7, 300), bar, first_row=first_row)
        return Estimate(columns, "from-prior", draws, decoder_passes=draws)


@pytest.fixture
def from_prior() -> Iterator[None]:
    METHODS.register("from-prior", FromPrior)
    yield
    del METHODS._registered["from-prior"]


def test_methods_are_found_by_their_files() -> None:
    assert METHODS.names() == ("exact", "importance")


def test_a_score_says_its_method_and_cost() -> None:
    importance = score(ppca(), X, num_samples=50)
    assert (importance.method, importance.decoder_passes) == ("importance", 50)
    assert "cost  importance sampling, 50 decoder passes per datum" in repr(importance)
    exact = score(ppca(), X, method="exact")
    assert (exact.method, exact.decoder_passes, exact.num_samples) == ("exact", 0, 0)
    m2 = pg.models.M2(x=pg.Bernoulli(6), y=pg.Categorical(3), z=pg.Normal(2), hidden=(4,))
    summed = score(m2, binary(5), num_samples=50)
    assert (summed.method, summed.decoder_passes) == ("importance", 150)  # a term for each class
    given = score(m2, {"x": binary(5), "y": labels(5)}, num_samples=50)
    assert given.decoder_passes == 50
    mixture = pg.declare(
        "p(y) p(x | y)", "q(y | x)", hidden=(4,), y=pg.Categorical(3), x=pg.Bernoulli(6)
    )
    sums = score(mixture, binary(5))
    assert (sums.method, sums.num_samples, sums.decoder_passes) == ("summed", 1, 3)
    rows = pg.table({"sampled": importance, "closed": exact}).splitlines()
    assert rows[0].split()[-7:-4] == ["method", "K", "passes"]
    closed = next(row for row in rows if row.startswith("closed"))
    assert closed.split()[5:8] == ["exact", "-", "-"]


def test_auto_takes_the_closed_form_where_there_is_one() -> None:
    pair = ppca()
    chosen, exact = (score(pair, X, method=method) for method in ("auto", "exact"))
    assert chosen.method == "exact" and np.array_equal(chosen.log_prob, exact.log_prob)
    vae = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,))
    assert score(vae, binary(5), num_samples=30, method="auto").method == "importance"
    with pytest.raises(ValueError, match='one of "exact", "importance", "auto", got \'laplace\''):
        score(vae, binary(5), method="laplace")


@pytest.mark.usefixtures("from_prior")
def test_a_method_of_ones_own_uses_the_same_accumulation() -> None:
    own, exact = (
        score(ppca(), X, method="from-prior", num_samples=4000),
        score(ppca(), X, method="exact"),
    )
    assert own.method == "from-prior" and own.decoder_passes == 4000
    assert "cost  from-prior, 4,000 decoder passes" in repr(own)
    distance = np.abs(own.log_prob - exact.log_prob) / own.standard_error
    assert np.mean(distance < 1.96) > 0.8 and distance.max() < 6
    assert (own.ess < 4000).all() and np.isfinite(own.khat).all()


def test_a_closed_form_that_is_not_finite_is_refused() -> None:
    class Broken(pg.models.PPCA):
        def log_prob(self, x: Tensor) -> Tensor:
            return torch.full((len(x),), torch.nan)

    with pytest.raises(ValueError, match=r"Broken\.log_prob must return 40 finite values"):
        score(Broken(x=pg.Normal(3), z=pg.Normal(1)), X, method="exact")


@pytest.mark.parametrize(
    ("num_samples", "method"), [(0, "exact"), (1, "summed"), (60, "importance")]
)
def test_scores_saved_without_a_method_say_what_they_were(
    tmp_path: Any, num_samples: int, method: str
) -> None:
    arrays = {name: torch.zeros(3, dtype=torch.float64) for name in ("log_prob", "standard_error")}
    arrays |= {name: torch.ones(3, dtype=torch.float64) for name in ("bias", "ess", "khat")}
    plain = {
        "num_samples": num_samples, "measure": "density of x", "transformation": "none",
        "data_hash": "0",
    }  # fmt: skip
    found = score_from(arrays, {"score": plain}, tmp_path / "test.safetensors")
    assert found.method == method and found.decoder_passes is None
