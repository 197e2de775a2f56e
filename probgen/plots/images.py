"""Pictures of images: grids, reconstructions below the data, samples of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.data.dataset import Dataset
from probgen.data.support import is_binary
from probgen.inference.queries.decode import decode_draws
from probgen.inference.queries.posterior import reconstruct
from probgen.pair import LatentVariableModel
from probgen.plots.style import axes
from probgen.point_mass import point_masses

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@one_at_a_time
def images(
    x: Tensor | np.ndarray[Any, Any],
    *,
    columns: int | None = None,
    title: str = "",
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A grid of grey images.

    Args:
        x: shape `(n, pixels)` with square images, `(n, H, W)` or `(n, 1, H, W)`.
        columns: images in a row; by default the grid is as square as possible.
        title: of the picture.
        limits: values shown black and white; by default the 0.5 % and 99.5 % quantiles of `x`, so
            that a single extreme pixel does not make all others grey.
        ax: where to draw.

    Raises:
        ValueError: the values are not square images.

    Returns:
        The axes.

    Example:
        >>> import torch, probgen as pg
        >>> ax = pg.plots.images(torch.eye(16), columns=8, title="sixteen images")
        >>> ax.get_images()[0].get_array().shape  # 2 rows of 8 images of 4 x 4 pixels, with gaps
        (9, 39)
    """
    ax = axes(ax)
    array = as_images(x)
    columns = columns or math.ceil(math.sqrt(len(array)))
    rows = math.ceil(len(array) / columns)
    height, width = array.shape[1:]
    low, high = limits or np.nanquantile(array, [0.005, 0.995])
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for index, image in enumerate(array):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        canvas[top : top + height, left : left + width] = image
    ax.imshow(canvas, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    ax.set(xticks=[], yticks=[], title=title)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


@one_at_a_time
def reconstructions(
    pair: LatentVariableModel,
    x: Any,
    *,
    name: str = "x",
    columns: int = 10,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Images in the upper row of each pair of rows, their reconstructions below.

    Args:
        pair: the pair.
        x: the images; or, for a pair of several data variables, a Dataset or dict by name.
        name: the variable to draw.
        columns: images in a row.
        seed: of latents that are drawn.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        ValueError: data that do not fit the pair, or that are not images.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> vae = pg.models.VAE(x=pg.Bernoulli(16), z=pg.Normal(2), hidden=(4,))
        >>> pg.plots.reconstructions(vae, torch.eye(16)[:3]).get_title()
        'Data (odd rows) and reconstructions (even rows)'
    """
    data = named_data(x, name)
    means = reconstruct(pair, data, seed=seed)[name]
    return below_each_other(data[name], means, columns=columns, ax=ax)


def below_each_other(originals: Any, copies: Any, *, columns: int, ax: Axes | None = None) -> Axes:
    """Draw images in rows, and below each row the reconstructions of its images.

    Args:
        originals: the images.
        copies: their reconstructions, of the same shape.
        columns: images in a row.
        ax: where to draw.
    """
    originals, copies = as_images(originals), as_images(copies)
    blocks = []
    for start in range(0, len(originals), columns):
        for part in (originals, copies):
            block = part[start : start + columns]
            blank = np.full((columns - len(block), *block.shape[1:]), np.nan)
            blocks.append(np.concatenate([block, blank]))
    limits = (float(originals.min()), float(originals.max()))
    title = "Data (odd rows) and reconstructions (even rows)"
    return images(np.concatenate(blocks), columns=columns, title=title, limits=limits, ax=ax)


@one_at_a_time
def samples(
    pair: LatentVariableModel,
    *,
    n: int = 100,
    name: str = "x",
    columns: int | None = None,
    limits: tuple[float, float] | None = None,
    seed: int = 0,
    ax: Axes | None = None,
    **given: Any,
) -> Axes:
    """Images drawn from the model: latents from the prior, then the mean of x given them.

    Args:
        pair: the pair.
        n: how many draws; if something is given, of each of its rows.
        name: the variable to draw.
        columns: images in a row.
        limits: values shown black and white.
        seed: of the draws.
        ax: where to draw.
        **given: variables to condition on, such as `y=torch.arange(10)`.

    Returns:
        The axes.

    Raises:
        ValueError: no such variable, or a class.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> vae = pg.models.VAE(x=pg.Bernoulli(16), z=pg.Normal(2), hidden=(4,))
        >>> pg.plots.samples(vae, n=9).get_title()
        'Means of p(x | ...) for 9 draws from the prior of VAE'
    """
    factor = pair.factors("p").get(name)
    if factor is None or not factor.parents:  # no latent on which a mean could be conditioned
        drawn = pair.sample(n, seed=seed, **given)
        if name not in drawn:
            raise ValueError(f"samples: no variable {name!r} among {', '.join(drawn)}.")
        pixels, kind = drawn[name], f"Draws of {name}:"
    else:
        pixels = decode_draws(pair, n, name=name, seed=seed, owner="samples", **given)
        kind = f"Means of p({name} | ...) for"
    if given:
        pixels = pixels.flatten(0, 1)
    title = f"{kind} {len(pixels)} draws from the prior of {pair.name}"
    if name in point_masses(pair.factors("p")):
        title = f"{len(pixels)} samples of {pair.name}"
    return images(pixels.detach().cpu(), columns=columns, title=title, limits=limits, ax=ax)


def limits_of(pair: LatentVariableModel, name: str) -> tuple[float, float] | None:
    """Grey values of a mean: from 0 to 1 for binary data; `None`, limits by the values, for others."""
    return (0.0, 1.0) if is_binary(pair.variables[name]) else None


def named_data(x: Any, name: str) -> Any:
    """A Dataset or dict unchanged; a single array becomes a dict with the variable's name."""
    return x if isinstance(x, (Dataset, Mapping)) else {name: x}


def as_images(x: Tensor | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values as images `(n, height, width)`.

    Raises:
        ValueError: they are not images.
    """
    array = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, dtype=float)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2:
        side = math.isqrt(array.shape[1])
        if side * side == array.shape[1]:
            array = array.reshape(-1, side, side)
    if array.ndim != 3 or not len(array):
        raise ValueError(
            f"images: expected (n, pixels) with square images, (n, H, W) or (n, 1, H, W), got "
            f"shape {tuple(np.shape(x))}."
        )
    return array
