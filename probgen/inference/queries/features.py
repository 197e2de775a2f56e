"""Latents as data for another model or classifier: their posterior means, and which of them are active."""

from __future__ import annotations

import torch
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.data.dataset import Dataset
from probgen.data.field import Field
from probgen.data.noise import GaussianNoise
from probgen.inference.inputs import place_and_prepare
from probgen.inference.queries.decode import family_name, mean_of
from probgen.inference.queries.posterior import BLOCK, device_of
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
    """Encode data: return a latent's posterior as the data x of another model or classifier (M1).

    Args:
        pair: a trained pair whose guide infers the latent from the data alone, before any other.
        data: the variables that the pair knows are encoded; the others, such as labels, are kept.
        latent: the name of the latent.
        columns: indices of the elements to keep, such as `active_units` of the training data.
        redraw: draw from q(z | x) anew in every batch of `fit`, instead of using its mean.
        device: `"auto"`, or a device as torch names it.

    Returns:
        A Dataset on the CPU whose `x`, shape `(data, elements)`, is the posterior mean.

    Raises:
        TypeError: the data are no Dataset.
        ValueError: the data do not fit the pair; or the latent is not one of the guide's, is not
            continuous, has no mean in closed form, or depends on a class; or, with `redraw`, it is
            not Gaussian.

    References:
        Kingma, Rezende, Mohamed and Welling, 2014, "Semi-supervised learning with deep generative
        models" (M1, and the features redrawn in M1+M2).

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> vae = pg.models.VAE(x=pg.Bernoulli(4), z=pg.Normal(2), hidden=(8,))
        >>> data = pg.Dataset({"x": torch.eye(4), "y": torch.tensor([0, 0, 1, 1])})
        >>> encoded = pg.features(vae, data)
        >>> encoded["x"].shape, encoded["y"].tolist()
        (torch.Size([4, 2]), [0, 0, 1, 1])
    """
    if not isinstance(data, Dataset):
        raise TypeError(f"features: data must be a pg.Dataset, got {type(data).__name__}.")
    encoder, prepared = place_and_prepare(pair, data, "features", device)
    mean, scale = _encoded(encoder, prepared, latent, redraw)
    if columns is not None:
        mean, scale = mean[:, columns], scale[:, columns]
    words = f"x is {latent} of {pair.name}" + ", drawn anew in every batch" * redraw
    noise = GaussianNoise(scale) if redraw else None
    x = Field(mean, noise=noise, transformation=words, images=False)
    others = {
        name: field
        for name, field in data.fields.items()
        if name not in prepared.values and name != "x"
    }
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
    """Find the elements of a latent whose posterior mean varies over the data.

    Args:
        pair: a trained pair.
        data: the data over which the means are compared.
        latent: the name of the latent.
        threshold: the standard deviation of the posterior mean above which an element is active.
        device: `"auto"`, or a device as torch names it.

    Returns:
        Indices into the flattened latent, shape `(active elements,)`.

    Raises:
        TypeError: the data are no Dataset.
        ValueError: as `features`; or no element is active.

    References:
        Burda, Grosse and Salakhutdinov, 2016, "Importance weighted autoencoders", section 5
        (variance of the mean above 0.01).

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> vae = pg.models.VAE(x=pg.Bernoulli(4), z=pg.Normal(2), hidden=())
        >>> pg.active_units(vae, pg.Dataset({"x": torch.eye(4)}), threshold=0.01)
        tensor([0, 1])
    """
    deviation = features(pair, data, latent=latent, device=device)["x"].std(0, correction=0)
    active = (deviation > threshold).nonzero().squeeze(1)
    if not len(active):
        raise ValueError(
            f"active_units: no element of {latent} is active: the largest standard deviation of a "
            f"posterior mean over the data is {float(deviation.max()):.3g}, not above {threshold}. "
            f"Train {pair.name} for more epochs, or lower the threshold."
        )
    return active


def _encoded(
    encoder: LatentVariableModel, data: Dataset, latent: str, with_scale: bool
) -> tuple[Tensor, Tensor]:
    """Posterior mean and scale of a latent, each `(data, elements)`; without `with_scale` no scale."""
    means, scales = [], []
    with evaluation(encoder), fixed_seed(0, device_of(data)):
        for start in range(0, len(data), BLOCK):
            block = data.subset(slice(start, start + BLOCK))
            trace = trace_guide(encoder, block.values, latent, observed=block.observed)
            site = trace.guide.get(latent)
            if site is None or not site["fn"].has_rsample or next(iter(trace.guide)) != latent:
                raise ValueError(
                    f"features: {latent} must be a continuous latent of {encoder.name} that its guide "
                    "infers from the data alone, before any other; in its order the guide has "
                    f"{', '.join(trace.guide) or 'none'}."
                )
            means.append(mean_of(site["fn"], latent, "features").flatten(1).cpu())
            if with_scale and not is_gaussian(site["fn"]):
                raise ValueError(
                    f"features: redraw=True adds Gaussian noise, but the guide draws {latent} "
                    f"from {family_name(site['fn'])}. Use redraw=False."
                )
            if with_scale:
                scales.append(site["fn"].stddev.flatten(1).cpu())
    mean = torch.cat(means)
    return mean, torch.cat(scales) if with_scale else torch.empty_like(mean)
