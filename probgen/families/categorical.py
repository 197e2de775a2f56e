"""Categorical variables, such as classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from probgen.families.base import (
    Variable,
    as_int,
    checked_parts,
    read_shape,
    read_size,
    shape_text,
)


class Categorical(Variable):
    """One of `num_classes` classes, coded 0, 1, ...; networks return logits.

    A scalar class (the default) is summed out exactly if it is missing. A network takes it as a
    one-hot vector.

    Args:
        num_classes: how many classes there are, at least two.
        event_shape: shape of one datum; `()`, the default, is one class per datum.

    Raises:
        TypeError: the number of classes is not an integer.
        ValueError: there are fewer than two classes.

    Example:
        >>> import torch, probgen as pg
        >>> y = pg.Categorical(10)
        >>> y.embed(torch.tensor([3]), torch.float32)
        tensor([[0., 0., 0., 1., 0., 0., 0., 0., 0., 0.]])
    """

    discrete = True
    is_class = True

    def __init__(self, num_classes: int, event_shape: int | Sequence[int] = ()) -> None:
        super().__init__(event_shape)
        try:
            self.num_classes = as_int(num_classes)
        except TypeError:
            raise TypeError(
                f"Categorical: num_classes must be an int, got {num_classes!r}."
            ) from None
        if self.num_classes < 2:
            raise ValueError(
                f"Categorical: num_classes must be at least 2, got {self.num_classes}."
            )
        self.num_outputs = self.num_classes

    def parametrized(self, outputs: Tensor) -> TorchDistributionMixin:
        """Outputs `(..., num_classes, *event_shape)` are logits, one per class."""
        return self.distribution(outputs.movedim(-1 - len(self.event_shape), -1))

    def distribution(self, logits: Tensor) -> TorchDistributionMixin:
        """A categorical with logits of shape `(..., *event_shape, num_classes)`."""
        return dist.Categorical(logits=logits)

    @property
    def input_shape(self) -> torch.Size:
        """One-hot: the event's shape and the classes."""
        return torch.Size((*self.event_shape, self.num_classes))

    def embed(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """One-hot code of integer classes."""
        return torch.eye(self.num_classes, dtype=dtype, device=value.device)[value.long()]

    def arguments(self) -> dict[str, Any]:
        """The number of classes and the event's shape."""
        return {"num_classes": self.num_classes, "event_shape": tuple(self.event_shape)}

    def text_parts(self) -> list[str]:
        """The number of classes, and the shape unless it is a scalar: `categorical:10`."""
        return [
            str(self.num_classes),
            *([shape_text(self.event_shape)] if self.event_shape else []),
        ]

    @classmethod
    def from_text_parts(cls, parts: Sequence[str], values: Tensor | None = None) -> Categorical:
        """Build the variable from a number of classes, by default that of the data, and a shape."""
        classes, shape = checked_parts(parts, 2)
        if not classes and values is None:
            raise ValueError("it needs its number of classes, such as categorical:10")
        count = int(values.max()) + 1 if values is not None and not classes else read_size(classes)
        return cls(count, read_shape(shape) if shape else ())

    def __repr__(self) -> str:
        shape = f", {tuple(self.event_shape)}" if self.event_shape else ""
        return f"{type(self).__name__}({self.num_classes}{shape})"


def as_class(variable: Variable, owner: str) -> Variable:
    """Return the variable, after a check that it is one class per datum.

    Raises:
        TypeError: it is not a scalar `Categorical`.
    """
    if not isinstance(variable, Categorical) or variable.event_shape:
        raise TypeError(
            f"{owner}: y must be a scalar pg.Categorical, such as pg.Categorical(10), got {variable!r}."
        )
    return variable
