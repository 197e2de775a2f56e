"""Curves of a training run: the objective and further metrics over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from probgen.basics.locking import one_at_a_time
from probgen.plots.style import NATS, axes, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRIC_HEIGHT = 0.45
"""Height of the panel of a metric, relative to that of the objective."""


class Curves(Protocol):
    """The curves to draw, such as a `pg.FitResult`; `quantity` and `metrics` may be missing."""

    pair: Any
    elbo: list[float]
    validation_elbo: list[float]
    best_epoch: int


@one_at_a_time
def learning_curve(result: Curves, *, ax: Axes | None = None) -> Axes:
    """The objective on training and validation data against epochs, with the epoch that was kept.

    Further metrics of the objective, such as those of several players, are drawn below each other
    under it. The vertical axis leaves out the first epochs if these would hide the differences of
    the others.

    Args:
        result: what `pg.fit` returned. Its `quantity` names the objective, "ELBO" if there is none;
            its `metrics` are further curves by name, one value per epoch.
        ax: where to draw; it is divided if there are metrics.

    Returns:
        The axes of the objective.

    Raises:
        ValueError: the run ended before its first epoch.

    Example:
        >>> import torch, probgen as pg
        >>> x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
        >>> result = pg.fit(ppca, x, num_epochs=3, progress=False)
        >>> ax = pg.plots.learning_curve(result)
        >>> len(ax.lines[0].get_xdata()), ax.get_ylabel()
        (3, 'ELBO (nats per datum)')
    """
    if not result.elbo:
        raise ValueError("learning_curve: the run ended before its first epoch; nothing to draw.")
    metrics: Mapping[str, Sequence[float]] = getattr(result, "metrics", {})
    ax = axes(ax)
    panels = _panels_below(ax, len(metrics))
    epochs = np.arange(1, len(result.elbo) + 1)
    marker = "o" if len(epochs) == 1 else None  # a line needs two points
    ax.plot(epochs, result.elbo, label="training", linewidth=1.2, marker=marker)
    curves = [result.elbo]
    if result.validation_elbo:
        curves.append(result.validation_elbo)
        ax.plot(epochs, result.validation_elbo, label="validation", linewidth=1.2, marker=marker)
        ax.plot(
            result.best_epoch, result.validation_elbo[result.best_epoch - 1], "o", color="black",
            markersize=4, label=f"weights kept (epoch {result.best_epoch})",
        )  # fmt: skip
    late = np.concatenate([np.asarray(curve)[len(curve) // 20 :] for curve in curves])
    late, values = late[np.isfinite(late)], np.concatenate(curves)
    if len(late):  # values that are not finite are not drawn
        top = values[np.isfinite(values)].max()
        margin = 0.05 * (top - late.min()) or 1.0
        ax.set_ylim(late.min() - margin, top + margin)
    ax.set(ylabel=f"{getattr(result, 'quantity', 'ELBO')} ({NATS})")
    ax.set_title(f"Learning curve of {result.pair.name}")
    ax.legend(frameon=False)
    colours = palette()[2:]  # the first two are those of training and validation
    for index, (panel, (name, curve)) in enumerate(zip(panels, metrics.items(), strict=True)):
        colour = colours[index % len(colours)]
        panel.plot(epochs[: len(curve)], curve, color=colour, linewidth=1.2, marker=marker)
        panel.set_ylabel(name)
    for panel in [ax, *panels][:-1]:
        panel.tick_params(labelbottom=False)
    [ax, *panels][-1].set_xlabel("epoch")
    return ax


def _panels_below(ax: Axes, number: int) -> list[Axes]:
    """Divide axes into one for the objective and new ones below it; return the new ones."""
    if not number:
        return []
    figure, place = ax.get_figure(root=True), ax.get_subplotspec()
    if figure is None or place is None:
        raise ValueError(
            "learning_curve: the axes given cannot be divided for further metrics. Create them by "
            "plt.subplots, or leave ax out."
        )
    if len(figure.axes) == 1:
        figure.set_figheight(figure.get_figheight() * (1 + METRIC_HEIGHT * number))
    grid = place.subgridspec(1 + number, 1, height_ratios=[1.0] + [METRIC_HEIGHT] * number)
    ax.set_subplotspec(grid[0])
    return [figure.add_subplot(grid[1 + index], sharex=ax) for index in range(number)]
