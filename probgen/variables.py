"""Variables: a family of distributions and the shape of one event.

A `Variable` says what one datum of a random variable looks like and which distribution the
outputs of a network parametrize. It holds no parameters and no data. A further family is a
subclass of ten lines:

    class Poisson(pg.Variable):
        discrete = True

        def distribution(self, log_rate: Tensor) -> TorchDistribution:
            return dist.Poisson(log_rate.exp())
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from probgen.basics.settings import is_capturing

SCALE_FLOOR = 1e-4
"""The smallest scale a `Normal` can have: keeps densities bounded and float32 gradients finite."""

SCALES = ("network", "shared", "isotropic")
"""Words for where a `Normal` has its scale from."""

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_UNIT_SCALE = math.log(math.expm1(1 - SCALE_FLOOR))  # a network that returns 0 has scale 1


def positive_scale(raw: Tensor) -> Tensor:
    """Map any real to a scale above `SCALE_FLOOR`: 0 to one, linear growth, so it cannot overflow."""
    return F.softplus(raw + _UNIT_SCALE) + SCALE_FLOOR


def raw_from_scale(scale: Tensor) -> Tensor:
    """The inverse of `positive_scale`, for scales above `SCALE_FLOOR`."""
    return torch.log(torch.expm1(scale - SCALE_FLOOR)) - _UNIT_SCALE


def as_int(value: Any) -> int:
    """A whole number as a plain int, whatever class it came in.

    What a variable holds is written into recipes and into the source of declared pairs, which runs:
    a class of numbers with a text of its own must not get there.

    Raises:
        TypeError: a bool, or no whole number.
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
            f"{owner}: event_shape must be an int or a tuple made of ints, got {event_shape!r}."
        ) from None
    if any(size < 1 for size in shape):
        raise ValueError(f"{owner}: every size must be at least 1, got {event_shape!r}.")
    return shape


class Variable:
    """A random variable: a family of distributions and the shape of one event.

    Args:
        event_shape: shape of one datum, an int for a vector; `()` is a scalar.

    Attributes:
        num_outputs: how many tensors of the event's shape parametrize the distribution.
        discrete: whether log-probabilities are of a mass rather than of a density.

    Raises:
        TypeError: the shape is not made of integers.
        ValueError: the shape has a size below one.
    """

    num_outputs: int = 1
    discrete: ClassVar[bool] = False

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        self.event_shape = _as_shape(event_shape, type(self).__name__)

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

    @property
    def support(self) -> Any:
        """The constraint that values must satisfy, elementwise."""
        return self.parametrized(torch.zeros(self.output_shape)).support

    def _arguments(self) -> str:
        sizes = tuple(self.event_shape)
        return str(sizes[0]) if len(sizes) == 1 else str(sizes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._arguments()})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))


class _NormalEvent(dist.Independent):
    """Independent Gaussian elements; the same number as elementwise in half the passes."""

    def log_prob(self, value: Tensor) -> Tensor:
        base, first = self.base_dist, -self.reinterpreted_batch_ndims
        z = ((value - base.loc) / base.scale).flatten(first)
        log_scale = base.scale.log().flatten(first).sum(-1)
        return -0.5 * (z * z).sum(-1) - log_scale - _HALF_LOG_2PI * z.shape[-1]


class _DiagonalNormal(dist.Normal):
    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> TorchDistributionMixin:
        return _NormalEvent(self, reinterpreted_batch_ndims)


class Normal(Variable):
    """A Gaussian with diagonal covariance.

    Args:
        event_shape: shape of one datum, an int for a vector.
        scale: where the standard deviation comes from. `"network"`: the network, for every
            datum anew; `"shared"`: learned, one for each element and the same for all data;
            `"isotropic"`: learned, one number for all elements and data; a number: fixed.
            Learned scales are positive by construction and never below `SCALE_FLOOR`: a network
            returns the mean and a raw scale of any sign, softplus of which (shifted so that 0
            gives 1) is the scale.

    Raises:
        ValueError: the scale is an unknown word, or not above zero.
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        scale: Literal["network", "shared", "isotropic"] | float = "network",
    ) -> None:
        super().__init__(event_shape)
        self.scale: str | float
        if isinstance(scale, str):
            self.scale = str.__str__(scale)
            if self.scale not in SCALES:
                raise ValueError(
                    f"Normal: scale={self.scale!r} is unknown; "
                    'use "network", "shared", "isotropic" or a number above 0.'
                )
        elif isinstance(scale, bool) or not isinstance(scale, Real):
            raise TypeError(f"Normal: scale must be a word or a number, got {scale!r}.")
        else:
            try:
                self.scale = float(scale)
            except OverflowError:
                self.scale = math.inf
            if not 0 < self.scale < float("inf"):
                raise ValueError(
                    f"Normal: a fixed scale must be finite and above 0, got {self.scale}."
                )
        self.num_outputs = 2 if self.scale == "network" else 1

    def distribution(self, loc: Tensor, raw_scale: Tensor | None = None) -> TorchDistributionMixin:
        """`N(loc, scale²)`; `raw_scale` is any real, or `None` where the scale is fixed."""
        if raw_scale is None:
            fixed = 1.0 if isinstance(self.scale, str) else self.scale
            return _DiagonalNormal(loc, torch.full_like(loc, fixed))
        return _DiagonalNormal(loc, positive_scale(raw_scale))

    def inferred(self) -> Normal:
        """A guide's Gaussian always takes its scale from the network."""
        return Normal(self.event_shape)

    def _arguments(self) -> str:
        scale = "" if self.scale == "network" else f", scale={self.scale!r}"
        return super()._arguments() + scale


class _BernoulliEvent(dist.Independent):
    """Independent Bernoulli elements whose log-probability is x · logits − Σ softplus(logits).

    The same number as the elementwise cross-entropy summed, in half the time: a datum that all
    particles share is never expanded.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        first = -self.reinterpreted_batch_ndims
        logits, value = self.base_dist.logits.flatten(first), value.flatten(first)
        if value.numel() < logits.numel() and not is_capturing():
            linear = torch.einsum("...d,...d->...", logits, value)
        else:
            linear = (logits * value).sum(-1)
        return linear - _softplus_sum(logits)


def _softplus_sum(logits: Tensor) -> Tensor:
    """Σ softplus over the last dim.

    Most of an evaluation after the matrix products. Without gradients on a CPU log(1 + exp) in
    place takes half of softplus's time; where it overflows, softplus is taken.
    """
    if logits.requires_grad and torch.is_grad_enabled():
        return F.softplus(logits).sum(-1)
    if is_capturing():
        # max(l, 0) + log(1 + exp(-|l|)): factors from 1 to 2, of which 64 multiply without overflow
        # before one logarithm, in columns of 16 that fill a vector register.
        count = logits.shape[-1] // 16
        if logits.shape[-1] % 16 == 0 and count <= 64:
            columns = logits.unflatten(-1, (count, 16))
            factors = (-columns.abs()).exp() + 1
            return (columns.clamp(min=0).sum(-2) + factors.prod(-2).log()).sum(-1)
    elif logits.device.type == "cpu":
        total = logits.exp().add_(1).log_().sum(-1)
        if bool(total.isfinite().all()):
            return total
    return F.softplus(logits).sum(-1)


class _LogitBernoulli(dist.Bernoulli):
    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> TorchDistributionMixin:
        return _BernoulliEvent(self, reinterpreted_batch_ndims)


class Bernoulli(Variable):
    """Independent binary elements, each 0 or 1; networks return logits.

    Args:
        event_shape: shape of one datum, an int for a vector; `()` is one scalar, which is summed
            out exactly where it is missing.
    """

    discrete = True

    def distribution(self, logits: Tensor) -> TorchDistributionMixin:
        """`Bernoulli(sigmoid(logits))`."""
        return _LogitBernoulli(logits=logits)


class Categorical(Variable):
    """One of `num_classes` classes, coded 0, 1, ...; networks return logits.

    A scalar class (the default) is summed out exactly where it is missing. As a parent it enters
    a network one-hot.

    Args:
        num_classes: how many classes there are, at least two.
        event_shape: shape of one datum; `()`, the default, is one class a datum.
    """

    discrete = True

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
        """Outputs `(..., num_classes, *event_shape)` are logits, the classes first."""
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

    def _arguments(self) -> str:
        shape = f", {tuple(self.event_shape)}" if self.event_shape else ""
        return f"{self.num_classes}{shape}"


def as_class(variable: Variable, owner: str) -> Variable:
    """A variable that can be summed out.

    Raises:
        TypeError: no scalar `Categorical`.
    """
    if not isinstance(variable, Categorical) or variable.event_shape:
        raise TypeError(
            f"{owner}: y must be a scalar pg.Categorical, such as pg.Categorical(10), got {variable!r}."
        )
    return variable
