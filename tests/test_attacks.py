"""A few of every attack; `python -m tests.attacks` tries them all."""

from __future__ import annotations

import pytest

from tests.attacks.__main__ import ATTACKS, run

FEW = {"formulas": 200, "command_lines": 30, "arrays": 60, "damaged_runs": 30, "forged_runs": 11,
       "kills": 3, "threaded_fits": 8, "threaded_predictions": 60}  # fmt: skip
"""How often each is tried; of the forged runs, once by every forger."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    # Kills are tried in `test_kill.py` too.
    [pytest.param(name, marks=[pytest.mark.long] * (name == "kills")) for name in ATTACKS],
)
def test_nothing_wrong(name: str) -> None:
    found = run(name, FEW[name], seed=1)
    assert found.count == FEW[name]
    assert not found.wrong
