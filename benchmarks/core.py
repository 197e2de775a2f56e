"""fit() and log_marginal_likelihood() against hand-written eager torch, in one process.

    python -m benchmarks.core --repeats 31

Blocks of both are run in shuffled pairs and the ratio is taken pair by pair, so that a machine
whose speed drifts still gives a ratio that holds. Writes benchmarks/results/core.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch

import probgen as pg
from benchmarks.hand_written import HandWrittenVAE, train

RESULTS = Path(__file__).parent / "results"
BATCH = 128


def images(n: int) -> torch.Tensor:
    """MNIST binarized at 127 where it is at hand, otherwise noise of the same shape."""
    try:
        x = pg.load("mnist", transform="none").train["x"][:n]
        return (x > 127 / 255).float()
    except FileNotFoundError:
        return torch.bernoulli(torch.full((n, 784), 0.13))


def pairs(a: Callable[[], float], b: Callable[[], float], repeats: int) -> dict[str, Any]:
    """Seconds of both, and the ratio a / b, over shuffled pairs."""
    a(), b()
    first: list[float] = []
    second: list[float] = []
    for index in range(repeats):
        order = random.Random(index).sample([(a, first), (b, second)], 2)
        for run, kept in order:
            kept.append(run())
    ratios = np.array(first) / np.array(second)
    return {
        "probgen": float(np.median(first)),
        "peer": float(np.median(second)),
        "ratio": float(np.median(ratios)),
        "low": float(np.quantile(ratios, 0.1)),
        "high": float(np.quantile(ratios, 0.9)),
    }


def training(repeats: int, steps: int = 100) -> dict[str, Any]:
    """Seconds a step: fit() by its own clock (its epochs), the peer around its loop."""
    x = images(steps * BATCH)
    vae = pg.models.VAE(x=pg.Bernoulli(784), z=pg.Normal(20), hidden=(500,))
    hand = HandWrittenVAE()
    optimizer = torch.optim.Adam(hand.parameters(), lr=1e-3)

    def ours() -> float:
        result = pg.fit(vae, x, num_epochs=1, batch_size=BATCH, progress=False, device="cpu")
        return result.seconds[0] / steps

    def theirs() -> float:
        start = time.perf_counter()
        train(hand, x, optimizer, BATCH)
        return (time.perf_counter() - start) / steps

    return pairs(ours, theirs, repeats)


def evaluation(repeats: int, num_samples: int = 1000, n: int = 100) -> dict[str, Any]:
    """Seconds an image at K = 1000, diagnostics included on our side only."""
    x = images(n)
    vae = pg.models.VAE(x=pg.Bernoulli(784), z=pg.Normal(20), hidden=(500,))
    hand = HandWrittenVAE()
    pg.fit(vae, images(6400), num_epochs=2, batch_size=BATCH, progress=False, device="cpu")

    def ours() -> float:
        start = time.perf_counter()
        pg.log_marginal_likelihood(vae, x, num_samples=num_samples, device="cpu")
        return (time.perf_counter() - start) / n

    def theirs() -> float:
        start = time.perf_counter()
        hand.log_prob(x, num_samples)
        return (time.perf_counter() - start) / n

    return pairs(ours, theirs, repeats)


def machine() -> dict[str, str]:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    return {
        "processor": model,
        "threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "probgen": pg.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=31, help="pairs of blocks (default 31)")
    repeats = parser.parse_args().repeats
    import warnings

    warnings.simplefilter("ignore", pg.UnreliableEstimateWarning)
    rows = {
        "training step, batch 128 (ms)": training(repeats),
        "evaluation, K = 1000 (ms an image)": evaluation(repeats),
    }
    lines = [
        "| 784-500(tanh)-20-500-784 VAE, float32 | probgen | hand-written | ratio | 10 % to 90 % |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {1e3 * row['probgen']:.2f} | {1e3 * row['peer']:.2f} | "
            f"**{row['ratio']:.2f}** | {row['low']:.2f} to {row['high']:.2f} |"
        )
    where = ", ".join(f"{key} {value}" for key, value in machine().items())
    lines += ["", f"Medians of {repeats} shuffled pairs; the ratio pair by pair. {where}."]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "core.md").write_text("\n".join(lines) + "\n")
    record = {"rows": rows, "machine": machine(), "repeats": repeats}
    (RESULTS / "core.json").write_text(json.dumps(record, indent=2) + "\n")
    print("\n".join(lines))
    print(f"\nWritten to {RESULTS / 'core.md'} and core.json")


if __name__ == "__main__":
    main()
