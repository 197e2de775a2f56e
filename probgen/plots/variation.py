"""Pictures of x while a latent varies: over a plane, or one element at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.data.dataset import Dataset
from probgen.data.field import looks_like_images
from probgen.inference.queries.variation import LatentGrid, Traversal, latent_grid, traverse
from probgen.pair import LatentVariableModel
from probgen.plots.images import as_images, images, limits_of, named_data
from probgen.plots.style import axes, element_label, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@one_at_a_time
def manifold(
    pair: LatentVariableModel,
    *,
    latent: str = "z",
    name: str = "x",
    n: int = 20,
    seed: int = 0,
    ax: Axes | None = None,
    **given: Any,
) -> Axes:
    """Means of x over a grid of a latent with two elements, in cells of equal prior probability.

    Args:
        pair: the pair.
        latent: a latent of two elements, each with quantiles under the prior, such as a Gaussian or a
            log-normal.
        name: the variable to draw; it must be images.
        n: cells in each direction.
        seed: of the other variables that the model draws.
        ax: where to draw.
        **given: variables to condition on, one datum each, such as `y=torch.tensor([3])`.

    Returns:
        The axes.

    Raises:
        ValueError: the latent does not have two elements, its prior depends on another variable, or
            x is not an image.

    References:
        Kingma and Welling, 2014, "Auto-encoding variational Bayes", figure 4.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> vae = pg.models.VAE(x=pg.Bernoulli(16), z=pg.Normal(2), hidden=(4,))
        >>> pg.plots.manifold(vae, n=5).get_title()
        'Means of p(x | z) of VAE, 5 x 5 cells of equal probability'
    """
    grid = latent_grid(pair, latent, name, n, given, seed=seed, owner="manifold")
    ax = _draw_grid(grid, latent, n, limits_of(pair, name), ax)
    fixed = "".join(
        f"{key}={int(value)}, "
        for key, value in given.items()
        if torch.as_tensor(value).numel() == 1
    )
    ax.set_title(
        f"Means of p({name} | {fixed}{latent}) of {pair.name}, {n} x {n} cells of equal probability"
    )
    return ax


def _draw_grid(
    grid: LatentGrid, latent: str, n: int, limits: tuple[float, float] | None, ax: Axes | None
) -> Axes:
    ax = images(grid.means, columns=n, limits=limits, ax=ax)
    height, width = as_images(grid.means).shape[1:]
    ticks = [0, n // 4, n // 2, n - 1 - n // 4, n - 1]
    across, down = (_rounded(grid.quantiles[ticks, element]) for element in (0, 1))
    ax.set_xticks([index * (width + 1) + width / 2 - 0.5 for index in ticks], across)
    ax.set_yticks([(n - 1 - index) * (height + 1) + height / 2 - 0.5 for index in ticks], down)
    ax.tick_params(length=0)
    ax.set(xlabel=f"{latent}[0]", ylabel=f"{latent}[1]")
    return ax


@one_at_a_time
def traversals(
    pair: LatentVariableModel,
    x: Any,
    *,
    name: str = "x",
    latent: str = "z",
    rows: int = 8,
    steps: int = 11,
    span: float = 3.0,
    labels: Sequence[str] | None = None,
    are_images: bool | None = None,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Changes of x while one element of a latent varies and the others stay at a datum's mean.

    The elements whose posterior means vary most over the data come first. Images are drawn as a
    grid with one row per element; other data as lines, for the first element only.

    Args:
        pair: the pair.
        x: the data; the first of them is the one whose latent is varied.
        name: the variable to draw.
        latent: which latent.
        rows: how many elements of the latent.
        steps: how many values of each element.
        span: values run from the prior's quantile at −span to that at span, as of N(0, 1); for a
            Gaussian prior, this number of standard deviations from its mean.
        labels: names of the elements of x, such as the columns of a table.
        are_images: whether x holds images; by default if it has a height and a width, or is a
            vector whose length is a square of at least 49.
        seed: of what is drawn.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        ValueError: no such latent, or one whose elements have no quantiles under the prior.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> vae = pg.models.VAE(x=pg.Normal(3), z=pg.Normal(2), hidden=(4,))
        >>> ax = pg.plots.traversals(vae, torch.randn(10, 3))
        >>> len(ax.lines)  # one line per element of x
        3
    """
    traversal = traverse(
        pair, named_data(x, name), latent, name,
        rows=rows, steps=steps, span=span, seed=seed, owner="traversals",
    )  # fmt: skip
    if are_images is None:
        field = x.fields.get(name) if isinstance(x, Dataset) else None
        are_images = (
            looks_like_images(traversal.means.shape[1:]) if field is None else field.is_images
        )
    if are_images:
        return _draw_traversal_images(traversal, latent, limits_of(pair, name), ax)
    return _draw_traversal_lines(traversal, latent, name, labels, ax)


def _draw_traversal_images(
    traversal: Traversal, latent: str, limits: tuple[float, float] | None, ax: Axes | None
) -> Axes:
    """A row of images per element."""
    values, normal, steps = traversal.values, traversal.normal, len(traversal.normal)
    ax = images(traversal.means, columns=steps, limits=limits, ax=ax)
    height, width = as_images(traversal.means).shape[1:]
    places = [row * (height + 1) + height / 2 - 0.5 for row in range(len(traversal.elements))]
    ax.set_yticks(places, [f"{latent}[{int(element)}]" for element in traversal.elements])
    ticks = [0, steps // 2, steps - 1]
    # With the same values one axis is enough for all rows.
    same_values = bool(torch.allclose(values, values[:, :1]))
    if same_values and not torch.equal(values[:, 0], normal):
        words = _rounded(values[ticks, 0])
    else:
        shown = values[:, 0] if same_values else normal
        words = [f"{round(float(shown[index]), 1) + 0.0:g}" for index in ticks]
    ax.set_xticks([index * (width + 1) + width / 2 - 0.5 for index in ticks], words)
    ax.tick_params(length=0)
    value = f"value of the element of {latent}"
    quantile = f"quantile of the prior of the element of {latent}, as of N(0, 1)"
    ax.set(xlabel=value if same_values else quantile)
    ax.set_title(f"One element of {latent} varied, the others at a datum's mean")
    return ax


def _draw_traversal_lines(
    traversal: Traversal, latent: str, name: str, labels: Sequence[str] | None, ax: Axes | None
) -> Axes:
    """Lines of the ten elements of x that change most with the first element of the latent."""
    ax = axes(ax)
    lines = traversal.means[: len(traversal.normal)].flatten(1)
    change = lines.max(0).values - lines.min(0).values
    most = change.argsort(descending=True, stable=True)[:10]
    for element, colour in zip(most.sort().values, palette(), strict=False):
        label = element_label(name, int(element), labels)
        ax.plot(traversal.values[:, 0], lines[:, element], color=colour, label=label)
    varied = f"{latent}[{int(traversal.elements[0])}]"
    ax.set(xlabel=varied, ylabel=f"mean of {name}")
    ax.set_title(f"{varied} varied, the others at a datum's mean")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def _rounded(values: Tensor) -> list[str]:
    """Numbers with as many decimal places as are needed to distinguish them."""
    between = float(values.max() - values.min())
    places = max(1, 1 - math.floor(math.log10(between))) if between > 0 else 1
    return [f"{float(value):.{places}f}" for value in values]
