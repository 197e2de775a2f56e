"""Pictures of data that are not images: reconstructions of each element, and draws with the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from probgen.basics.locking import one_at_a_time
from probgen.data.support import is_binary
from probgen.inference.queries.posterior import reconstruct
from probgen.pair import LatentVariableModel
from probgen.plots.images import named_data
from probgen.plots.latents import principal_plane
from probgen.plots.style import axes, element_label, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@one_at_a_time
def elements(
    pair: LatentVariableModel,
    x: Any,
    *,
    name: str = "x",
    most: int = 10,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Reconstructions plotted against data, one colour per element of x.

    For real-valued data and counts: the mean of p(x | z) against x, for the elements with the
    largest variance. For binary data: the mean of each element's reconstructions against its share
    of ones in the data.

    Args:
        pair: the pair.
        x: the data.
        name: the variable to draw.
        most: how many elements to draw, at most ten.
        labels: names of the elements, such as the columns of a table.
        seed: of latents that are drawn.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        ValueError: data that do not fit the pair, or that are classes.

    Example:
        >>> import torch, probgen as pg
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1)).set_maximum_likelihood(x)
        >>> pg.plots.elements(ppca, x).get_title()
        'Reconstructions of 50 data by PPCA'
    """
    ax = axes(ax)
    data = named_data(x, name)
    values = torch.as_tensor(data[name]).flatten(1).double().numpy()
    means = reconstruct(pair, data, seed=seed)[name].flatten(1).double().numpy()
    if is_binary(pair.variables[name]):
        ones, expected = values.mean(0), means.mean(0)
        ax.scatter(ones, expected, s=14, color=palette()[0], linewidths=0)
        low, high = 0.0, 1.0
        ax.set(xlabel=f"share of ones in the data, each of {len(ones)} elements")
        ax.set(ylabel="mean probability of a one, reconstructed")
    else:
        deviation = values.std(0)
        chosen = np.sort(np.argsort(-deviation, kind="stable")[:most])
        for element, colour in zip(chosen, palette(), strict=False):
            ax.scatter(
                values[:, element], means[:, element], s=7, color=colour, alpha=0.6, linewidths=0,
                label=element_label(name, int(element), labels),
            )  # fmt: skip
        both = np.concatenate([values[:, chosen], means[:, chosen]])
        low, high = np.quantile(both, [0.001, 0.999])
        counts = pair.variables[name].discrete
        low = min(low, 0.0) if counts else low
        ax.set(xlabel=f"{name}, counts" if counts else f"{name}")
        ax.set(
            ylabel=f"mean count of {name}, reconstructed" if counts else f"reconstruction of {name}"
        )
        ax.legend(frameon=False, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
    margin = 0.05 * (high - low) or 1.0
    ax.plot([low, high], [low, high], color="black", linewidth=0.8, zorder=0)
    ax.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    ax.set_title(f"Reconstructions of {len(values)} data by {pair.name}")
    return ax


@one_at_a_time
def draws(
    pair: LatentVariableModel,
    x: Any,
    *,
    name: str = "x",
    seed: int = 0,
    ax: Axes | None = None,
    **given: Any,
) -> Axes:
    """As many draws from the model as there are data, with the data, in the plane of the data's
    first two principal components; for a single element two histograms.

    Args:
        pair: the pair.
        x: the data.
        name: the variable to draw.
        seed: of the draws.
        ax: where to draw.
        **given: variables to condition on.

    Returns:
        The axes.

    Raises:
        ValueError: no such variable, or a given variable depends on one that is drawn.

    Example:
        >>> import torch, probgen as pg
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1)).set_maximum_likelihood(x)
        >>> pg.plots.draws(ppca, x).get_title()
        '50 data and 50 draws from PPCA'
    """
    ax = axes(ax)
    values = torch.as_tensor(named_data(x, name)[name]).flatten(1).double().numpy()
    drawn = pair.sample(len(values), seed=seed, **given)[name].cpu()
    if given:
        drawn = drawn.flatten(0, 1)
    samples = drawn.flatten(1).double().numpy()
    xlabel, ylabel = f"{name}[0]", "density, arbitrary units"
    if values.shape[1] == 1:
        edges = np.histogram_bin_edges(np.concatenate([values, samples]), bins="auto")
        for points, label in ((values, "data"), (samples, "draws")):
            ax.hist(points[:, 0], bins=edges.tolist(), density=True, alpha=0.5, label=label)
    else:
        centre, directions, share = principal_plane(values)
        for points, label in ((values, "data"), (samples, "draws")):
            plane = (points - centre) @ directions
            ax.scatter(plane[:, 0], plane[:, 1], s=8, alpha=0.6, linewidths=0, label=label)
        xlabel = f"first principal component of the data ({share[0]:.0%} of the variance)"
        ylabel = f"second principal component ({share[1]:.0%})"
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(f"{len(values)} data and {len(samples)} draws from {pair.name}")
    ax.legend(frameon=False, markerscale=2)
    return ax
