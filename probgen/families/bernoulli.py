"""Binary variables."""

from __future__ import annotations

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from probgen.basics.settings import is_capturing
from probgen.families.base import Variable


class _BernoulliEvent(dist.Independent):
    """Independent Bernoulli elements whose log-probability is x · logits − Σ softplus(logits).

    This is the negative sum of the elementwise cross-entropies, in half the time: a datum that all
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

    After the matrix products, this takes most of the time of an evaluation. Without gradients, on a
    CPU, log(1 + exp) in place takes half the time of softplus; if it overflows, softplus is used.
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
            out exactly if it is missing.

    Example:
        >>> import torch, probgen as pg
        >>> pg.Bernoulli(784).distribution(torch.zeros(784)).mean[0]
        tensor(0.5000)
    """

    discrete = True

    def distribution(self, logits: Tensor) -> TorchDistributionMixin:
        """`Bernoulli(sigmoid(logits))`."""
        return _LogitBernoulli(logits=logits)

    @classmethod
    def fits_data(cls, values: Tensor) -> int:
        """Chosen if all values are 0 or 1."""
        return 2 if bool(((values == 0) | (values == 1)).all()) else 0
