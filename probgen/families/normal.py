"""Gaussian variables with a diagonal covariance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from probgen.families.base import Variable, checked_parts, read_shape

SCALE_FLOOR = 1e-4
"""The smallest scale a `Normal` can have: keeps densities bounded and float32 gradients finite."""

SCALES = ("network", "shared", "isotropic")
"""Words for the source of a `Normal`'s scale."""

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_UNIT_SCALE = math.log(math.expm1(1 - SCALE_FLOOR))  # a network that returns 0 has scale 1


def positive_scale(raw: Tensor) -> Tensor:
    """Map any real to a scale above `SCALE_FLOOR`: 0 to one, linear growth, so it cannot overflow."""
    return F.softplus(raw + _UNIT_SCALE) + SCALE_FLOOR


def raw_from_scale(scale: Tensor) -> Tensor:
    """The inverse of `positive_scale`, for scales above `SCALE_FLOOR`."""
    return torch.log(torch.expm1(scale - SCALE_FLOOR)) - _UNIT_SCALE


class _NormalEvent(dist.Independent):
    """Independent Gaussian elements, whose log-probability takes half as many passes over memory."""

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
        scale: where the standard deviation comes from. `"network"`: the network, one scale for
            every datum; `"shared"`: learned, one for each element and the same for all data;
            `"isotropic"`: learned, one number for all elements and data; a number: fixed. Learned
            scales are positive by construction and never below `SCALE_FLOOR`: a network returns the
            mean and a raw scale of any sign, softplus of which (shifted so that 0 gives 1) is the
            scale.

    Raises:
        TypeError: the scale is neither a word nor a number.
        ValueError: the scale is an unknown word, or not above zero.

    Example:
        >>> import torch, probgen as pg
        >>> x = pg.Normal(3, scale="shared")  # as a decoder's output: one scale for each element
        >>> x
        Normal(3, scale='shared')
        >>> x.distribution(torch.zeros(5, 3)).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5, 3])
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
        """`N(loc, scale²)`; `raw_scale` is any real, or `None` if the scale is fixed."""
        if raw_scale is None:
            fixed = 1.0 if isinstance(self.scale, str) else self.scale
            return _DiagonalNormal(loc, torch.full_like(loc, fixed))
        return _DiagonalNormal(loc, positive_scale(raw_scale))

    def inferred(self) -> Normal:
        """A guide's Gaussian always takes its scale from the network."""
        return Normal(self.event_shape)

    @property
    def shared_shape(self) -> torch.Size | None:
        """Shape of the learned raw scale: one for each element, one for all, or none."""
        return {"shared": self.event_shape, "isotropic": torch.Size(())}.get(str(self.scale))

    @classmethod
    def fits_data(cls, values: Tensor) -> int:
        """Any data can be modelled as Gaussian; chosen if no other family fits better."""
        return 1

    def arguments(self) -> dict[str, Any]:
        """The event's shape, and the scale unless it is the network's."""
        scale = {} if self.scale == "network" else {"scale": self.scale}
        return super().arguments() | scale

    def text_parts(self) -> list[str]:
        """The shape, and the scale unless it is the network's: `normal:8:shared`."""
        scale = [] if self.scale == "network" else [str(self.scale)]
        return super().text_parts() + scale

    @classmethod
    def from_text_parts(cls, parts: Sequence[str], values: Tensor | None = None) -> Normal:
        """Build the variable from a shape and a scale, both of which may be left out."""
        shape, text = checked_parts(parts, 2)
        event_shape = read_shape(shape, values)
        scale: Any = text or "network"
        if scale not in SCALES:
            try:
                scale = float(scale)
            except ValueError:
                raise ValueError(
                    f"the scale {scale!r} is neither network, shared, isotropic nor a number"
                ) from None
        return cls(event_shape, scale)
