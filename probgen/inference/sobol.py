"""Randomized quasi-Monte Carlo: scrambled Sobol points instead of independent Gaussian noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.quasirandom import SobolEngine

from probgen.inference.traces import PairTrace, Site

RANDOMIZATIONS = 16
"""Number of independent scrambles; the standard error is estimated from their averages."""


def rounded(num_samples: int) -> int:
    """The number 16 · 2^m, m ≥ 1, nearest to `num_samples`; if two are equally near, the smaller."""
    lower = RANDOMIZATIONS * 2
    while 2 * lower <= num_samples:
        lower *= 2
    return lower if num_samples - lower <= 2 * lower - num_samples else 2 * lower


def gaussian_noise(
    trace: PairTrace, num_samples: int, seed: int, device: torch.device, dtype: torch.dtype,
    owner: str = "log_marginal_likelihood",
) -> dict[str, Tensor]:  # fmt: skip
    """Standard Gaussian points for every latent that the guide draws.

    Each scramble is a set of Sobol points whose dimensions are all elements of all latents,
    transformed by the Gaussian's quantile function. All data share the points.

    Args:
        trace: one pass of the pair, for the latents and their shapes.
        num_samples: as `rounded` returns it.
        seed: of the scrambles.
        device: where the points are moved.
        dtype: what they are converted to; they are computed in float64.
        owner: the function that error messages name.

    Returns:
        Shape `(num_samples, 1, *noise_shape)` by latent; the first points are the first scramble.

    Raises:
        ValueError: a latent that is not a transformation of independent Gaussian elements, or more
            elements than Sobol points have dimensions.

    References:
        Owen, 1997, "Scrambled net variance for integrals of smooth functions".
        L'Ecuyer and Lemieux, 2002, "Recent advances in randomized quasi-Monte Carlo methods".
        Buchholz, Wenzel and Mandt, 2018, "Quasi-Monte Carlo variational inference".
    """
    shapes: dict[str, torch.Size] = {}
    for name in trace.sampled:
        try:
            shapes[name] = noise_shape(trace.guide[name]["fn"])
        except NotGaussianError as error:
            raise ValueError(
                f'{owner}: draws="rqmc" is for Gaussian latents and transformations of them, but '
                f'the guide draws {name} from {error}. Use draws="iid".'
            ) from None
    size = sum(shape.numel() for shape in shapes.values())
    if size > SobolEngine.MAXDIM:
        raise ValueError(
            f'{owner}: draws="rqmc" takes at most {SobolEngine.MAXDIM:,} elements of '
            f'all latents, got {size:,}. Use draws="iid".'
        )
    points = gaussian_points(num_samples, size, seed)
    columns = points.split([shape.numel() for shape in shapes.values()], dim=1)
    return {
        name: column.reshape(num_samples, 1, *shape).to(device=device, dtype=dtype)
        for (name, shape), column in zip(shapes.items(), columns, strict=True)
    }


def gaussian_points(num_samples: int, size: int, seed: int) -> Tensor:
    """Scrambled Sobol points transformed to Gaussian ones, `(num_samples, size)`, in float64.

    Args:
        num_samples: as `rounded` returns it.
        size: the number of dimensions.
        seed: of the scrambles.
    """
    points = num_samples // RANDOMIZATIONS
    edge = 2.0**-32  # below the engine's resolution; the quantile at 0 would be -inf
    parts = []
    for index in range(RANDOMIZATIONS):
        engine = SobolEngine(size, scramble=True, seed=seed * RANDOMIZATIONS + index)
        uniform = engine.draw(points, dtype=torch.float64).clamp(edge, 1 - edge)
        parts.append(torch.special.ndtri(uniform))
    return torch.cat(parts)


class NotGaussianError(Exception):
    """A distribution that is not drawn by transforming independent Gaussian elements."""


def noise_shape(fn: Any) -> torch.Size:
    """Shape of the standard Gaussian noise behind one event of a distribution.

    It differs from the shape of the event if a transformation changes that, as stick-breaking does.

    Raises:
        NotGaussianError: there is no such noise; the message is the name of the family.
    """
    _check_draws(fn)
    if isinstance(fn, torch.distributions.Normal):
        return torch.Size()
    inner = fn.base_dist.batch_shape[len(fn.batch_shape) :] if _is_independent(fn) else ()
    return torch.Size((*inner, *noise_shape(fn.base_dist)))


def from_noise(fn: Any, noise: Tensor) -> Tensor:
    """The value that a distribution draws for given standard Gaussian noise.

    Location + scale · noise, then every transformation, in the order in which the distribution applies
    them.

    Args:
        fn: a Gaussian, or wrappers and transformations of one.
        noise: shape `(..., *noise_shape)`; the dimensions on the left broadcast with the batch shape.

    Raises:
        NotGaussianError: as `noise_shape`.
    """
    _check_draws(fn)
    if isinstance(fn, torch.distributions.Normal):
        value: Tensor = fn.loc + fn.scale * noise
        return value
    value = from_noise(fn.base_dist, noise)
    if isinstance(fn, torch.distributions.TransformedDistribution):
        for transform in fn.transforms:
            value = transform(value)
    elif isinstance(fn, dist.ExpandedDistribution):
        value = value.expand(torch.broadcast_shapes(value.shape, fn.shape()))
    return value


def is_gaussian(fn: Any) -> bool:
    """Whether a distribution is a Gaussian with independent elements, without transformations."""
    try:
        _check_draws(fn)
    except NotGaussianError:
        return False
    if isinstance(fn, torch.distributions.Normal):
        return True
    transformed = isinstance(fn, torch.distributions.TransformedDistribution) and fn.transforms
    return not transformed and is_gaussian(fn.base_dist)


def _is_independent(fn: Any) -> bool:
    return isinstance(fn, torch.distributions.Independent)


def _check_draws(fn: Any) -> None:
    """Refuse families that may draw in another way, such as subclasses with their own `rsample`."""
    for known in (
        torch.distributions.Normal,
        torch.distributions.Independent,
        torch.distributions.TransformedDistribution,
        dist.MaskedDistribution,
        dist.ExpandedDistribution,
    ):
        if isinstance(fn, known) and type(fn).rsample is known.rsample:
            return
    raise NotGaussianError(type(fn).__name__)


class GivenNoise(Messenger):
    """Gaussian latents of a guide, and transformations of them, use this noise instead of random draws."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.noise = noise

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.noise and not msg["done"] and not msg["is_observed"]:
            site: Site = msg
            site["value"] = from_noise(site["fn"], self.noise[site["name"]])
            site["done"] = True
