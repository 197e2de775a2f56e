"""Pictures of latents: where data lie, what a plane of latents means, what each latent changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.basics.settings import evaluation, fixed_seed
from probgen.data.dataset import Dataset
from probgen.data.field import looks_like_images
from probgen.data.support import is_class
from probgen.inference.queries.posterior import encode, mean_of
from probgen.pair import LatentVariableModel
from probgen.plots.images import as_images, by_name, images, limits_of
from probgen.plots.priors import placed_beside, prior_quantiles
from probgen.plots.style import axes, palette, short_names

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
    """Posterior means of a latent, coloured by class; their first two principal components where
    the latent has more than two elements.

    Args:
        pair: the pair.
        x: the data; or, for a pair of several data variables, a Dataset or dict by name.
        labels: the class of each datum, shape `(data,)`; by default all have one colour.
        name: the variable that `x` is.
        latent: which latent.
        ax: where to draw.

    Raises:
        ValueError: no such latent, or not one label a datum.
    """
    ax = axes(ax)
    data = by_name(x, name)
    size = len(data[name])
    kinds = np.zeros(size, int) if labels is None else np.asarray(labels)
    latents = encode(pair, data)
    if kinds.shape != (size,) or latent not in latents:
        raise ValueError(
            f"latent_scatter: needs one label a datum and a latent among {', '.join(latents)}, got "
            f"labels of shape {kinds.shape} for {size} data, and latent={latent!r}."
        )
    means = latents[latent].flatten(1).double().numpy()
    xlabel, ylabel = f"{latent}[0]", f"{latent}[1]"
    if means.shape[1] == 1:
        means = np.concatenate([means, np.zeros_like(means)], 1)
        ylabel = ""
        ax.set_yticks([])
    elif means.shape[1] > 2:
        centre, directions, share = principal_plane(means)
        means = (means - centre) @ directions
        xlabel = f"first principal component ({share[0]:.0%} of the variance)"
        ylabel = f"second principal component ({share[1]:.0%})"
    colours, different = palette(), np.unique(kinds)
    beside = 1 + (len(different) - 1) // 18  # as many lines as fit beside the picture
    names = short_names(list(different), 24 if beside == 1 else 30 // beside)
    for index, kind in enumerate(different):
        chosen = means[kinds == kind]
        colour = colours[index % len(colours)]
        marker = "ov^sD"[index // len(colours) % 5]
        ax.scatter(
            chosen[:, 0], chosen[:, 1], s=9, color=colour, marker=marker, label=names[index],
            linewidths=0,
        )  # fmt: skip
    ax.set(xlabel=xlabel, ylabel=ylabel, title=f"Posterior means of {latent} under {pair.name}")
    if labels is not None:
        ax.legend(
            title="class", frameon=False, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5),
            ncols=beside, fontsize=None if beside == 1 else "small", columnspacing=1.0,
            handletextpad=0.2,
        )  # fmt: skip
    return ax


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
    """Means of x over a grid of a latent with two elements, a cell for each equal share of its prior.

    Args:
        pair: the pair.
        latent: a latent of two elements, each with quantiles under the prior, such as a Gaussian or a
            log-normal.
        name: the variable to draw, images.
        n: cells a side.
        seed: of what else the model draws.
        ax: where to draw.
        **given: what to hold fixed, one datum each, such as `y=torch.tensor([3])`.

    Raises:
        ValueError: the latent has not two elements with a prior of their own, or x is no image.

    References:
        Kingma and Welling, 2014, "Auto-encoding variational Bayes", figure 4.
    """
    variable = pair.variables.get(latent)
    if variable is None or variable.event_shape.numel() != 2 or pair.factors("p")[latent].parents:
        raise ValueError(
            f"manifold: needs a latent of two elements with a prior of its own, got {latent!r}, "
            f"{variable!r}; latent_scatter and traversals draw others."
        )
    normal = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(n) + 0.5) / n)
    one = {key: _repeated(value, 1) for key, value in given.items()}
    quantiles = prior_quantiles(pair, latent, normal, one, seed=seed, owner="manifold").reshape(
        n, 2
    )
    down, across = torch.meshgrid(quantiles[:, 1].flip(0), quantiles[:, 0], indexing="ij")
    grid = torch.stack([across, down], -1).reshape(n * n, *variable.event_shape)
    held = {key: _repeated(value, n * n) for key, value in given.items()}
    pixels = means_given(pair, name, {latent: grid, **held}, seed)
    ax = images(pixels, columns=n, limits=limits_of(pair, name), ax=ax)
    also = "".join(
        f"{key}={int(value)}, "
        for key, value in given.items()
        if torch.as_tensor(value).numel() == 1
    )
    title = (
        f"Means of p({name} | {also}{latent}) of {pair.name}, {n} x {n} cells of equal probability"
    )
    ax.set(xlabel=f"{latent}[0]", ylabel=f"{latent}[1]", title=title)
    height, width = as_images(pixels).shape[1:]
    shown = [0, n // 4, n // 2, n - 1 - n // 4, n - 1]
    across_words, down_words = (_rounded(quantiles[shown, element]) for element in (0, 1))
    ax.set_xticks([index * (width + 1) + width / 2 - 0.5 for index in shown], across_words)
    ax.set_yticks(
        [(n - 1 - index) * (height + 1) + height / 2 - 0.5 for index in shown], down_words
    )
    ax.tick_params(length=0)
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
    """What changes when one element of a latent moves and the others stay at a datum's mean.

    The elements with the largest spread of posterior means over the data come first. Images make a
    grid, a row an element; other data make lines, for the first element alone.

    Args:
        pair: the pair.
        x: the data; the first of them is the one whose latent is varied.
        name: the variable to draw.
        latent: which latent.
        rows: how many elements of the latent.
        steps: how many values, from the quantile of −span to that of span.
        span: where the values end, as quantiles of the prior that a standard Gaussian has there: of a
            Gaussian prior so many standard deviations from its mean.
        labels: what the elements of x are called, such as the columns of a table.
        are_images: whether x holds images; by default where it has a height and a width, and for
            vectors of a square number of 49 elements or more.
        seed: of what is drawn.
        ax: where to draw.

    Raises:
        ValueError: no such latent, or one whose elements have no quantiles under the prior.
    """
    data = by_name(x, name)
    latents = encode(pair, data, seed=seed)
    if latent not in latents or latent in pair.summed_names:
        raise ValueError(f"traversals: no latent {latent!r} among {', '.join(latents)}.")
    means = latents[latent]
    flat = means.flatten(1)
    spread = flat.std(0, correction=0)
    order = spread.argsort(descending=True, stable=True)[:rows]
    others = data.values if isinstance(data, Dataset) else data
    known = {key: torch.as_tensor(value) for key, value in others.items()}
    known = {key: value for key, value in known.items() if key != name and key in pair.variables}
    upper = {n: m for n, m in latents.items() if n != latent and n not in pair.summed_names}
    one = {key: value[:1] for key, value in {**upper, **known}.items()}
    normal = torch.linspace(-span, span, steps)
    quantiles = prior_quantiles(pair, latent, normal, one, seed=seed, owner="traversals")
    values = quantiles.flatten(1)[:, order]
    moved = flat[0].repeat(len(order), steps, 1)
    for row, element in enumerate(order):
        moved[row, :, element] = values[:, row]
    moved = moved.reshape(-1, *means.shape[1:])
    held = {key: _repeated(value[:1], len(moved)) for key, value in known.items()}
    result = means_given(pair, name, {latent: moved, **held}, seed)
    if are_images is None:
        stated = (
            data.fields[name].images if isinstance(data, Dataset) and name in data.fields else None
        )
        are_images = looks_like_images(result.shape[1:]) if stated is None else stated
    if are_images:
        ax = images(result, columns=steps, limits=limits_of(pair, name), ax=ax)
        height, width = as_images(result).shape[1:]
        places = [row * (height + 1) + height / 2 - 0.5 for row in range(len(order))]
        ax.set_yticks(places, [f"{latent}[{int(element)}]" for element in order])
        shown = [0, steps // 2, steps - 1]
        alike = bool(torch.allclose(values, values[:, :1]))
        words = values[:, 0] if alike else normal
        ax.set_xticks(
            [index * (width + 1) + width / 2 - 0.5 for index in shown],
            [f"{round(float(words[index]), 1) + 0.0:g}" for index in shown]
            if not alike or torch.equal(values[:, 0], normal)
            else _rounded(values[shown, 0]),
        )
        ax.tick_params(length=0)
        ax.set(
            xlabel=f"value of the element of {latent}"
            if alike
            else f"quantile of the prior of the element of {latent}, as of N(0, 1)"
        )
        ax.set_title(f"One element of {latent} varied, the others at a datum's mean")
        return ax
    ax = axes(ax)
    lines = result[:steps].flatten(1)
    most = (lines.max(0).values - lines.min(0).values).argsort(descending=True, stable=True)[:10]
    for element, colour in zip(most.sort().values, palette(), strict=False):
        ax.plot(
            values[:, 0],
            lines[:, element],
            color=colour,
            label=element_label(name, int(element), labels),
        )
    ax.set(xlabel=f"{latent}[{int(order[0])}]", ylabel=f"mean of {name}")
    ax.set_title(f"{latent}[{int(order[0])}] varied, the others at a datum's mean")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def _rounded(values: Tensor) -> list[str]:
    """Numbers with as many places as tell them apart."""
    between = float(values.max() - values.min())
    places = max(1, 1 - math.floor(math.log10(between))) if between > 0 else 1
    return [f"{float(value):.{places}f}" for value in values]


class _AtMeans(Messenger):
    """Latents take their means in place of draws."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["done"] and not msg["is_observed"] and msg["fn"].has_rsample:
            msg["value"], msg["done"] = mean_of(msg["fn"], msg["name"], "picture of means"), True


@one_at_a_time
def means_given(
    pair: LatentVariableModel, name: str, given: dict[str, Tensor], seed: int = 0, *,
    at_means: bool = False,
) -> Tensor:  # fmt: skip
    """The means of a variable's distribution given others, shape `(data, *event_shape)`, on the CPU.

    Args:
        pair: the pair.
        name: the variable.
        given: tensors `(data, *event_shape)` by name.
        seed: of what else the model draws.
        at_means: the model's other continuous latents are at their means.

    Raises:
        ValueError: no such variable, or one made of classes.
    """
    like, placed = next(pair.parameters()), placed_beside(pair, given)
    others = _AtMeans() if at_means else nullcontext()
    with evaluation(pair), fixed_seed(seed, like.device), others:
        trace = poutine.trace(pair.model).get_trace(**placed)
    site = trace.nodes.get(name)
    if site is None or site["type"] != "sample":
        raise ValueError(f"{name!r} is no variable of {pair.name}.")
    if is_class(pair.variables.get(name)):
        raise ValueError(f"{name} is made of classes, which have no mean to draw.")
    return mean_of(site["fn"], name, "picture of means").float().cpu()


def element_label(name: str, element: int, labels: Sequence[str] | None) -> str:
    """What a legend calls an element: its label, cut to a legend's width, or its index."""
    if labels is None or element >= len(labels):
        return f"{name}[{element}]"
    return short_names(labels)[element]


def principal_plane(
    points: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centre, the first two principal directions as columns, and all shares of the variance."""
    centre = points.mean(0)
    _, stretch, directions = np.linalg.svd(points - centre, full_matrices=False)
    share = stretch**2 / max(float((stretch**2).sum()), 1e-300)
    return centre, directions[:2].T, share


def _repeated(value: Any, n: int) -> Tensor:
    tensor = torch.as_tensor(value)
    return tensor.expand(n, *tensor.shape[1:])
