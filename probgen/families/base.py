"""The base class of all families: a distribution and the shape of one event."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

LARGEST_SIZE = 10**9
"""Sizes that are read from text must be below this number."""


def as_int(value: Any) -> int:
    """A whole number as a plain int, whatever its class.

    The arguments of a variable are written into the source of declared pairs, which is run. The
    repr of another class of numbers could contain any code.

    Raises:
        TypeError: a bool, or not a whole number.
    """
    if isinstance(value, bool):
        raise TypeError(f"expected an int, got {value!r}")
    return operator.index(value)


def _as_shape(event_shape: int | Sequence[int], owner: str) -> torch.Size:
    sizes = event_shape if isinstance(event_shape, Sequence) else (event_shape,)
    try:
        if isinstance(sizes, (str, bytes)):
            raise TypeError(f"expected sizes, got {sizes!r}")
        shape = torch.Size([as_int(size) for size in sizes])
    except TypeError:
        raise TypeError(
            f"{owner}: event_shape must be an int or a tuple of ints, got {event_shape!r}."
        ) from None
    if any(size < 1 for size in shape):
        raise ValueError(f"{owner}: every size must be at least 1, got {event_shape!r}.")
    return shape


class Variable:
    """A random variable: a family of distributions and the shape of one event.

    It holds no parameters and no data. A subclass is a family: it defines which distribution the
    outputs of a network parametrize, and overrides other defaults if they do not fit.

    Args:
        event_shape: shape of one datum, an int for a vector; `()` is a scalar.

    Attributes:
        num_outputs: how many tensors of the event's shape parametrize the distribution.
        discrete: whether log-probabilities are of a mass rather than of a density.
        is_class: whether values index classes, and so are integers.

    Raises:
        TypeError: the shape does not consist of integers.
        ValueError: the shape has a size below one.

    Example:
        >>> import pyro.distributions as dist, torch, probgen as pg
        >>> class Laplace(pg.Variable):
        ...     '''Independent Laplace elements of scale 1; networks return the location.'''
        ...     def distribution(self, loc):
        ...         return dist.Laplace(loc, torch.ones_like(loc))
        >>> Laplace(3).output_shape
        torch.Size([1, 3])
        >>> _ = torch.manual_seed(0)
        >>> pair = pg.declare("p(z) p(x | z)", "q(z | x)", z=pg.Normal(2), x=Laplace(3))
        >>> pair.sample(5)["x"].shape
        torch.Size([5, 3])
    """

    num_outputs: int = 1
    discrete: ClassVar[bool] = False
    is_class: ClassVar[bool] = False

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        self.event_shape = _as_shape(event_shape, type(self).__name__)

    # ------------------------------------------------------------ the distribution

    def distribution(self, *outputs: Any, **named: Any) -> TorchDistributionMixin:
        """The distribution that `num_outputs` tensors of shape `(..., *event_shape)` parametrize.

        Elements of the event are independent given the outputs: the batch shape returned is
        `(..., *event_shape)`, and the `Conditional` makes the last dims an event.
        """
        raise TypeError(f"{type(self).__name__} must define distribution(self, *outputs).")

    def parametrized(self, outputs: Tensor) -> TorchDistributionMixin:
        """The distribution for network outputs of shape `(..., *output_shape)`."""
        return self.distribution(*outputs.unbind(-1 - len(self.event_shape)))

    @property
    def output_shape(self) -> torch.Size:
        """Shape of what a network returns for one datum, `(num_outputs, *event_shape)`."""
        return torch.Size((self.num_outputs, *self.event_shape))

    @property
    def shared_shape(self) -> torch.Size | None:
        """Shape of a further learned output that is the same for all data; `None` if there is none."""
        return None

    @property
    def input_shape(self) -> torch.Size:
        """Shape in which one datum enters a network; a scalar enters as one feature."""
        return self.event_shape or torch.Size((1,))

    def embed(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """A value of shape `(..., *event_shape)` as network input `(..., *input_shape)`."""
        if not self.event_shape:
            value = value.unsqueeze(-1)
        return value.to(dtype)

    def inferred(self) -> Variable:
        """The same variable as a guide infers it: every parameter comes from the network."""
        return self

    # ------------------------------------------------------------ data

    @property
    def support(self) -> Any:
        """The constraint that values must satisfy, elementwise."""
        return self.parametrized(torch.zeros(self.output_shape)).support

    def support_in_words(self, name: str) -> tuple[str, str] | None:
        """What values are possible, and what to do with others, for the message that refuses data.

        Args:
            name: of the variable.

        Returns:
            Two texts such as `("only 0 and 1", "Binarize x.")`, or `None`, the default: words for
            the constraint.
        """
        return None

    @classmethod
    def fits_data(cls, values: Tensor) -> int:
        """How well this family fits values; if the user names none, the largest number wins.

        Args:
            values: shape `(data, *event_shape)`.

        Returns:
            0, the default, if the family is never chosen automatically.
        """
        return 0

    def reconstruction(self, distribution: Any) -> Tensor:
        """What pictures show of a distribution of this family; by default its mean.

        Raises:
            NotImplementedError: the distribution has no mean in closed form.
        """
        return distribution.mean

    # ------------------------------------------------------------ as text

    def arguments(self) -> dict[str, Any]:
        """The arguments from which this variable can be built again."""
        return {"event_shape": tuple(self.event_shape)}

    def text_parts(self) -> list[str]:
        """What follows the family's name in the variable's text: `["8"]` of `bernoulli:8`."""
        return [shape_text(self.event_shape)]

    @classmethod
    def from_text_parts(cls, parts: Sequence[str], values: Tensor | None = None) -> Variable:
        """Build the variable from what follows the family's name in its text.

        Args:
            parts: such as `["8"]` of `bernoulli:8`.
            values: data of the variable, `(data, *event_shape)`, whose shape is taken if the
                text has none.

        Raises:
            ValueError: the parts cannot be read; the message names one.
        """
        (shape,) = checked_parts(parts, 1)
        return cls(read_shape(shape, values))

    def __repr__(self) -> str:
        arguments = self.arguments()
        shape = tuple(arguments.pop("event_shape", ()))
        shown = [str(shape[0]) if len(shape) == 1 else str(shape)]
        shown += [f"{name}={value!r}" for name, value in arguments.items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))


# ---------------------------------------------------------------- parts of a text


def checked_parts(parts: Sequence[str], count: int) -> list[str]:
    """The parts of a text, with empty ones added up to a count.

    Raises:
        ValueError: more parts.
    """
    if len(parts) > count:
        raise ValueError(f"{parts[-1]!r} is one part too many")
    return [*parts, *[""] * (count - len(parts))]


def shape_text(shape: Sequence[int]) -> str:
    """A shape as text: `8`, `1x28x28`, `scalar`."""
    return "x".join(map(str, shape)) or "scalar"


def read_shape(text: str, values: Tensor | None = None) -> tuple[int, ...]:
    """The shape in a text, or, if the text is empty, that of the data.

    Raises:
        ValueError: neither a shape nor data, or sizes that are not whole numbers from 1.
    """
    if not text and values is not None:
        return tuple(values.shape[1:])
    if not text:
        raise ValueError("it needs its shape, such as normal:8 or normal:1x28x28")
    return () if text == "scalar" else tuple(read_size(part) for part in text.split("x"))


def read_size(text: str) -> int:
    """A size from text.

    Raises:
        ValueError: it is not a whole number from 1.
    """
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:12]) < LARGEST_SIZE:
        raise ValueError(f"{text!r} is not a size; sizes are whole numbers from 1, joined by x")
    return int(text)
