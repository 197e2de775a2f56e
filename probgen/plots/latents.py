"""Pictures of latents: the posterior means of data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.inference.queries.posterior import encode
from probgen.pair import LatentVariableModel
from probgen.plots.images import named_data
from probgen.plots.style import axes, palette, short_names
from probgen.point_mass import point_masses

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@one_at_a_time
def latent_scatter(
    pair: LatentVariableModel,
    x: Any,
    labels: Sequence[int | str] | Tensor | NDArray[Any] | None = None,
    *,
    name: str = "x",
    latent: str = "z",
    ax: Axes | None = None,
) -> Axes:
    """Posterior means of a latent, coloured by class; if the latent has more than two elements,
    the first two principal components of the means.

    Args:
        pair: the pair.
        x: the data; or, for a pair of several data variables, a Dataset or dict by name.
        labels: the class of each datum, shape `(data,)`; by default all have one colour.
        name: the variable that `x` is.
        latent: which latent.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        ValueError: no such latent, or the number of labels is not the number of data.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> vae = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,))
        >>> pg.plots.latent_scatter(vae, torch.eye(6), [0, 0, 0, 1, 1, 1]).get_xlabel()
        'z[0]'
    """
    data = named_data(x, name)
    latents = encode(pair, data)
    if latent not in latents:
        raise ValueError(f"latent_scatter: no latent {latent!r} among {', '.join(latents)}.")
    ax = scatter(latents[latent], labels, latent=latent, ax=ax)
    kind = "Codes" if latent in point_masses(pair.factors("q")) else "Posterior means of"
    ax.set_title(f"{kind} {latent} under {pair.name}")
    return ax


def scatter(
    means: Tensor, labels: Any = None, *, latent: str = "z", ax: Axes | None = None
) -> Axes:
    """Draw latents as points coloured by class, in a plane: see `latent_scatter`.

    Args:
        means: the latents, shape `(data, *event_shape)`.
        labels: the class of each datum, shape `(data,)`; by default all have one colour.
        latent: name of the latent, for the axes.
        ax: where to draw.

    Raises:
        ValueError: the number of labels is not the number of data.
    """
    size = len(means)
    kinds = np.zeros(size, int) if labels is None else np.asarray(labels)
    if kinds.shape != (size,):
        raise ValueError(
            f"latent_scatter: needs one label per datum, shape ({size},), got shape {kinds.shape}."
        )
    ax = axes(ax)
    points = means.flatten(1).double().numpy()
    xlabel, ylabel = f"{latent}[0]", f"{latent}[1]"
    if points.shape[1] == 1:
        points = np.concatenate([points, np.zeros_like(points)], 1)
        ylabel = ""
        ax.set_yticks([])
    elif points.shape[1] > 2:
        centre, directions, share = principal_plane(points)
        points = (points - centre) @ directions
        xlabel = f"first principal component ({share[0]:.0%} of the variance)"
        ylabel = f"second principal component ({share[1]:.0%})"
    colours, different = palette(), np.unique(kinds)
    legend_columns = 1 + (len(different) - 1) // 18  # 18 lines fit next to the picture
    names = short_names(list(different), 24 if legend_columns == 1 else 30 // legend_columns)
    for index, kind in enumerate(different):
        chosen = points[kinds == kind]
        colour = colours[index % len(colours)]
        marker = "ov^sD"[index // len(colours) % 5]
        ax.scatter(
            chosen[:, 0], chosen[:, 1], s=9, color=colour, marker=marker, label=names[index],
            linewidths=0,
        )  # fmt: skip
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if labels is not None:
        ax.legend(
            title="class", frameon=False, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5),
            ncols=legend_columns, fontsize=None if legend_columns == 1 else "small", columnspacing=1.0,
            handletextpad=0.2,
        )  # fmt: skip
    return ax


def principal_plane(
    points: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centre, the first two principal directions as columns, and all shares of the variance."""
    centre = points.mean(0)
    _, stretch, directions = np.linalg.svd(points - centre, full_matrices=False)
    share = stretch**2 / max(float((stretch**2).sum()), 1e-300)
    return centre, directions[:2].T, share
