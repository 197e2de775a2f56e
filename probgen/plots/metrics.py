"""Curves of the further metrics of a training run, such as D(x) and D(G(z)) of a GAN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probgen.basics.locking import one_at_a_time
from probgen.plots.style import axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from probgen.inference.training.results import FitResult


@one_at_a_time
def metric_curves(
    result: FitResult, names: Sequence[str] | None = None, *, ax: Axes | None = None
) -> Axes:
    """Metrics of a training run against epochs, each the average over an epoch.

    Args:
        result: what `pg.fit` returned, with `metrics`.
        names: which metrics to draw; by default D(x) and D(G(z)) of a GAN, or all.
        ax: where to draw.

    Raises:
        ValueError: the run has no such metric.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> gan = pg.models.GAN(x=pg.Normal(2), z=pg.Normal(2), hidden=(8,))
        >>> x = torch.randn(64, 2)
        >>> result = pg.fit(gan, x, num_epochs=3, device="cpu", progress=False)
        >>> [line.get_label() for line in pg.plots.metric_curves(result).get_lines()[:2]]
        ['D(x)', 'D(G(z))']
    """
    metrics = result.metrics
    if names is None:
        probabilities = [name for name in ("D(x)", "D(G(z))") if name in metrics]
        names = probabilities or list(metrics)
    unknown = [name for name in names if name not in metrics]
    if unknown or not names:
        raise ValueError(
            f"metric_curves: {result.pair.name} has no metric {', '.join(unknown) or 'at all'}; it has "
            f"{', '.join(metrics) or 'none'}. Metrics are what an objective returns in addition to its value."
        )
    ax = axes(ax)
    epochs = np.arange(1, len(metrics[names[0]]) + 1)
    marker = "o" if len(epochs) == 1 else None  # a line needs two points
    for name in names:
        ax.plot(epochs, metrics[name], label=name, linewidth=1.2, marker=marker)
    if set(names) <= {"D(x)", "D(G(z))"}:
        ax.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
        ax.set_ylim(0, 1)
        ax.set_ylabel("probability that the critic gives to being data")
    ax.set(xlabel="epoch", title=f"Metrics of {result.pair.name} in training")
    ax.legend(frameon=False)
    return ax
