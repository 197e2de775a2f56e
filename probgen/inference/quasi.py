"""Randomized quasi-Monte Carlo: scrambled Sobol points in place of independent Gaussian noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.quasirandom import SobolEngine

from probgen.inference.traces import PairTrace, Site, innermost

RANDOMIZATIONS = 16
"""Independent scrambles; the spread of their averages is the standard error."""


def rounded(num_samples: int) -> int:
    """The number of draws nearest to what was asked: as many points in each scramble, a power of two."""
    return RANDOMIZATIONS * 2 ** max(1, round(math.log2(num_samples / RANDOMIZATIONS)))


def gaussian_noise(
    trace: PairTrace, num_samples: int, seed: int, device: torch.device, dtype: torch.dtype,
    owner: str = "log_marginal_likelihood",
) -> dict[str, Tensor]:  # fmt: skip
    """Standard Gaussian points for every latent that the guide draws.

    Each scramble is a set of Sobol points in all elements of all latents at once, taken to the
    Gaussian by its quantiles. The same points serve all data.

    Args:
        trace: one pass of the pair, for the latents and their shapes.
        num_samples: as `rounded` returns it.
        seed: of the scrambles.
        device: where the points go.
        dtype: what they become; they are made in float64.
        owner: the function that messages name.

    Returns:
        Shape `(num_samples, 1, *event_shape)` by latent; the first points are the first scramble.

    Raises:
        ValueError: a latent that is not Gaussian with independent elements, or more elements than
            Sobol points have dims.

    References:
        Owen, 1997, "Scrambled net variance for integrals of smooth functions".
        L'Ecuyer and Lemieux, 2002, "Recent advances in randomized quasi-Monte Carlo methods".
        Buchholz, Wenzel and Mandt, 2018, "Quasi-Monte Carlo variational inference".
    """
    shapes: dict[str, torch.Size] = {}
    for name in trace.sampled:
        family = innermost(trace.guide[name]["fn"])
        if not isinstance(family, torch.distributions.Normal):
            raise ValueError(
                f'{owner}: draws="rqmc" is for Gaussian latents, but the guide draws '
                f'{name} from {type(family).__name__}. Use draws="iid".'
            )
        shapes[name] = trace.guide[name]["fn"].event_shape
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
    """Scrambled Sobol points taken to the Gaussian, `(num_samples, size)`, in float64.

    Args:
        num_samples: as `rounded` returns it.
        size: how many dims.
        seed: of the scrambles.
    """
    points = num_samples // RANDOMIZATIONS
    edge = 2.0**-32  # below the engine's resolution; 0 itself would be taken to -inf
    parts = []
    for index in range(RANDOMIZATIONS):
        engine = SobolEngine(size, scramble=True, seed=seed * RANDOMIZATIONS + index)
        uniform = engine.draw(points, dtype=torch.float64).clamp(edge, 1 - edge)
        parts.append(torch.special.ndtri(uniform))
    return torch.cat(parts)


class GivenNoise(Messenger):
    """Gaussian latents of a guide take their noise from here: location + scale · noise."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.noise = noise

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.noise and not msg["done"] and not msg["is_observed"]:
            site: Site = msg
            family = innermost(site["fn"])
            site["value"] = family.loc + family.scale * self.noise[site["name"]]
            site["done"] = True
