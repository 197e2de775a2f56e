"""Means of the model while a latent varies, over a plane or by element, or while the class does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probgen.data.dataset import Dataset
from probgen.inference.queries.classification import class_probabilities
from probgen.inference.queries.decode import decode
from probgen.inference.queries.posterior import encode
from probgen.inference.queries.prior_quantiles import prior_quantiles
from probgen.pair import LatentVariableModel
from probgen.variables import Categorical


@dataclass(frozen=True)
class LatentGrid:
    """Means of x over a plane of latents, in cells of equal prior probability.

    Attributes:
        quantiles: values of the latent's two elements in the middle of each column and row of
            cells, ascending, shape `(n, 2)`.
        means: of x, row by row from the largest value of the second element to the smallest,
            shape `(n * n, *event_shape)`.
    """

    quantiles: Tensor
    means: Tensor


@dataclass(frozen=True)
class Traversal:
    """Means of x while one element of a latent varies and the others stay at a datum's mean.

    Attributes:
        elements: indices of the elements that vary, those whose posterior means vary most first,
            shape `(rows,)`.
        normal: the quantiles visited, given as those of N(0, 1), shape `(steps,)`.
        values: the value of each element there, shape `(steps, rows)`.
        means: of x, shape `(rows * steps, *event_shape)`, steps of an element next to each other.
    """

    elements: Tensor
    normal: Tensor
    values: Tensor
    means: Tensor


def latent_grid(
    pair: LatentVariableModel, latent: str, name: str, n: int, given: Mapping[str, Any], *,
    seed: int = 0, owner: str = "latent_grid",
) -> LatentGrid:  # fmt: skip
    """Means of a variable over a grid of a latent with two elements.

    Args:
        pair: the pair.
        latent: a latent of two elements, each with quantiles under the prior.
        name: the variable.
        n: cells in each direction.
        given: variables to condition on, one datum each, by name.
        seed: of the other variables that the model draws.
        owner: the function that error messages name.

    Raises:
        ValueError: the latent does not have two elements, or its prior depends on another variable.
    """
    variable = pair.variables.get(latent)
    if variable is None or variable.event_shape.numel() != 2 or pair.factors("p")[latent].parents:
        raise ValueError(
            f"{owner}: needs a latent of two elements whose prior depends on no other variable, got "
            f"{latent!r}, {variable!r}. latent_scatter and traversals draw other latents."
        )
    normal = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(n) + 0.5) / n)
    one = {key: _repeated(value, 1) for key, value in given.items()}
    quantiles = prior_quantiles(pair, latent, normal, one, seed=seed, owner=owner).reshape(n, 2)
    down, across = torch.meshgrid(quantiles[:, 1].flip(0), quantiles[:, 0], indexing="ij")
    grid = torch.stack([across, down], -1).reshape(n * n, *variable.event_shape)
    fixed = {key: _repeated(value, n * n) for key, value in given.items()}
    return LatentGrid(
        quantiles, decode(pair, name, {latent: grid, **fixed}, seed=seed, owner=owner)
    )


def traverse(
    pair: LatentVariableModel, data: Dataset | Mapping[str, Any], latent: str, name: str, *,
    rows: int, steps: int, span: float, seed: int = 0, owner: str = "traverse",
) -> Traversal:  # fmt: skip
    """Vary the elements of a latent one at a time, from the latent of the first datum.

    Args:
        pair: the pair.
        data: by name; the first datum is the one whose latent is varied.
        latent: which latent.
        name: the variable whose mean is taken.
        rows: how many elements of the latent, those whose posterior means vary most over
            the data.
        steps: how many values of each.
        span: values run from the prior's quantile at −span to that at span, as of N(0, 1).
        seed: of what is drawn.
        owner: the function that error messages name.

    Raises:
        ValueError: no such latent, or one whose elements have no quantiles under the prior.
    """
    latents = encode(pair, data, seed=seed)
    if latent not in latents or latent in pair.summed_names:
        raise ValueError(f"{owner}: no latent {latent!r} among {', '.join(latents)}.")
    means = latents[latent]
    flat = means.flatten(1)
    order = flat.std(0, correction=0).argsort(descending=True, stable=True)[:rows]
    others = data.values if isinstance(data, Dataset) else data
    given_data = {key: torch.as_tensor(value) for key, value in others.items()}
    given_data = {
        key: value for key, value in given_data.items() if key != name and key in pair.variables
    }
    upper = {n: m for n, m in latents.items() if n != latent and n not in pair.summed_names}
    one = {key: value[:1] for key, value in {**upper, **given_data}.items()}
    normal = torch.linspace(-span, span, steps)
    quantiles = prior_quantiles(pair, latent, normal, one, seed=seed, owner=owner)
    values = quantiles.flatten(1)[:, order]
    varied = flat[0].repeat(len(order), steps, 1)
    for row, element in enumerate(order):
        varied[row, :, element] = values[:, row]
    varied = varied.reshape(-1, *means.shape[1:])
    fixed = {key: _repeated(value[:1], len(varied)) for key, value in given_data.items()}
    decoded = decode(pair, name, {latent: varied, **fixed}, seed=seed, owner=owner)
    return Traversal(order, normal, values, decoded)


def means_of_all_classes(
    pair: LatentVariableModel, data: Dataset | Mapping[str, Any], y: Any = None, *,
    name: str = "x", label: str = "y", latent: str | None = None, seed: int = 0,
    owner: str = "means_of_all_classes",
) -> Tensor:  # fmt: skip
    """The mean of x for every class, with the style that was inferred for each datum.

    Args:
        pair: a pair with a scalar class that the style does not depend on.
        data: the data by name.
        y: their classes; by default the most probable ones.
        name: the variable x.
        label: the class.
        latent: the style; by default the last latent of the guide whose prior has no parents.
        seed: of what is drawn.
        owner: the function that error messages name.

    Returns:
        Shape `(data * classes, *event_shape)`, the classes of a datum next to each other.

    Raises:
        ValueError: no scalar class, or a style that depends on it.
    """
    variable, factors = pair.variables.get(label), pair.factors("p")
    if not isinstance(variable, Categorical) or variable.event_shape:
        raise ValueError(f"{owner}: {pair.name} has no scalar class {label!r}, got {variable!r}.")
    num_classes, x = variable.num_classes, torch.as_tensor(data[name])
    if y is None:
        classes = class_probabilities(pair, data, label=label, seed=seed).argmax(1)
    else:
        classes = torch.as_tensor(y)
    alone = data.only(name) if isinstance(data, Dataset) else Dataset({name: x})
    latents = encode(pair, alone.with_values({label: classes}), seed=seed)
    roots = [n for n in latents if n in factors and not factors[n].parents]
    style = latent or (roots[-1] if roots else "z")
    if style not in latents or factors[style].parents:
        raise ValueError(
            f"{owner}: the style must be a latent whose prior depends on no other variable, such as "
            f"{', '.join(roots) or 'z'}, got {style!r}."
        )
    given = {
        style: latents[style].repeat_interleave(num_classes, 0),
        label: torch.arange(num_classes).repeat(len(x)),
    }
    return decode(pair, name, given, seed=seed, latents_at_means=True, owner=owner)


def _repeated(value: Any, n: int) -> Tensor:
    tensor = torch.as_tensor(value)
    return tensor.expand(n, *tensor.shape[1:])
