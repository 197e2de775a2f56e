"""Expectations under the guide from one trace: the value, with a surrogate of its gradient.

Summed classes are weighted by q(y | ...), and latents that cannot be reparameterized add the
score-function term. Every objective that averages over the guide uses these functions, so that its
gradient is complete.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probgen.inference.traces import PairTrace


def guide_average(trace: PairTrace, value: Tensor, before: str | None = None) -> Tensor:
    r"""A value averaged over the guide's classes, with an unbiased gradient of that average.

    For classes $y$ and other latents $b$ without reparameterization, $\sum_y q(y | \cdot) f$ plus
    $\sum_y q(y | \cdot) f\, \nabla \log q(b | \cdot)$, with $f$ the value of the same datum, particle
    and classes (Ranganath et al., 2014, "Black box variational inference", eq. 2).

    Args:
        trace: the pass.
        value: shape `(classes..., particles, data)` like log-probabilities, or one
            that broadcasts to it.
        before: a variable of the guide; the value does not depend on this variable, nor on
            those that the guide draws or sums after it, so they are left out. `None` leaves out
            none.

    Returns:
        The same shape, with 1 in the dims of the classes that were summed.
    """
    order = list(trace.guide)
    names = order if before is None else order[: order.index(before)]
    summed = [name for name in names if name in trace.guide_sums]
    weights = class_weights(trace, summed)
    if weights is not None:
        value = weights * value
    score = _score(trace, names) if torch.is_grad_enabled() else None
    if score is not None:
        # Before the classes are summed: the weights may differ between draws.
        term = value.detach() * score
        value = value + term - term.detach()
    for name in summed:
        value = _sum_dim(value, trace.guide_sums[name])
    return value


def _score(trace: PairTrace, names: list[str]) -> Tensor | None:
    """log q of the latents drawn without reparameterization; `None` if there are none."""
    score: Tensor | None = None
    for name in names:
        if name not in trace.guide_sums and not trace.guide[name]["fn"].has_rsample:
            log_q = trace.log_q[name]
            score = log_q if score is None else score + log_q
    return score


def class_weights(trace: PairTrace, names: list[str] | None = None) -> Tensor | None:
    """The product of q(y | ...) over summed variables, by default all; one-hot where y is known."""
    weights: Tensor | None = None
    for name in list(trace.guide_sums) if names is None else names:
        weight = trace.log_q[name].exp()
        if name in trace.observed:
            known = trace.observed[name][1]
            chosen = trace.allowed(name)
            assert chosen is not None
            weight = torch.where(known, chosen.to(weight.dtype), weight)
        weights = weight if weights is None else weights * weight
    return weights


def class_log_weight(trace: PairTrace, name: str) -> Tensor:
    """log q(y | ...) of one summed variable; 0 where y is known."""
    log_q = trace.log_q[name]
    if name in trace.observed:
        log_q = torch.where(trace.observed[name][1], torch.zeros_like(log_q), log_q)
    return log_q


def _sum_dim(value: Tensor, dim: int) -> Tensor:
    return value.sum(dim, keepdim=True) if value.dim() >= -dim else value
