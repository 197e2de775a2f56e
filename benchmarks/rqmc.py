"""Randomized quasi-Monte Carlo compared with independent draws: the error of log p(x) against K.

    python -m benchmarks.rqmc

The models are linear-Gaussian with 2, 10 and 50 latents and a trained diagonal guide, and their log p(x) is
known. The error is the root mean square error of log p(x) per datum over 20 data and 20 seeds, in float64.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

import probgen as pg
from benchmarks.blocks import RESULTS, write
from probgen.plots.style import axes, save

SIZES, SAMPLES, SEEDS = (2, 10, 50), (64, 256, 1024, 4096, 16384), 20


def fitted(size: int) -> tuple[pg.models.FactorAnalysis, torch.Tensor]:
    """A model with random parameters, whose diagonal guide is trained by SVI, and data drawn from it."""
    torch.manual_seed(0)
    pair = pg.models.FactorAnalysis(x=pg.Normal(max(8, size)), z=pg.Normal(size))
    for parameter in pair.parameters():
        parameter.data.normal_(0, 0.3 if size < 50 else 0.1)
    x = pair.sample(2000, seed=1)["x"]
    guide = [p for name, p in pair.named_parameters() if name.startswith("q_")]
    pg.fit(
        pair, x, num_epochs=300, objective="analytic-kl", progress=False, device="cpu",
        optimizer=lambda _: torch.optim.Adam(guide, lr=1e-2),
        scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 300),
    )  # fmt: skip
    return pair, x[:20]


def draw(rows: list[dict[str, Any]], *, ax: Any = None) -> Any:
    """Draw error against K, one colour per number of latents, dashed for independent draws."""
    ax = axes(ax)
    for index, size in enumerate(SIZES):
        for draws, style in (("iid", "--"), ("rqmc", "-")):
            chosen = [row for row in rows if row["latents"] == size]
            ax.plot(
                [row["K"] for row in chosen], [row[draws] for row in chosen], style, marker="o",
                ms=3, color=f"C{index}", label=f"{size} latents, {draws}",
            )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="K", ylabel="RMS error of log p(x) per datum (nats)")
    ax.set_title("Scrambled Sobol points and independent draws")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def main() -> None:
    warnings.simplefilter("ignore", pg.UnreliableEstimateWarning)
    rows: list[dict[str, Any]] = []
    lines = [
        "| latents | K | independent draws | Sobol, 16 scrambles | ratio (higher: Sobol is better) "
        "| mean, independent draws | mean, Sobol |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in SIZES:
        pair, x = fitted(size)
        exact = pg.log_marginal_likelihood(pair, x, method="exact", precision="float64")
        for samples in SAMPLES:
            row: dict[str, Any] = {"latents": size, "K": samples}
            for draws in ("iid", "rqmc"):
                found = [
                    pg.log_marginal_likelihood(
                        pair, x, num_samples=samples, draws=draws, seed=seed, precision="float64",
                        device="cpu",
                    )
                    for seed in range(SEEDS)
                ]  # fmt: skip
                errors = np.array([score.log_prob - exact.log_prob for score in found])
                row[draws] = float(np.sqrt((errors**2).mean()))
                row[f"{draws} mean"] = float(np.sqrt((errors.mean(1) ** 2).mean()))
            rows.append(row)
            lines.append(
                f"| {size} | {samples} | {row['iid']:.5f} | {row['rqmc']:.5f} | "
                f"{row['iid'] / row['rqmc']:.1f} | {row['iid mean']:.5f} | {row['rqmc mean']:.5f} |"
            )
            print(lines[-1], flush=True)
    title = (
        "Root mean square error of log p(x) per datum, and of the mean over 20 data, which share the "
        f"Sobol points, in nats; {SEEDS} seeds. The ratio is that of the errors per datum."
    )
    save(RESULTS / "rqmc.png", draw, rows)
    write("rqmc", title, lines, {"rows": rows})


if __name__ == "__main__":
    main()
