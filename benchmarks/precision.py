"""log p(x) of a VAE trained in bfloat16, compared with a VAE trained in float32.

    python -m benchmarks.precision --epochs 15 --seeds 3

The model is the 784-500-20-500-784 VAE on dynamically binarized MNIST. The score is the test log p(x) at
K = 1000 on the first 1,000 test images, computed in float32 in both cases.
"""

from __future__ import annotations

import argparse
import functools
import warnings
from typing import Any

import numpy as np
import torch

import probgen as pg
from benchmarks.blocks import write
from benchmarks.training import vae


def trained(precision: str, seed: int, epochs: int, data: pg.Splits) -> tuple[float, float]:
    """The test log p(x), and the median seconds per epoch."""
    torch.manual_seed(seed)
    pair = vae()
    decay = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs)
    result = pg.fit(
        pair, data.train, num_epochs=epochs, seed=seed, precision=precision, scheduler=decay,
        compile=True, device="cpu",
    )  # fmt: skip
    assert data.test is not None
    test = data.test.only("x").subset(slice(0, 1000))
    score = pg.log_marginal_likelihood(pair, test, device="cpu")
    return score.mean, float(np.median(result.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", pg.UnreliableEstimateWarning)
    data = pg.load("mnist")
    lines = ["| seed | float32 | bf16 | difference | s per epoch, float32 | s per epoch, bf16 |"]
    lines.append("|---|---|---|---|---|---|")
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        (a, slow), (b, fast) = (
            trained(precision, seed, arguments.epochs, data) for precision in ("float32", "bf16")
        )
        rows.append({"seed": seed, "float32": a, "bf16": b, "seconds": [slow, fast]})
        lines.append(f"| {seed} | {a:.3f} | {b:.3f} | {b - a:+.3f} | {slow:.2f} | {fast:.2f} |")
        print(lines[-1], flush=True)
    gaps = np.array([row["bf16"] - row["float32"] for row in rows])
    lines += ["", f"Mean difference {gaps.mean():+.3f} ± {gaps.std(ddof=1):.3f} nats per datum."]
    title = (
        "Lower bounds of the test log p(x) in nats per datum, K = 1000, 1,000 test images, after "
        f"{arguments.epochs} epochs of training."
    )
    write("precision", title, lines, {"rows": rows, "epochs": arguments.epochs})


if __name__ == "__main__":
    main()
