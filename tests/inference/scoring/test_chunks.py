"""What goes into one pass of an evaluation: counted, recorded, the same on every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg
from probgen.basics.settings import evaluation
from probgen.inference.scoring import chunks
from probgen.inference.scoring.chunks import Chunk, rows_in_a_pass
from tests.fitting import QUICK, structured, vae

CPU = torch.device("cpu")


def rows(pair: pg.LatentVariableModel, x: Any, sampled: bool = True) -> int:
    with evaluation(pair):
        return rows_in_a_pass(pair, pg.Dataset({"x": x}), sampled, CPU)


@pytest.mark.parametrize(
    ("budget", "draws", "data", "expected"),
    [
        (4000, 1000, 50, Chunk(4, 1000)),
        (4000, 1000, 3, Chunk(3, 1000)),
        (4000, 5000, 50, Chunk(1, 2500)),  # as even as it goes, not 4000 and 1000
        (10, 23, 7, Chunk(1, 8)),
        (1, 3, 7, Chunk(1, 1)),
        (100, 1, 7, Chunk(7, 1)),
    ],
)
def test_shape_of_a_pass(budget: int, draws: int, data: int, expected: Chunk) -> None:
    assert Chunk.of(budget, draws, data) == expected


@pytest.mark.parametrize("width", [1, 3])
def test_bytes_are_counted(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times the width of data and network: a third of the rows, but for the latents."""
    monkeypatch.setitem(chunks.MOST_ROWS, "cpu", 10**9)
    pair = pg.models.VAE(x=pg.Bernoulli(1000 * width), z=pg.Normal(1), hidden=(500 * width,))
    found = rows(pair, torch.zeros(4, 1000 * width))
    # Outputs of 500 and 1,000 floats at least, and no more than ten times these.
    least, most = (times * 4 * 1500 * width for times in (1, 10))
    assert chunks.BYTES / most < found < chunks.BYTES / least
    in_double = rows(pair.double(), torch.zeros(4, 1000 * width, dtype=torch.float64))
    assert in_double == pytest.approx(found / 2, rel=0.01)


def test_small_and_huge_rows() -> None:
    small = pg.models.PPCA(x=pg.Normal(2), z=pg.Normal(1))
    assert rows(small, torch.zeros(4, 2)) == chunks.MOST_ROWS["cpu"]
    huge = pg.models.PPCA(x=pg.Normal(1_000_000), z=pg.Normal(1))
    assert rows(huge, torch.zeros(2, 1_000_000)) < 20


def test_where_nothing_is_drawn_data_are_counted() -> None:
    mixture = pg.declare("p(y) p(x | y)", "q(y | x)", hidden=(300,), y=pg.Categorical(10),
                         x=pg.Normal(500, scale=1.0))  # fmt: skip
    x = torch.zeros(4, 500)
    assert rows(mixture, x, sampled=False) < chunks.BYTES / (4 * 10 * 500)


@pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")
def test_a_probe_draws_nothing_and_is_recorded(tmp_path: Path) -> None:
    pg.fit(vae(), structured(16), num_epochs=1, run_dir=tmp_path, **QUICK)
    run = pg.load_run(tmp_path)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    score = pg.log_marginal_likelihood(run.pair, structured(8), num_samples=64)
    assert torch.equal(torch.get_rng_state(), before)
    assert score.chunk == (8, 64)
    run.save_score(score, "few")
    kept = run.scores["few"]
    assert kept.chunk == (8, 64) and np.array_equal(kept.log_prob, score.log_prob)
    assert pg.log_marginal_likelihood(run.pair, structured(8), num_samples=20_000).chunk == (
        1,
        10_000,
    )
