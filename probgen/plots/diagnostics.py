"""Pictures of a score: for which data the importance weights are reliable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probgen.basics.locking import one_at_a_time
from probgen.data.dataset import Dataset
from probgen.inference.scoring.arviz import FEWEST_DRAWS
from probgen.plots.images import as_images, images
from probgen.plots.style import axes, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from probgen.inference.scoring.scores import Score


@one_at_a_time
def importance_weights(
    score: Score,
    data: Dataset | None = None,
    *,
    name: str = "x",
    worst: int = 6,
    ax: Axes | None = None,
) -> Axes:
    """Pareto k̂ against effective sample size, one point per datum; the worst data are numbered.

    For data above the line, the errors that the score states are not reliable.

    Args:
        score: the result of `pg.log_marginal_likelihood`.
        data: the data that were scored; if they are images, the worst are shown.
        name: the variable of `data` that holds the images.
        worst: how many data to number.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        ValueError: the number of data is not the number of data scored.

    References:
        Vehtari et al., 2024, "Pareto smoothed importance sampling" (k̂ and its threshold).

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> fa = pg.models.FactorAnalysis(x=pg.Normal(4), z=pg.Normal(1))
        >>> score = pg.log_marginal_likelihood(fa, fa.sample(50)["x"], num_samples=500)
        >>> pg.plots.importance_weights(score).get_title()
        'Importance weights of FactorAnalysis: 50 data, K = 500'
    """
    if data is not None and len(data) != len(score.log_prob):
        raise ValueError(
            f"importance_weights: got {len(data)} data for a score of {len(score.log_prob)}."
        )
    ax = axes(ax)
    n, blue, red = len(score.log_prob), palette()[0], palette()[3]
    title = f"Importance weights of {score.name}: {n} data, K = {score.num_samples}"
    ax.set_title(title)
    if score.is_exact:
        reasons = {"exact": "a closed form", "summed": "all latents are summed out"}
        why = reasons.get(score.method, "all weights of a datum are equal")
        ax.set_title(f"Importance weights of {score.name}: {n} data")
        ax.text(0.5, 0.5, f"{score.quantity} is exact: {why}.\nThere are no weights to look at.",
                ha="center", va="center", transform=ax.transAxes)  # fmt: skip
        ax.set(xticks=[], yticks=[])
        return ax
    khat = np.where(np.isneginf(score.khat), np.nan, score.khat)
    ax.set(xscale="log", xlabel="effective sample size (ESS)")
    if np.isnan(khat).all():
        edges = np.geomspace(score.ess.min() * 0.99, score.ess.max() * 1.01, 30)
        ax.hist(score.ess, bins=edges.tolist())
        few = score.num_samples < FEWEST_DRAWS
        why = "too few draws to estimate k̂" if few else "all weights of a datum are equal: no k̂"
        ax.set(ylabel="data", title=f"{title}\n({why})")
        return ax
    order = np.argsort(-np.nan_to_num(khat, nan=-np.inf), kind="stable")[:worst]
    order = order[~np.isnan(khat[order])]
    infinite = np.isposinf(khat)
    if infinite.any():  # drawn at the upper edge
        edge = 0.3 + max(score.khat_threshold, khat[np.isfinite(khat)].max(initial=0.0))
        khat = np.where(infinite, edge, khat)
        ax.axhline(edge, color=red, linewidth=0.5, linestyle=":")
        ax.text(0.01, edge, " k̂ = inf", transform=ax.get_yaxis_transform(), color=red,
                fontsize="small", va="bottom")  # fmt: skip
    size = float(np.clip(2500 / n, 2, 10))
    ax.scatter(score.ess, khat, s=size, color=blue, alpha=0.6, linewidths=0)
    ax.scatter(score.ess[order], khat[order], s=18, facecolors="none", edgecolors=red)
    _number(ax, score.ess[order], khat[order], red)
    share = score.share_above_threshold
    ax.axhline(score.khat_threshold, color="black", linewidth=0.8, linestyle="--")
    ax.text(0.99, score.khat_threshold, f"threshold {score.khat_threshold:.2f}, {share:.0%} above ",
            transform=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1})  # fmt: skip
    ax.set(ylabel="Pareto k̂")
    described = ", ".join(f"{rank}: row {datum}" for rank, datum in enumerate(order, 1))
    try:
        shown = None if data is None else as_images(data[name][order.copy()])
    except ValueError:
        shown = None
    if shown is None:
        ax.text(0.01, 0.01, f"worst  {described}", transform=ax.transAxes, fontsize="small",
                color=red, va="bottom")  # fmt: skip
    else:
        side = ax.inset_axes((1.02, 0.0, 0.16, 0.94))
        images(shown, columns=1, ax=side)
        side.set_title("worst", color=red, fontsize="small")
        height = shown.shape[1] + 1
        side.set_yticks([rank * height + height / 2 - 1 for rank in range(len(order))],
                        [f"{rank}: row {datum}" for rank, datum in enumerate(order, 1)],
                        fontsize="x-small", color=red)  # fmt: skip
        side.yaxis.tick_right()
        side.tick_params(length=0)
    return ax


def _number(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], colour: Any) -> None:
    """Number points, each at the first position around it that is free of numbers and points."""
    ax.autoscale_view()
    points = ax.transData.transform(np.stack([x, y], 1)) * 72 / ax.figure.dpi
    offsets = [(side * step, height) for step in (6, 16, 26, 36) for height in (2, -9, 13, -20, 24)
              for side in (1, -1)]  # fmt: skip
    numbers: list[Any] = []
    for rank, point in enumerate(points, 1):
        free = (
            offset for offset in offsets
            if all(abs(point + offset - other)[0] > 8 or abs(point + offset - other)[1] > 9
                   for other in numbers)
            and all(abs(point + offset - other)[0] > 6 or abs(point + offset - other)[1] > 8
                    for other in np.delete(points, rank - 1, 0))
        )  # fmt: skip
        offset = next(free, offsets[0])
        numbers.append(point + offset)
        ax.annotate(str(rank), (x[rank - 1], y[rank - 1]), xytext=offset, ha="center",
                    textcoords="offset points", color=colour, fontsize="small")  # fmt: skip
