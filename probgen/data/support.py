"""Check that values have the shape of a variable and lie in its support."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from probgen.basics.user_warnings import warn
from probgen.variables import Variable

BLOCK = 4096
"""Rows that are checked at a time."""


def check_shape(value: Tensor, variable: Variable, name: str, owner: str, model: str) -> None:
    """Check that values have shape `(data, *event_shape)`.

    Raises:
        ValueError: they have another shape.
    """
    if value.dim() and value.shape[1:] == variable.event_shape:
        return
    hint = f"Reshape it, or declare {name} with the shape of the data."
    if value.shape == variable.event_shape:
        hint = "For a single datum, add a first dim of size one."
    expected = ", ".join(["data", *map(str, variable.event_shape)])
    raise ValueError(
        f"{owner}: {name} has shape {tuple(value.shape)}, but {model} expects ({expected}), since "
        f"{name} is {variable!r}. {hint}"
    )


def check_support(
    value: Tensor,
    support: Any,
    name: str,
    owner: str,
    described: str,
    mask: Tensor | None = None,
    *,
    variable: Variable | None = None,
) -> None:
    """Check that all values are finite and in a distribution's support, except rows outside the mask.

    Args:
        value: shape `(data, *event_shape)`.
        support: a torch constraint, taken elementwise.
        name: the variable.
        owner: the function that messages name.
        described: the variable in words, as in `VAE is Bernoulli(784)`.
        mask: shape `(data,)`; rows where it is false are not checked.
        variable: the variable, whose own description of its possible values is used if it has one.

    Raises:
        ValueError: names how many data are wrong, the first of them, and what to do.
    """
    support = _elementwise(support)
    check_finite(value, name, owner, mask)
    rows = _wrong_rows(value, lambda part: support.check(_real(part)), mask)
    if rows is None:
        return
    checked = _real(value if mask is None else value[mask])
    expected, hint = (variable and variable.support_in_words(name)) or _expected(support, name)
    raise ValueError(
        f"{owner}: {name} has values outside its support (min {checked.min():.4g}, max "
        f"{checked.max():.4g}; first in row {int(rows.nonzero()[0])}), but {name} in {described}, which "
        f"takes {expected}. {hint}"
    )


def check_finite(value: Tensor, name: str, owner: str, mask: Tensor | None = None) -> None:
    """Check that there is no NaN and no infinity, except in rows outside the mask.

    Raises:
        ValueError: names how many data are wrong, the first of them, and what to do.
    """
    if not value.is_floating_point():
        return
    rows = _wrong_rows(value, torch.isfinite, mask)
    if rows is not None:
        raise ValueError(
            f"{owner}: {name} has NaN or infinite values in {int(rows.sum())} of {len(value)} "
            f"data, the first in row {int(rows.nonzero()[0])}. Drop those rows, or fill in their values."
        )


def check_range(
    value: Tensor, dtype: torch.dtype, name: str, owner: str, mask: Tensor | None = None
) -> None:
    """Check that a narrower type can hold the values.

    Raises:
        ValueError: some would become infinite.
    """
    largest = torch.finfo(dtype).max
    if not value.is_floating_point() or torch.finfo(value.dtype).max <= largest:
        return
    rows = _wrong_rows(value, lambda part: part.abs() <= largest, mask)
    if rows is not None:
        raise ValueError(
            f"{owner}: {name} has values beyond {largest:.3g}, the largest that {dtype} holds, in "
            f"{int(rows.sum())} of {len(value)} data, the first in row {int(rows.nonzero()[0])}. Divide {name} "
            'by its scale, as pg.Dataset.standardized does, or use precision="float64".'
        )


def _real(value: Tensor) -> Tensor:
    return value if value.is_floating_point() else value.double()


def _wrong_rows(
    value: Tensor, right: Callable[[Tensor], Tensor], mask: Tensor | None
) -> Tensor | None:
    """Which rows have a wrong element, or `None` where none has."""
    # In blocks, since masks of all the data would take as much memory as the data.
    blocks = [~right(block).reshape(len(block), -1).all(1) for block in value.split(BLOCK)]
    rows = torch.cat(blocks)
    if mask is not None:
        rows = rows & mask
    return rows if bool(rows.any()) else None


def _expected(support: Any, name: str) -> tuple[str, str]:
    if support is constraints.boolean:
        return (
            "only 0 and 1",
            f"Binarize it (pg.Dataset.binarized), or declare {name}=pg.Normal(...).",
        )
    if isinstance(support, type(constraints.integer_interval(0, 1))):
        return (
            f"whole numbers {int(support.lower_bound)}..{int(support.upper_bound)}",
            "Recode the classes, or declare as many as the data have. Mark unknown labels by "
            "pg.Dataset(..., observed={...: mask}).",
        )
    return f"values that satisfy {support}", f"Transform {name}, or choose another family."


def warn_coarse(value: Tensor, name: str, owner: str) -> None:
    """Warn of values whose differences float32 rounds off.

    These are elements at whose size float32 numbers are more than a thousandth of their standard deviation
    apart, such as timestamps in seconds: a minute of them is one float32 number. Constant elements pass.

    Args:
        value: finite, shape `(data, *event_shape)`, as it was given.
        name: the variable.
        owner: the function that messages name.
    """
    flat = value.reshape(len(value), -1)
    if value.dtype in (torch.bool, torch.uint8) or not flat.numel():
        return
    low, high = (edge.double() for edge in flat.aminmax(dim=0))
    size = torch.maximum(low.abs(), high.abs())
    step = torch.exp2(torch.log2(size).floor() - 23)
    # No standard deviation is below range / sqrt(2 n), so most elements pass without computing it.
    candidates = (high > low) & (1000 * step > (high - low) / math.sqrt(2 * len(flat)))
    columns = candidates.nonzero().flatten()
    if not len(columns):
        return
    scale = flat[:, columns].double().std(0, correction=0)
    coarse = 1000 * step[columns] > scale
    if not bool(coarse.any()):
        return
    first = columns[coarse][0]
    warn(
        f"{owner}: float32 is too coarse for {int(coarse.sum())} of {flat.shape[1]} elements of {name}, the "
        f"first is number {int(first)} (counted from 0): its values reach {size[first]:.4g}, where numbers "
        f"are {step[first]:.3g} apart, and their standard deviation is {scale[coarse][0]:.3g}. Standardize "
        'them, which is done in float64: pg.load(..., transform="standardize"), or '
        'pg.Dataset(...).standardized(). Or use precision="float64".'
    )


def is_class(variable: Variable | None) -> bool:
    """Whether a variable is a class, so that its values are integers."""
    return variable is not None and variable.is_class


def is_binary(variable: Variable) -> bool:
    """Whether the values of a variable are 0 or 1, so that their mean is a probability."""
    return _elementwise(variable.support) is constraints.boolean


def _elementwise(support: Any) -> Any:
    """The constraint on one element, given that on a whole event."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def convert(value: Tensor, variable: Variable | None, dtype: torch.dtype) -> Tensor:
    """Convert classes to integers and other values to the dtype; without a variable, integers stay."""
    if variable is None:
        keep = not value.is_floating_point() and value.dtype != torch.bool
        return value if keep else value.to(dtype)
    return value.long() if is_class(variable) else value.to(dtype)
