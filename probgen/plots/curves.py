"""The learning curve of a training run: its objective over epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from probgen.basics.locking import one_at_a_time
from probgen.plots.style import NATS, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Curves(Protocol):
    """The curves to draw, such as a `pg.FitResult`; `quantity` may be missing."""

    pair: Any
    elbo: list[float]
    validation_elbo: list[float]
    best_epoch: int


@one_at_a_time
def learning_curve(result: Curves, *, ax: Axes | None = None) -> Axes:
    """The objective on training and validation data against epochs, with the epoch that was kept.

    The vertical axis leaves out the first epochs if these would hide the differences of the others.
    Further metrics, such as those of several players, are drawn by `metric_curves`.

    Args:
        result: what `pg.fit` returned. Its `quantity` names the objective, "ELBO" if there is none.
        ax: where to draw.

    Returns:
        The axes.

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
    ax = axes(ax)
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
    ax.set(xlabel="epoch", ylabel=f"{getattr(result, 'quantity', 'ELBO')} ({NATS})")
    ax.set_title(f"Learning curve of {result.pair.name}")
    ax.legend(frameon=False)
    return ax
