"""A few of every attack; `python -m tests.attacks` tries them all."""

from __future__ import annotations

import importlib.util

import pytest

from tests.attacks.__main__ import ATTACKS, run

FEW = {"formulas": 200, "command_lines": 60, "arrays": 60, "damaged_runs": 30, "forged_runs": 20,
       "kills": 3, "threaded_fits": 8, "threaded_predictions": 60}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_wrong(name: str) -> None:
    if importlib.util.find_spec(f"tests.attacks.{name}") is None:
        pytest.skip("not written")
    found = run(name, FEW[name], seed=1)
    assert found.count == FEW[name]
    assert not found.wrong
