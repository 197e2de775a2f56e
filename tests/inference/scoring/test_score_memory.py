"""What a score of many rows needs beside the data and its five columns: next to nothing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg
from probgen.data.fingerprint import fingerprint
from probgen.inference.scoring import accumulate, exact

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")


def peak(call: Callable[[], Any]) -> int:
    """Bytes that NumPy and Python held at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_columns_are_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accumulate, "MOST_WEIGHTS", 20_000)
    pair, n = pg.models.PPCA(x=pg.Normal(4), z=pg.Normal(1)), 100_000
    x = torch.randn(n, 4)
    pg.log_marginal_likelihood(pair, x[:100], num_samples=2, device="cpu")  # what is imported
    found: list[pg.Score] = []
    most = peak(
        lambda: found.append(pg.log_marginal_likelihood(pair, x, num_samples=2, device="cpu"))
    )
    columns = sum(
        getattr(found[0], c).nbytes for c in ("log_prob", "standard_error", "bias", "ess", "khat")
    )
    assert columns == 5 * 8 * n
    assert most < 1.3 * columns  # the median of one column is a copy of it


def test_a_fingerprint_copies_little_and_is_what_it_was() -> None:
    x = torch.randn(50_000, 30)
    assert peak(lambda: fingerprint({"x": x})) < x.numel() * 4 / 5
    few, mask = torch.arange(6.0).reshape(3, 2), torch.tensor([True, False, True])
    assert fingerprint({"x": few, "y": torch.arange(3)}) == "8d7ada014af2"
    assert fingerprint({"y": few}, {"y": mask}) == "aff220ddb95d"
    assert fingerprint({"w": torch.tensor(2.0)}) == "341caddcca5f"  # a number of a model
    assert fingerprint({"x": x}, {"x": x[:, 0] > 0}) != fingerprint({"x": x})


def test_closed_forms_are_taken_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Counted(pg.models.PPCA):
        def log_prob(self, x: Any) -> Any:
            seen.append(len(x))
            return super().log_prob(x)

    pair = Counted(x=pg.Normal(4), z=pg.Normal(1))
    x = torch.randn(25, 4)
    whole = pg.log_marginal_likelihood(pair, x, method="exact", device="cpu")
    monkeypatch.setattr(exact, "ROWS", 10)
    parts = pg.log_marginal_likelihood(pair, x, method="exact", device="cpu")
    assert seen == [25, 10, 10, 5] and np.allclose(whole.log_prob, parts.log_prob, rtol=1e-6)
