"""Quantiles of the elements of a latent under its prior, for varying a latent within its support."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.inference.queries.decode import beside_parameters
from probgen.inference.sobol import NotGaussianError, from_noise, noise_shape
from probgen.pair import LatentVariableModel


def prior_quantiles(
    pair: LatentVariableModel, latent: str, normal: Tensor, given: Mapping[str, Tensor] = {}, *,
    seed: int = 0, owner: str = "prior_quantiles",
) -> Tensor:  # fmt: skip
    """Values of every element of a latent at quantiles of its prior.

    Args:
        pair: the pair.
        latent: which latent.
        normal: the quantiles, given as those of N(0, 1): 0 is the median, 1 the quantile at
            probability Φ(1) = 0.84; shape `(k,)`.
        given: one datum of each variable that the prior may depend on, `(1, *event_shape)` by name.
        seed: of the other variables that the model draws.
        owner: the function that error messages name.

    Returns:
        Shape `(k, *event_shape)`, on the CPU. For N(0, I) every element is `normal`.

    Raises:
        ValueError: the model does not draw the latent, or its elements have no quantiles of their
            own.
    """
    like, placed = next(pair.parameters()), beside_parameters(pair, given)
    with evaluation(pair), fixed_seed(seed, like.device):
        site = poutine.trace(pair.model).get_trace(**placed).nodes.get(latent)
        if site is None or site["type"] != "sample" or site["is_observed"]:
            raise ValueError(f"{owner}: the model of {pair.name} draws no latent {latent!r}.")
        fn = site["fn"]
        noise = normal.to(like.device, like.dtype).reshape(-1, 1, *(1 for _ in fn.event_shape))
        quantiles = _quantiles(fn, noise.expand(-1, 1, *fn.event_shape))
        if quantiles is None:
            raise ValueError(
                f"{owner}: needs a prior whose elements are independent and have quantiles, such as "
                f"a Gaussian, a log-normal or a Laplace distribution, got {fn} for {latent!r}. "
                "pg.plots.latent_scatter and pg.plots.samples work with any prior."
            )
    return quantiles.reshape(len(normal), *fn.event_shape).cpu()


def _quantiles(fn: Any, noise: Tensor) -> Tensor | None:
    """The quantiles of each element; `None` where elements depend on each other or have none."""
    if not _elementwise(fn):
        return None
    try:
        return from_noise(fn, noise) if noise_shape(fn) == fn.event_shape else None
    except NotGaussianError:
        pass
    while hasattr(fn, "base_dist") and not isinstance(
        fn, torch.distributions.TransformedDistribution
    ):
        fn = fn.base_dist
    if fn.event_shape or not type(fn).__module__.startswith(("torch.", "pyro.")):
        return None
    try:
        quantiles: Tensor = fn.icdf(torch.special.ndtr(noise.double())).to(noise.dtype)
    except NotImplementedError:
        return None
    return quantiles


def _elementwise(fn: Any) -> bool:
    """Whether every transformation of the distribution acts on each element separately."""
    while hasattr(fn, "base_dist"):
        if any(t.domain.event_dim or t.codomain.event_dim for t in getattr(fn, "transforms", ())):
            return False
        fn = fn.base_dist
    return True
