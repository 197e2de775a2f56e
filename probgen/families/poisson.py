"""Counts."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from probgen.families.base import Variable

LINEAR_FROM = 10.0
"""Log-rate above which the rate grows linearly instead of exponentially."""


class Poisson(Variable):
    r"""Independent counts 0, 1, 2, ...; networks return logarithms of the rates.

    For an output r the rate is $\lambda = e^r$, and above r = 10 linear, $e^{10} (1 + r - 10)$. At
    r = 10, a rate of 22,026, value and slope agree, so that no output overflows and every output
    has a gradient. `log_prob` stays accurate in float32 for large counts, whose
    $k \log \lambda - \lambda - \log k!$ are differences of large numbers.

    Args:
        event_shape: shape of one datum, an int for a vector; `()` is one count.

    References:
        Loader, 2000, "Fast and accurate computation of binomial probabilities", section 4: the
        deviance form of the Poisson probability.

    Example:
        >>> import torch, probgen as pg
        >>> x = pg.Poisson(2)
        >>> rate_three = x.distribution(torch.tensor([3.0]).log())
        >>> rate_three.log_prob(torch.tensor([0.0, 2.0]))
        tensor([-3.0000, -1.4959])
        >>> _ = torch.manual_seed(0)
        >>> pair = pg.declare("p(z) p(x | z)", "q(z | x)", z=pg.Normal(1), x=x, hidden=(8,))
        >>> pair.sample(4)["x"].shape
        torch.Size([4, 2])
    """

    discrete = True

    def distribution(self, log_rate: Tensor) -> TorchDistributionMixin:
        """`Poisson(exp(log_rate))`, the rate linear above `LINEAR_FROM`."""
        return _LogRatePoisson(log_rate)

    def support_in_words(self, name: str) -> tuple[str, str]:
        """Counts."""
        return (
            "only counts 0, 1, 2, ...",
            f"Give {name} as counts, or declare {name}=pg.Normal(...).",
        )


class _LogRatePoisson(dist.Poisson):
    """A Poisson distribution that keeps the logarithm of its rate."""

    def __init__(self, log_rate: Tensor, validate_args: bool | None = None) -> None:
        beyond = (log_rate - LINEAR_FROM).clamp(min=0)
        self.log_rate = log_rate.clamp(max=LINEAR_FROM) + beyond.log1p()
        rate = log_rate.clamp(max=LINEAR_FROM).exp() * (1 + beyond)
        super().__init__(rate, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(_LogRatePoisson, _instance)
        new.log_rate = self.log_rate.expand(batch_shape)
        return super().expand(batch_shape, new)

    def log_prob(self, value: Tensor) -> Tensor:
        """-λ for k = 0; else -(k d + λ - k) - (log k! - k log k + k), with d = log k - log λ."""
        if self._validate_args:
            self._validate_sample(value)
        value = value.to(self.rate.dtype)
        count = value.clamp(min=1)
        log_ratio = count.log() - self.log_rate
        deviance = count * (log_ratio + (-log_ratio).expm1())
        return torch.where(value == 0, -self.rate, -deviance - _stirling_error(count))


def _stirling_error(count: Tensor) -> Tensor:
    """log k! - (k log k - k): by its series for k >= 16, where the two terms nearly cancel."""
    series = 0.5 * (2 * math.pi * count).log()
    series = series + 1 / (12 * count) - 1 / (360 * count**3) + 1 / (1260 * count**5)
    return torch.where(count < 16, (count + 1).lgamma() - count * count.log() + count, series)
