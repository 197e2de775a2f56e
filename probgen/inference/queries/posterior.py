"""What the guide says of data: encode, reconstruct, and latents as features."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import TransformedDistribution

from probgen.basics.locking import one_at_a_time
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.data.dataset import Dataset
from probgen.data.field import Field
from probgen.data.noise import GaussianNoise
from probgen.implicit import check_pair
from probgen.inference.compute.devices import as_device, placed
from probgen.inference.expectations import class_weights
from probgen.inference.inputs import prepare
from probgen.inference.sobol import is_gaussian
from probgen.inference.traces import innermost, trace_guide, trace_pair
from probgen.pair import LatentVariableModel
from probgen.structure import sample_sites

BLOCK = 1000
"""Data in a pass."""


@one_at_a_time
def encode(
    pair: LatentVariableModel,
    data: Any,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> dict[str, Tensor]:
    """The mean of each latent under the guide, given the data.

    Where a latent depends on a continuous one before it, it is the mean given one draw of that;
    where it depends on a class that is not given, the average over q of the class. A class itself
    is represented by its probabilities: `encode(m2, x)["y"]` classifies.

    Args:
        pair: the pair; it is left as it was.
        data: a Dataset, a dict of arrays by variable name, or one array.
        seed: of the draws.
        device: `"auto"`, or a device as torch names it.

    Returns:
        A CPU tensor for each latent of the guide: `(data, *event_shape)`, or `(data, classes)`.

    Raises:
        ValueError: data that do not fit the pair, a latent made of classes, or one whose family has
            no mean in closed form.
    """
    return _encode(*_ready(pair, data, "encode", device), seed)


@one_at_a_time
def reconstruct(
    pair: LatentVariableModel,
    data: Any,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> dict[str, Tensor]:
    """The mean of each data variable given the latents that `encode` finds.

    Args:
        pair: the pair; it is left as it was.
        data: a Dataset, a dict of arrays by variable name, or one array.
        seed: of the draws.
        device: `"auto"`, or a device as torch names it.

    Returns:
        A CPU tensor `(data, *event_shape)` for each variable that the model scores, classes
        aside: for binary data the probability of a one.

    Raises:
        ValueError: data that do not fit the pair, a class or latent that is neither given nor
            inferred, data that are classes, or a family without a mean in closed form.
    """
    decoder, dataset = _ready(pair, data, "reconstruct", device)
    latents = _encode(decoder, dataset, seed)
    parts: dict[str, list[Tensor]] = {}
    classes = [name for name in latents if name in pair.summed_names]
    if classes:
        raise ValueError(
            f"reconstruct: {', '.join(classes)} is a class, which has no mean; give it for all data."
        )
    with evaluation(decoder), fixed_seed(seed, _device(dataset)):
        for start in range(0, len(dataset), BLOCK):
            block = dataset.subset(slice(start, start + BLOCK))
            held = {
                name: value[start : start + BLOCK].to(_device(dataset))
                for name, value in latents.items()
            }
            with pyro.condition(data=held):
                trace = poutine.trace(decoder.model).get_trace(**block.values)
            for name, site in sample_sites(trace).items():
                if not site["is_observed"]:
                    raise ValueError(
                        f"reconstruct: {name} is not given and the guide has no factor for it, so "
                        "it would be drawn from the prior. Give it too."
                    )
                if name in block.values and not _is_class(site["fn"]):
                    parts.setdefault(name, []).append(
                        mean_of(site["fn"], name, "reconstruct").cpu()
                    )
    if not parts:
        raise ValueError(f"reconstruct: the data of {pair.name} are classes, which have no mean.")
    return {name: torch.cat(blocks) for name, blocks in parts.items()}


@one_at_a_time
def features(
    pair: LatentVariableModel,
    data: Dataset,
    *,
    latent: str = "z",
    columns: Tensor | None = None,
    redraw: bool = False,
    device: str | torch.device = "auto",
) -> Dataset:
    """A latent under the guide, as the data x of another model or classifier (M1).

    Args:
        pair: a trained pair whose guide infers the latent from the data alone, before any other.
        data: what the pair knows of it is encoded, the rest, such as labels, is kept.
        latent: which one.
        columns: its elements to keep, such as `active_units` of the training data.
        redraw: draw from q(z | x) anew in every batch of `fit`, in place of its mean.
        device: `"auto"`, or a device as torch names it.

    Returns:
        A Dataset whose `x`, `(data, elements)`, is the mean, on the CPU.

    Raises:
        TypeError: data that are no Dataset.
        ValueError: data that do not fit the pair, or a latent that is not the guide's, not
            continuous, without a mean in closed form, or depends on a class; with `redraw` one
            that is not Gaussian.

    References:
        Kingma, Rezende, Mohamed and Welling, 2014, "Semi-supervised learning with deep generative
        models" (M1, and the features redrawn in M1+M2).
    """
    if not isinstance(data, Dataset):
        raise TypeError(f"features: data must be a pg.Dataset, got {type(data).__name__}.")
    encoder, dataset = _ready(pair, data, "features", device)
    means, scales = [], []
    with evaluation(encoder), fixed_seed(0, _device(dataset)):
        for start in range(0, len(dataset), BLOCK):
            block = dataset.subset(slice(start, start + BLOCK))
            trace = trace_guide(encoder, block.values, latent, observed=block.observed)
            site = trace.guide.get(latent)
            if site is None or not site["fn"].has_rsample or next(iter(trace.guide)) != latent:
                raise ValueError(
                    f"features: {latent} must be a continuous latent of {pair.name} that its guide "
                    "infers from the data alone, before any other; in its order the guide has "
                    f"{', '.join(trace.guide) or 'none'}."
                )
            means.append(mean_of(site["fn"], latent, "features").flatten(1).cpu())
            if redraw:
                if not is_gaussian(site["fn"]):
                    raise ValueError(
                        f"features: redraw=True adds Gaussian noise, but the guide draws {latent} "
                        f"from {_family(site['fn'])}. Use redraw=False."
                    )
                scales.append(site["fn"].stddev.flatten(1).cpu())
    kept_columns = slice(None) if columns is None else columns
    mean = torch.cat(means)[:, kept_columns]
    rest = [name for name in data.values if name not in dataset.values and name != "x"]
    words = f"x is {latent} of {pair.name}" + ", drawn anew in every batch" * redraw
    noise = GaussianNoise(torch.cat(scales)[:, kept_columns]) if redraw else None
    x = Field(mean, noise=noise, transformation=words, images=False)
    others = {name: data.fields[name] for name in rest}
    return Dataset.from_fields({**others, "x": x}, data.name)


@one_at_a_time
def active_units(
    pair: LatentVariableModel,
    data: Dataset,
    *,
    latent: str = "z",
    threshold: float = 0.1,
    device: str | torch.device = "auto",
) -> Tensor:
    """The elements of a latent whose posterior mean moves with the data.

    Args:
        pair: a trained pair.
        data: to look at.
        latent: which latent.
        threshold: least standard deviation of the mean over the data.
        device: `"auto"`, or a device as torch names it.

    Returns:
        Indices into the flattened latent.

    Raises:
        ValueError: as `features`; or no element is active.

    References:
        Burda, Grosse and Salakhutdinov, 2016, "Importance weighted autoencoders", section 5
        (variance of the mean above 0.01).
    """
    spread = features(pair, data, latent=latent, device=device)["x"].std(0, correction=0)
    found = (spread > threshold).nonzero().squeeze(1)
    if not len(found):
        raise ValueError(
            f"active_units: no element of {latent} moves by more than {threshold} (the most is "
            f"{float(spread.max()):.3g}). Train {pair.name} longer, or lower the threshold."
        )
    return found


def _encode(encoder: LatentVariableModel, dataset: Dataset, seed: int) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {}
    with evaluation(encoder), fixed_seed(seed, _device(dataset)):
        for start in range(0, len(dataset), BLOCK):
            block = dataset.subset(slice(start, start + BLOCK))
            trace = trace_pair(encoder, block.values, observed=block.observed)
            weights = class_weights(trace)
            for name, site in trace.guide.items():
                if name in trace.guide_sums:
                    assert weights is not None
                    mean = _sum_but(weights, trace.guide_sums[name], -1).T
                elif _is_class(site["fn"]):
                    raise ValueError(f"encode: {name} is made of classes, which have no mean.")
                else:
                    mean = mean_of(site["fn"], name, "encode")
                    events = len(site["fn"].event_shape)
                    if weights is not None:
                        mean = weights[(..., *[None] * events)] * mean
                    mean = _sum_but(mean, *range(-1 - events, 0))
                parts.setdefault(name, []).append(mean.cpu())
    return {name: torch.cat(blocks) for name, blocks in parts.items()}


def mean_of(fn: Any, name: str, owner: str) -> Tensor:
    """The mean of a distribution, in closed form.

    Args:
        fn: the distribution.
        name: of its variable, for messages.
        owner: the function that messages name.

    Raises:
        ValueError: the family has no mean, or none in closed form.
    """
    mean: Tensor | None = None
    with suppress(NotImplementedError):
        mean = fn.mean
    if mean is None or bool(mean.isnan().all()):
        raise ValueError(
            f"{owner}: {name} is drawn from {_family(fn)}, which has no mean in closed form. Choose "
            f"a family that has one, such as pg.Normal, or average draws of {name} yourself."
        )
    return mean


def _family(fn: Any) -> str:
    """What a distribution is called, `Independent` and the like aside."""
    while hasattr(fn, "base_dist") and not isinstance(fn, TransformedDistribution):
        fn = fn.base_dist
    return type(fn).__name__


def _sum_but(value: Tensor, *kept: int) -> Tensor:
    """Sum over all dims but some, given as negative."""
    others = [dim for dim in range(-value.dim(), 0) if dim not in kept]
    return value.sum(others) if others else value


def _is_class(fn: Any) -> bool:
    return isinstance(innermost(fn), torch.distributions.Categorical)


def _ready(
    pair: LatentVariableModel, data: Any, owner: str, device: str | torch.device
) -> tuple[LatentVariableModel, Dataset]:
    check_pair(pair, owner)
    target = as_device(device)
    dtype = next((p.dtype for p in pair.parameters()), torch.get_default_dtype())
    ready = placed(pair, target, dtype)
    dataset = prepare(ready, data, owner=owner, device=target, dtype=dtype)
    return ready, dataset


def _device(dataset: Dataset) -> torch.device:
    return next(iter(dataset.values.values())).device
