"""Curves of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probgen.basics.locking import one_at_a_time
from probgen.plots.style import NATS, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from probgen.inference.training.results import FitResult


@one_at_a_time
def learning_curve(result: FitResult, *, ax: Axes | None = None) -> Axes:
    """Training and validation ELBO against epochs, the epoch kept marked.

    The axis is cut where the first epochs, which say nothing, would hide the rest.
    """
    ax = axes(ax)
    if not result.elbo:
        raise ValueError("learning_curve: the run ended before its first epoch; nothing to draw.")
    epochs = np.arange(1, len(result.elbo) + 1)
    single = "o" if len(epochs) == 1 else None  # a line needs two points
    ax.plot(epochs, result.elbo, label="training", linewidth=1.2, marker=single)
    curves = [result.elbo]
    if result.validation_elbo:
        curves.append(result.validation_elbo)
        ax.plot(epochs, result.validation_elbo, label="validation", linewidth=1.2, marker=single)
        ax.plot(
            result.best_epoch, result.validation_elbo[result.best_epoch - 1], "o", color="black",
            markersize=4, label=f"weights kept (epoch {result.best_epoch})",
        )  # fmt: skip
    late = np.concatenate([np.asarray(c)[len(c) // 20 :] for c in curves])
    late, every = late[np.isfinite(late)], np.concatenate(curves)
    if len(late):  # a bound that is not finite is not drawn
        top = every[np.isfinite(every)].max()
        margin = 0.05 * (top - late.min()) or 1.0
        ax.set_ylim(late.min() - margin, top + margin)
    ax.set(xlabel="epoch", ylabel=f"ELBO ({NATS})", title=f"Learning curve of {result.pair.name}")
    ax.legend(frameon=False)
    return ax
