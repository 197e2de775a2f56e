"""Pictures of images: grids, reconstructions beside inputs, draws from the prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.basics.settings import evaluation
from probgen.data.dataset import Dataset
from probgen.data.support import is_binary, is_class
from probgen.inference.queries.posterior import mean_of, reconstruct
from probgen.pair import LatentVariableModel
from probgen.plots.style import axes

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
        columns: images a row; by default as square as possible.
        title: of the picture.
        limits: values shown black and white; by default the 0.5 % and 99.5 % quantiles of `x`, so
            that a single extreme pixel does not grey out the rest.
        ax: where to draw.

    Raises:
        ValueError: the values are no square images.
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
        columns: images a row.
        seed: of latents that are drawn.
        ax: where to draw.
    """
    data = by_name(x, name)
    means = reconstruct(pair, data, seed=seed)[name]
    originals, copies = as_images(data[name]), as_images(means)
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
        n: how many draws; where something is given, of each of its rows.
        name: the variable to draw.
        columns: images a row.
        limits: values shown black and white.
        seed: of the draws.
        ax: where to draw.
        **given: what to hold fixed, such as `y=torch.arange(10)`.

    Raises:
        ValueError: no such variable, or one made of classes.
    """
    drawn = pair.sample(n, seed=seed, **given)
    if name not in drawn:
        raise ValueError(f"samples: no variable {name!r} among {', '.join(drawn)}.")
    factor = pair.factors("p").get(name)
    if factor is None or not factor.parents:
        pixels = drawn[name]
    else:
        if is_class(factor.variable):
            raise ValueError(f"samples: {name} is made of classes, which have no mean to draw.")
        with evaluation(pair):
            known = {k: torch.as_tensor(v) for k, v in given.items()} | drawn
            likelihood = factor(**{parent: known[parent] for parent in factor.parents})
            pixels = mean_of(likelihood, name, "samples")
    if given:
        pixels = pixels.flatten(0, 1)
    title = f"Means of p({name} | ...) for {len(pixels)} draws from the prior of {pair.name}"
    return images(pixels.cpu(), columns=columns, title=title, limits=limits, ax=ax)


def limits_of(pair: LatentVariableModel, name: str) -> tuple[float, float] | None:
    """Probabilities of ones are shown from 0 to 1; what is no probability has limits of its own."""
    return (0.0, 1.0) if is_binary(pair.variables[name]) else None


def by_name(x: Any, name: str) -> Any:
    """A Dataset or dict as it is; one array under the variable's name."""
    return x if isinstance(x, (Dataset, Mapping)) else {name: x}


def as_images(x: Tensor | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values as images `(n, height, width)`.

    Raises:
        ValueError: they are none.
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
