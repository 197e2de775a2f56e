"""Pictures of data, training and latents. Every function takes `ax=` and returns the axes it drew on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probgen.checks import is_class
from probgen.contexts import evaluation
from probgen.data import Dataset
from probgen.inference.posterior import encode, reconstruct
from probgen.inference.results import FitResult
from probgen.pair import LatentVariableModel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NATS = "nats a datum"


def learning_curve(result: FitResult, *, ax: Axes | None = None) -> Axes:
    """Training and validation ELBO against epochs, the epoch kept marked.

    The axis is cut where the first epochs, which say nothing, would hide the rest.
    """
    ax = _axes(ax)
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
    top = max(max(c) for c in curves)
    margin = 0.05 * (top - late.min()) or 1.0
    ax.set_ylim(late.min() - margin, top + margin)
    ax.set(xlabel="epoch", ylabel=f"ELBO ({NATS})", title=f"Learning curve of {result.pair.name}")
    ax.legend(frameon=False)
    return ax


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
    ax = _axes(ax)
    array = _as_images(x)
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
    data = _by_name(x, name)
    means = reconstruct(pair, data, seed=seed)[name]
    originals, copies = _as_images(data[name]), _as_images(means)
    blocks = []
    for start in range(0, len(originals), columns):
        for part in (originals, copies):
            block = part[start : start + columns]
            blank = np.full((columns - len(block), *block.shape[1:]), np.nan)
            blocks.append(np.concatenate([block, blank]))
    limits = (float(originals.min()), float(originals.max()))
    title = "Data (odd rows) and reconstructions (even rows)"
    return images(np.concatenate(blocks), columns=columns, title=title, limits=limits, ax=ax)


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
            pixels = factor(**{parent: known[parent] for parent in factor.parents}).mean
    if given:
        pixels = pixels.flatten(0, 1)
    title = f"Means of p({name} | ...) for {len(pixels)} draws from the prior of {pair.name}"
    return images(pixels.cpu(), columns=columns, title=title, limits=limits, ax=ax)


def latent_scatter(
    pair: LatentVariableModel,
    x: Any,
    labels: Sequence[int] | Tensor | np.ndarray[Any, Any],
    *,
    name: str = "x",
    latent: str = "z",
    ax: Axes | None = None,
) -> Axes:
    """Posterior means of a latent, coloured by class; their first two principal components where
    the latent has more than two dims."""
    ax = _axes(ax)
    kinds = np.asarray(labels)
    data = _by_name(x, name)
    size = len(data[name])
    latents = encode(pair, data)
    if kinds.shape != (size,) or latent not in latents:
        raise ValueError(
            f"latent_scatter: needs one label a datum and a latent among {', '.join(latents)}, got "
            f"labels of shape {kinds.shape} for {size} data, and latent={latent!r}."
        )
    means = latents[latent].flatten(1).double()
    xlabel, ylabel = f"{latent}[0]", f"{latent}[1]"
    if means.shape[1] == 1:
        means = torch.cat([means, torch.zeros_like(means)], 1)
        ylabel = ""
    elif means.shape[1] > 2:
        means = means - means.mean(0)
        _, stretch, directions = torch.linalg.svd(means, full_matrices=False)
        share = (stretch**2 / (stretch**2).sum())[:2]
        means = means @ directions[:2].T
        xlabel = f"first principal component ({share[0]:.0%} of the variance)"
        ylabel = f"second principal component ({share[1]:.0%})"
    palette = _palette()
    for index, kind in enumerate(np.unique(kinds)):
        chosen = means[torch.from_numpy(kinds == kind)]
        colour = palette[index % len(palette)]
        ax.scatter(chosen[:, 0], chosen[:, 1], s=9, color=colour, label=str(kind), linewidths=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=f"Posterior means of {latent} under {pair.name}")
    ax.legend(
        title="class", frameon=False, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    return ax


def _by_name(x: Any, name: str) -> Any:
    """A Dataset or dict as it is; one array under the variable's name."""
    return x if isinstance(x, (Dataset, Mapping)) else {name: x}


def _as_images(x: Tensor | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
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


def _palette() -> list[Any]:
    import matplotlib

    return list(matplotlib.colormaps["tab10"].colors)  # type: ignore[attr-defined]


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(6.4, 4.2), layout="constrained")[1]
