"""Expectations under the guide from one trace: the value, with a surrogate of its gradient.

Summed classes have their weights q(y | ...), and latents that cannot be reparameterized have
the score-function term. Every objective that averages over the guide uses these functions, so that
no term lacks a part of its gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probgen.inference.traces import PairTrace


def guide_average(trace: PairTrace, value: Tensor, before: str | None = None) -> Tensor:
    r"""A value averaged over the guide's classes, with a gradient whose expectation is the average's.

    For classes $y$ and other latents $b$ without reparameterization, $\sum_y q(y | \cdot) f$ plus
    $\sum_y q(y | \cdot) f\, \nabla \log q(b | \cdot)$, with $f$ the value of the same datum, particle
    and classes (Ranganath et al., 2014, "Black box variational inference", eq. 2).

    Args:
        trace: the pass.
        value: shape `(classes..., particles, data)` as log-probabilities have it, or what broadcasts
            to it.
        before: a variable of the guide; the value depends on nothing that the guide draws or sums
            from it on, so that those are left out. `None` takes all of them.

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
        # Before the classes are summed away: each draw must see their weights.
        term = value.detach() * score
        value = value + term - term.detach()
    for name in summed:
        value = _sum_dim(value, trace.guide_sums[name])
    return value


def _score(trace: PairTrace, names: list[str]) -> Tensor | None:
    """log q of what was drawn among these without reparameterization, if anything was."""
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
