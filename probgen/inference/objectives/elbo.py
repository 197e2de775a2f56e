r"""The evidence lower bound of any pair, per datum, from one pass of guide and model.

Values are in nats per datum, and larger is better. Discrete scalars are summed out exactly: with
weights q(y | ...) if the guide has a factor for them, otherwise inside the logarithm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from probgen.basics.checks import as_count
from probgen.implicit import check_pair
from probgen.inference.expectations import class_log_weight, guide_average
from probgen.inference.objectives.base import Objective
from probgen.inference.traces import PairTrace, trace_pair
from probgen.pair import LatentVariableModel


class ELBO(Objective):
    r"""The evidence lower bound, $E_q[\log p(x, z) - \log q(z | x)]$, for each datum.

    With the defaults its value and gradient are those of Pyro's `Trace_ELBO` (or of
    `TraceEnum_ELBO`, if a variable is summed out); with `analytic_kl` they are those of
    `TraceMeanField_ELBO`. Latents that cannot be reparameterized have a score-function gradient.

    Args:
        num_particles: number of draws of the guide for each datum.
        analytic_kl: whether to replace $\log p(z) - \log q(z)$ by the closed form $-KL(q || p)$ for
            each latent that has one and whose parents in the model are drawn before it by the guide.
        warmup_epochs: number of epochs of `fit` over which the weight of the KL terms increases
            linearly to one.

    Raises:
        ValueError: num_particles is below one, or warmup_epochs is negative.

    References:
        Kingma and Welling, 2014, "Auto-encoding variational Bayes", eq. 2 and 3.
        Sønderby et al., 2016, "Ladder variational autoencoders" (warm-up).

    Example:
        >>> import torch, probgen as pg
        >>> pair = pg.declare("p(x)", x=pg.Bernoulli(2))
        >>> pg.ELBO()(pair, {"x": torch.ones(1, 2)})
        tensor([-1.3863])
    """

    quantity = "ELBO"
    is_bound = True

    def __init__(
        self, num_particles: int = 1, *, analytic_kl: bool = False, warmup_epochs: int = 0
    ) -> None:
        owner = type(self).__name__
        self.num_particles = as_count(num_particles, "num_particles", owner)
        self.analytic_kl = analytic_kl
        self.warmup_epochs = as_count(warmup_epochs, "warmup_epochs", owner, least=0)

    def __repr__(self) -> str:
        return (
            f"ELBO(num_particles={self.num_particles}, analytic_kl={self.analytic_kl}, "
            f"warmup_epochs={self.warmup_epochs})"
        )

    def __call__(
        self,
        pair: LatentVariableModel,
        data: Mapping[str, Tensor],
        *,
        observed: Mapping[str, Tensor] | None = None,
        kl_weight: Tensor | None = None,
    ) -> Tensor:
        """The bound of each datum, shape `(batch,)`, in nats.

        Args:
            pair: the pair.
            data: tensors `(batch, *event_shape)` by variable name.
            observed: boolean masks `(batch,)` of partly observed variables.
            kl_weight: a scalar tensor that multiplies the KL terms; `None` means one.
        """
        check_pair(pair, "ELBO")
        trace = trace_pair(pair, data, num_particles=self.num_particles, observed=observed)
        bound = elbo(trace, analytic_kl=self.analytic_kl, kl_weight=kl_weight)
        return bound.expand(trace.num_data)


def elbo(trace: PairTrace, *, analytic_kl: bool = False, kl_weight: Tensor | None = None) -> Tensor:
    r"""The evidence lower bound from one pass, shape `(data,)` or `(1,)`.

    For summed variables $y$ with a guide factor it is $\sum_y q(y | \cdot)\,[\log p - \log q]$, for
    those without a guide factor $\log \sum_y p$. The gradient is that of `guide_average`.

    Raises:
        ValueError: the guide has a point mass.
    """
    trace.check_densities()
    latent, likelihood = _latent_terms(trace, analytic_kl)
    joint = _sum_in_model(trace, likelihood, latent, kl_weight)
    for name in trace.guide_sums:
        term = class_log_weight(trace, name)
        joint = joint - (term if kl_weight is None else kl_weight * term)
    bound = guide_average(trace, joint)
    # The shape is now (1..., particles, data).
    return bound.reshape(-1, bound.shape[-1]).mean(0) if bound.dim() > 1 else bound


def log_importance_weights(trace: PairTrace) -> Tensor:
    r"""Log-weights whose average estimates p(x): $\log \sum_y p(x, y, z) - \log q(z | \cdot)$.

    Every summed variable is summed inside the weight. The guide's q(y | ...) is not used, because
    each term of the sum is an unbiased estimate of p(x, y). No KL weight is applied.

    Returns:
        Shape `(particles, data)`, in nats.

    Raises:
        ValueError: the guide has a point mass.
    """
    trace.check_densities()
    total: Tensor | None = None
    for log_p in trace.log_p.values():
        total = log_p if total is None else total + log_p
    assert total is not None
    for name in trace.sampled:
        if name in trace.model:
            total = total - trace.log_q[name]
    for name, dim in trace.sums.items():
        total = _logsumexp_classes(trace, total, name, dim)
    total = total.reshape(-1, total.shape[-1])
    return total.expand(trace.num_particles, trace.num_data)


def _latent_terms(trace: PairTrace, analytic_kl: bool) -> tuple[list[Tensor], list[Tensor]]:
    """The terms of the latents, which a warm-up weights, and the terms of the data."""
    latent: list[Tensor] = []
    likelihood: list[Tensor] = []
    closed = _closed_form_kl(trace) if analytic_kl else {}
    for name, log_p in trace.log_p.items():
        if name in closed:
            latent.append(-closed[name])
        elif trace.model[name]["is_observed"]:
            likelihood.append(log_p)
        elif name in trace.observed:
            known = trace.observed[name][1]
            zero = torch.zeros_like(log_p)
            likelihood.append(torch.where(known, log_p, zero))
            latent.append(torch.where(known, zero, log_p))
        else:
            latent.append(log_p)
    for name in trace.sampled:
        log_q = trace.log_q[name]
        if not trace.guide[name]["fn"].has_rsample:
            log_q = (
                log_q.detach()
            )  # its gradient has expectation zero; guide_average adds the score
        # An auxiliary site has no term, because for each of its values the other terms are a bound.
        if name not in closed and name in trace.model:
            latent.append(-log_q)
    return latent, likelihood


def _sum_in_model(
    trace: PairTrace, likelihood: list[Tensor], latent: list[Tensor], kl_weight: Tensor | None
) -> Tensor:
    """Add all terms, and sum out in the model the variables that have no guide factor."""
    if trace.model_sums and kl_weight is not None:
        # Inside the sum a weight would multiply logarithms, and the result would not be a bound.
        raise ValueError(
            "KL warm-up: this pair sums "
            f"{', '.join(trace.model_sums)} out in the model, where the KL term is inside a "
            "logarithm and cannot be weighted. Add a guide factor for it, or use no warm-up."
        )
    terms = likelihood + (latent if kl_weight is None else [kl_weight * term for term in latent])
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    for name, dim in trace.model_sums.items():
        total = _logsumexp_classes(trace, total, name, dim)
    return total


def _logsumexp_classes(trace: PairTrace, total: Tensor, name: str, dim: int) -> Tensor:
    allowed = trace.allowed(name)
    if allowed is not None:
        total = total.masked_fill(~allowed, -torch.inf)
    return total.logsumexp(dim, keepdim=True) if total.dim() >= -dim else total


def _closed_form_kl(trace: PairTrace) -> dict[str, Tensor]:
    """KL(q || p) of the latents for which it is the expectation of log q - log p.

    This holds if p(z | ...) does not depend on latents that the guide draws after z. The order of the
    sites shows it: every latent before z in the model must be before z in the guide too.
    """
    closed = {}
    guide_order = [name for name in trace.guide if name in trace.model]
    for name in trace.sampled:
        if name not in trace.model:
            continue
        before_in_model = [n for n in trace.model if n in trace.guide or n in trace.model_sums]
        before_in_model = before_in_model[: before_in_model.index(name)]
        before_in_guide = guide_order[: guide_order.index(name)]
        if not set(before_in_model) <= set(before_in_guide):
            continue
        q, p = trace.guide[name], trace.model[name]
        if any(site["mask"] is not None and site["mask"] is not True for site in (q, p)):
            continue
        if _folds(q["fn"]):
            continue  # torch would return the KL of the base distributions, which is larger
        shape = torch.broadcast_shapes(q["fn"].batch_shape, p["fn"].batch_shape)
        try:
            closed[name] = kl_divergence(q["fn"].expand(shape), p["fn"].expand(shape))
        except NotImplementedError:
            continue
    return closed


def _folds(fn: Any) -> bool:
    """Whether a distribution is transformed by a function that maps several values to one."""
    while hasattr(fn, "base_dist"):
        if not all(transform.bijective for transform in getattr(fn, "transforms", ())):
            return not isinstance(fn, torch.distributions.HalfNormal)  # torch has its correct KL
        fn = fn.base_dist
    return False


OBJECTIVE = ELBO
