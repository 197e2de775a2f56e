"""`python -m tests.attacks [names] [--seed 0] [--share 1.0]`: all attacks, a line each."""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from probgen.basics.text import aligned
from tests.attacks import Outcome

ATTACKS = {
    "formulas": 5000,
    "command_lines": 1500,
    "arrays": 1000,
    "damaged_runs": 500,
    "forged_runs": 100,
    "kills": 60,
    "threaded_fits": 100,
    "threaded_predictions": 1000,
}
"""The module of each attack, and how often it is tried."""


def run(name: str, count: int, seed: int) -> Outcome:
    """One attack."""
    found: Outcome = importlib.import_module(f"tests.attacks.{name}").attack(count, seed)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ATTACKS, []], help="all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts")
    given = parser.parse_args()
    rows = [("attack", "tried", "refused", "wrong", "seconds")]
    details = []
    for name in given.names or ATTACKS:
        start = time.perf_counter()
        found = run(name, max(1, round(ATTACKS[name] * given.share)), given.seed)
        seconds = f"{time.perf_counter() - start:.0f}"
        rows.append((name, f"{found.count}", f"{found.refused}", f"{len(found.wrong)}", seconds))
        details += [f"{name}: {text}" for text in found.wrong]
        print(f"{name}: {found.count} tried, {len(found.wrong)} wrong", file=sys.stderr, flush=True)
    print("\n".join([*aligned(rows, left={0})[0], *details]))
    sys.exit(1 if details else 0)


if __name__ == "__main__":
    main()
