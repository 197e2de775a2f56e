"""Means of the latents given data, and reconstructions of the data."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.data.dataset import Dataset
from probgen.inference.expectations import class_weights
from probgen.inference.inputs import place_and_prepare
from probgen.inference.queries.decode import mean_of
from probgen.inference.traces import innermost, trace_pair
from probgen.pair import LatentVariableModel
from probgen.structure import sample_sites

BLOCK = 1000
"""Number of data in one pass."""


@one_at_a_time
def encode(
    pair: LatentVariableModel,
    data: Any,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> dict[str, Tensor]:
    r"""The mean of each latent under the guide, given the data: $E_q[z \mid x]$.

    If a latent depends on another continuous latent, its mean is computed for one draw of that
    latent; if it depends on a class that is not given, its mean is averaged over q of the class. A
    class itself is returned as its probabilities: `encode(m2, x)["y"]` classifies.

    Args:
        pair: the pair; it is not changed.
        data: a Dataset, a dict of arrays by variable name, or one array.
        seed: of the draws.
        device: `"auto"`, or a device as torch names it.

    Returns:
        A CPU tensor for each latent of the guide: `(data, *event_shape)`, or `(data, classes)`.

    Raises:
        ValueError: data that do not fit the pair, a latent that is a vector of classes, or one
            whose family has no mean in closed form.

    References:
        Kingma and Welling, 2014, "Auto-encoding variational Bayes", section 3 (the encoder
        q(z | x)).

    Example:
        >>> import torch, probgen as pg
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1)).set_maximum_likelihood(x)
        >>> z = pg.encode(ppca, x)["z"]
        >>> torch.allclose(z, ppca.posterior(x).mean, atol=1e-4)
        True
    """
    return _encode(*place_and_prepare(pair, data, "encode", device), seed)


@one_at_a_time
def reconstruct(
    pair: LatentVariableModel,
    data: Any,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> dict[str, Tensor]:
    r"""The mean of each data variable given the latents that `encode` infers: $E[x \mid z(x)]$.

    Args:
        pair: the pair; it is not changed.
        data: a Dataset, a dict of arrays by variable name, or one array.
        seed: of the draws.
        device: `"auto"`, or a device as torch names it.

    Returns:
        A CPU tensor `(data, *event_shape)` for each data variable of the model that is not a class.
        For binary data the mean is the probability of a one.

    Raises:
        ValueError: data that do not fit the pair, a class or latent that is neither given nor
            inferred, data that are classes, or a family without a mean in closed form.

    Example:
        >>> import torch, probgen as pg
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(2)).set_maximum_likelihood(x)
        >>> error = (pg.reconstruct(ppca, x)["x"] - x).square().mean()
        >>> bool(error < x.var(0).mean())  # smaller than by the mean of the data alone
        True
    """
    decoder, dataset = place_and_prepare(pair, data, "reconstruct", device)
    latents = _encode(decoder, dataset, seed)
    parts: dict[str, list[Tensor]] = {}
    classes = [name for name in latents if name in pair.summed_names]
    if classes:
        raise ValueError(
            f"reconstruct: {', '.join(classes)} is a class, which has no mean. Give it for all data."
        )
    with evaluation(decoder), fixed_seed(seed, device_of(dataset)):
        for start in range(0, len(dataset), BLOCK):
            block = dataset.subset(slice(start, start + BLOCK))
            fixed = {
                name: value[start : start + BLOCK].to(device_of(dataset))
                for name, value in latents.items()
            }
            with pyro.condition(data=fixed):
                trace = poutine.trace(decoder.model).get_trace(**block.values)
            for name, site in sample_sites(trace).items():
                if not site["is_observed"]:
                    raise ValueError(
                        f"reconstruct: {name} is not given and the guide has no factor for it, so "
                        "it would be drawn from the prior. Give it too."
                    )
                if name in block.values and not _is_class(site["fn"]):
                    variable = decoder.variables.get(name)
                    mean = mean_of(site["fn"], name, "reconstruct", variable)
                    parts.setdefault(name, []).append(mean.cpu())
    if not parts:
        raise ValueError(f"reconstruct: the data of {pair.name} are classes, which have no mean.")
    return {name: torch.cat(blocks) for name, blocks in parts.items()}


def _encode(encoder: LatentVariableModel, dataset: Dataset, seed: int) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {}
    with evaluation(encoder), fixed_seed(seed, device_of(dataset)):
        for start in range(0, len(dataset), BLOCK):
            block = dataset.subset(slice(start, start + BLOCK))
            trace = trace_pair(encoder, block.values, observed=block.observed)
            weights = class_weights(trace)
            for name, site in trace.guide.items():
                if name in trace.guide_sums:
                    assert weights is not None
                    mean = _sum_except(weights, trace.guide_sums[name], -1).T
                elif _is_class(site["fn"]):
                    raise ValueError(f"encode: {name} is a vector of classes, which have no mean.")
                else:
                    mean = mean_of(site["fn"], name, "encode")
                    events = len(site["fn"].event_shape)
                    if weights is not None:
                        mean = weights[(..., *[None] * events)] * mean
                    mean = _sum_except(mean, *range(-1 - events, 0))
                parts.setdefault(name, []).append(mean.cpu())
    return {name: torch.cat(blocks) for name, blocks in parts.items()}


def _sum_except(value: Tensor, *dims: int) -> Tensor:
    """Sum over all dimensions except some, which are given as negative numbers."""
    others = [dim for dim in range(-value.dim(), 0) if dim not in dims]
    return value.sum(others) if others else value


def _is_class(fn: Any) -> bool:
    return isinstance(innermost(fn), torch.distributions.Categorical)


def device_of(dataset: Dataset) -> torch.device:
    """The device of the values."""
    return next(iter(dataset.values.values())).device
