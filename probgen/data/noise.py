"""Noise that is drawn anew in every batch: binarization, Gaussian noise, and corruption of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from probgen.basics.tensors import as_tensor

Rows = Tensor | slice
"""Rows of the data: indices, a boolean mask, or a slice."""

HowCorrupted = Literal["masking", "salt-and-pepper", "gaussian"]


class Noise:
    """Noise that is drawn anew for a variable in every batch.

    `draw` consists of tensor operations alone, so that it may run on a GPU inside a recorded step.
    """

    support: Any = None
    """The torch constraint on the stored values, if the noise requires one."""

    def draw(self, values: Tensor, rows: Rows) -> Tensor:
        """A batch with new noise, from torch's generator.

        Args:
            values: the stored values of the batch, shape `(batch, *event_shape)`.
            rows: which rows of the data they are.
        """
        raise NotImplementedError

    def store(self, values: Tensor, seed: int, index: int = 0) -> Tensor:
        """One draw for all the data, from a generator of its own.

        Args:
            values: shape `(data, *event_shape)`.
            seed: of the draw.
            index: counts the variables of a data set, so that their noise is independent.
        """
        raise NotImplementedError

    def without_noise(self, values: Tensor) -> Tensor:
        """Values that a batch may contain, without randomness, for checks of shape and support."""
        return values

    def checked(self, values: Tensor, name: str) -> Noise:
        """The noise, after a check that it fits the values of a variable."""
        return self

    def subset(self, rows: Rows) -> Noise:
        """The noise of some of the data."""
        return self

    def columns(self, columns: Tensor | slice) -> Noise:
        """The noise of some elements of each datum."""
        return self

    def to(self, values: Tensor) -> Noise:
        """The noise on the device and in the dtype of the values."""
        return self


@dataclass(frozen=True, eq=False)
class Binarization(Noise):
    """Values are probabilities, and a batch holds zeros and ones drawn with them.

    References:
        Salakhutdinov and Murray, 2008, "On the quantitative analysis of deep belief networks".
    """

    support = constraints.unit_interval

    def draw(self, values: Tensor, rows: Rows) -> Tensor:
        # This takes a third of the time of torch.bernoulli, and is as exact: never 1 at
        # probability 0, always 1 at probability 1.
        return torch.rand_like(values).lt_(values)

    def store(self, values: Tensor, seed: int, index: int = 0) -> Tensor:
        uniform = torch.from_numpy(np.random.default_rng(seed).random(tuple(values.shape)))
        return (uniform < values.double()).float()

    def without_noise(self, values: Tensor) -> Tensor:
        return (values > 0.5).float()


@dataclass(frozen=True, eq=False)
class GaussianNoise(Noise):
    """Values are means, and a batch holds draws from Gaussians around them.

    Attributes:
        scale: the standard deviations, shape of the values, `(data, *event_shape)`.
    """

    scale: Tensor

    def draw(self, values: Tensor, rows: Rows) -> Tensor:
        return values + self.scale[rows] * torch.randn_like(values)

    def store(self, values: Tensor, seed: int, index: int = 0) -> Tensor:
        noise = np.random.default_rng([seed, index]).standard_normal(tuple(self.scale.shape))
        return values + self.scale * torch.from_numpy(noise).to(self.scale)

    def checked(self, values: Tensor, name: str) -> GaussianNoise:
        scale = as_tensor(self.scale, f"spread[{name!r}]")
        if scale.shape != values.shape or not bool((scale >= 0).all()):
            raise ValueError(
                f"Dataset: spread[{name!r}], the standard deviations of Gaussian noise, must be at least 0 "
                f"and have the shape of {name}, {tuple(values.shape)}; got shape {tuple(scale.shape)}"
                + ("." if scale.shape != values.shape else f" and values from {scale.min():.4g}.")
            )
        return GaussianNoise(scale)

    def subset(self, rows: Rows) -> GaussianNoise:
        return GaussianNoise(self.scale[rows])

    def columns(self, columns: Tensor | slice) -> GaussianNoise:
        return GaussianNoise(self.scale[:, columns])

    def to(self, values: Tensor) -> GaussianNoise:
        return GaussianNoise(self.scale.to(values))

    def divided_by(self, scale: Tensor) -> GaussianNoise:
        """The noise of values that are divided by a scale, shape `event_shape`."""
        return GaussianNoise((self.scale / scale).float())


@dataclass(frozen=True, eq=False)
class Corruption(Noise):
    """Corruption of the input of a denoising autoencoder; its target is not corrupted.

    Attributes:
        how: `"masking"` sets elements to 0, `"salt-and-pepper"` sets them to 0 or 1 with equal
            probability, `"gaussian"` adds Gaussian noise.
        level: the probability with which an element is changed, or the standard deviation.

    Raises:
        ValueError: an unknown word, or a level out of range.

    References:
        Vincent, Larochelle, Lajoie, Bengio and Manzagol, 2010, "Stacked denoising autoencoders",
        section 4.3.
    """

    how: HowCorrupted
    level: float

    def __post_init__(self) -> None:
        if self.how not in get_args(HowCorrupted):
            listed = ", ".join(f'"{word}"' for word in get_args(HowCorrupted))
            raise ValueError(f"Corruption: how must be one of {listed}, got {self.how!r}.")
        number = isinstance(self.level, (int, float)) and not isinstance(self.level, bool)
        most = float("inf") if self.how == "gaussian" else 1.0
        if not number or not 0 < self.level <= most or self.level == float("inf"):
            expected = (
                "a positive standard deviation"
                if self.how == "gaussian"
                else "a probability above 0 and at most 1"
            )
            raise ValueError(f"Corruption: level must be {expected}, got {self.level!r}.")

    @property
    def words(self) -> str:
        """A description of the corruption, such as `with 30 % of its elements set to 0`."""
        if self.how == "gaussian":
            return f"with Gaussian noise of standard deviation {self.level:g}"
        value = "0" if self.how == "masking" else "0 or 1"
        return f"with {100 * self.level:g} % of its elements set to {value}"

    def draw(self, values: Tensor, rows: Rows) -> Tensor:
        sample = torch.randn_like if self.how == "gaussian" else torch.rand_like
        return self._corrupted(values, sample(values))

    def store(self, values: Tensor, seed: int, index: int = 0) -> Tensor:
        generator = np.random.default_rng([seed, index])
        sample = generator.standard_normal if self.how == "gaussian" else generator.random
        return self._corrupted(values, torch.from_numpy(sample(tuple(values.shape))).to(values))

    def _corrupted(self, values: Tensor, noise: Tensor) -> Tensor:
        """Values changed by standard normal or uniform noise of their shape."""
        if self.how == "gaussian":
            return values + self.level * noise
        if self.how == "masking":
            return torch.where(noise < self.level, torch.zeros_like(values), values)
        ones = (noise < self.level / 2).to(values.dtype)
        return torch.where(noise < self.level, ones, values)

    def checked(self, values: Tensor, name: str) -> Corruption:
        if not values.is_floating_point():
            raise TypeError(
                f"Dataset: {name} is corrupted in every batch, so it must hold floats, got "
                f"{values.dtype}. Convert it, or let Dataset.corrupted do so."
            )
        if self.how == "salt-and-pepper" and not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError(
                f"Dataset: salt-and-pepper noise sets elements to 0 or 1, so {name} must lie in [0, 1], got "
                f"values from {values.min():.4g} to {values.max():.4g}. Rescale {name} first."
            )
        return self
