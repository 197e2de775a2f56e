"""Latents as features: posterior means as the data of another model, and which of them are active."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.data.dataset import Dataset
from probgen.inference.queries.decode import family_of, mean_of
from probgen.inference.queries.posterior import BLOCK, device_of, prepared
from probgen.inference.sobol import is_gaussian
from probgen.inference.traces import trace_guide
from probgen.pair import LatentVariableModel


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
        data: the variables that the pair knows are encoded; the others, such as labels, are kept.
        latent: which latent.
        columns: the elements of the latent to keep, such as `active_units` of the training data.
        redraw: draw from q(z | x) anew in every batch of `fit` instead of taking its mean.
        device: `"auto"`, or a device as torch names it.

    Returns:
        A Dataset whose `x`, `(data, elements)`, is the mean, on the CPU.

    Raises:
        TypeError: data that are no Dataset.
        ValueError: data that do not fit the pair; a latent that the guide does not infer, that is
            not continuous, has no mean in closed form or depends on a class; with `redraw` one that
            is not Gaussian.

    References:
        Kingma, Rezende, Mohamed and Welling, 2014, "Semi-supervised learning with deep generative
        models" (M1, and the features redrawn in M1+M2).

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> vae = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,))
        >>> data = pg.Dataset({"x": torch.ones(5, 6), "y": torch.arange(5)})
        >>> {name: tuple(value.shape) for name, value in pg.features(vae, data).values.items()}
        {'y': (5,), 'x': (5, 2)}
    """
    if not isinstance(data, Dataset):
        raise TypeError(f"features: data must be a pg.Dataset, got {type(data).__name__}.")
    encoder, dataset = prepared(pair, data, "features", device)
    means, scales = [], []
    with evaluation(encoder), fixed_seed(0, device_of(dataset)):
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
                        f"from {family_of(site['fn'])}. Use redraw=False."
                    )
                scales.append(site["fn"].stddev.flatten(1).cpu())
    chosen = slice(None) if columns is None else columns
    mean = torch.cat(means)[:, chosen]
    others = [name for name in data.values if name not in dataset.values and name != "x"]
    words = f"x is {latent} of {pair.name}" + ", drawn anew in every batch" * redraw
    encoded = Dataset(
        {"x": mean}, data.name, transformations={"x": words},
        spread={"x": torch.cat(scales)[:, chosen]} if redraw else {},
    )  # fmt: skip
    if not others:
        return encoded
    result = data.only(*others)
    return replace(
        result,
        values={**result.values, **encoded.values},
        spread={**result.spread, **encoded.spread},
        transformations={**result.transformations, **encoded.transformations},
    )


@one_at_a_time
def active_units(
    pair: LatentVariableModel,
    data: Dataset,
    *,
    latent: str = "z",
    threshold: float = 0.1,
    device: str | torch.device = "auto",
) -> Tensor:
    """The elements of a latent whose posterior mean varies with the data.

    Args:
        pair: a trained pair.
        data: the data to encode, such as the training data.
        latent: which latent.
        threshold: the smallest standard deviation, over the data, of the mean of an active element.
        device: `"auto"`, or a device as torch names it.

    Returns:
        Indices into the flattened latent.

    Raises:
        ValueError: as `features`; or no element is active.

    References:
        Burda, Grosse and Salakhutdinov, 2016, "Importance weighted autoencoders", section 5
        (variance of the mean above 0.01).

    Example:
        >>> import torch, probgen as pg
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(2)).set_maximum_likelihood(x)
        >>> pg.active_units(ppca, pg.Dataset({"x": x}))
        tensor([0, 1])
    """
    deviation = features(pair, data, latent=latent, device=device)["x"].std(0, correction=0)
    active = (deviation > threshold).nonzero().squeeze(1)
    if not len(active):
        raise ValueError(
            f"active_units: no element of {latent} has a posterior mean whose standard deviation over "
            f"the data exceeds {threshold} (the largest is {float(deviation.max()):.3g}). Train "
            f"{pair.name} longer, or lower the threshold."
        )
    return active
