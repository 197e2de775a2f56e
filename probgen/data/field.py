"""All that a data set knows of one variable, in one record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from probgen.basics.tensors import as_tensor
from probgen.data.noise import Noise, Rows

FEWEST_PIXELS = 49
"""A vector is taken for an image if its size is a square of at least this number."""


@dataclass(frozen=True, eq=False)
class Field:
    """One variable of a data set: its values, and what is known about them.

    Attributes:
        values: shape `(data, *event_shape)`.
        observed: a boolean mask of the rows whose value is known, shape `(data,)`; `None` if all
            are. Values where it is false are never looked at. Its first dim is the data, as that
            of a mask by elements, `(data, *event_shape)`, would be.
        noise: what is drawn anew in every batch.
        transformation: what was done to the raw values, in words.
        log_jacobian: what to add to log p per datum for the density before the transformation,
            nats.
        classes: what the classes 0, 1, ... are called, if they have names.
        images: whether a datum is an image; `None` to decide by the shape.

    Example:
        >>> import probgen as pg, torch
        >>> images, table = pg.Field(torch.zeros(3, 64)), pg.Field(torch.zeros(3, 64), images=False)
        >>> images.is_images, table.is_images
        (True, False)
        >>> pg.Dataset.from_fields({"x": images})
        Dataset(data, 3 data: x (64,))
    """

    values: Tensor
    observed: Tensor | None = None
    noise: Noise | None = None
    transformation: str | None = None
    log_jacobian: float | None = None
    classes: Sequence[Any] | None = None
    images: bool | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def is_images(self) -> bool:
        """Whether a datum is an image: as it is said, or else as its shape suggests."""
        if self.images is not None:
            return self.images
        return looks_like_images(tuple(self.values.shape[1:]))

    @property
    def known(self) -> Tensor:
        """A boolean mask of the rows whose value is known, shape `(data,)`."""
        if self.observed is not None:
            return self.observed
        return torch.ones(len(self.values), dtype=torch.bool, device=self.values.device)

    def checked(self, name: str, owner: str = "Dataset") -> Field:
        """The record with tensors in place of whatever holds numbers.

        Args:
            name: the variable, for messages.
            owner: the function that messages name.

        Raises:
            TypeError: values that are not numbers, or a mask that is not boolean or of another
                shape.
            ValueError: masked cells, or noise that does not fit the values.
        """
        values, mask = as_tensor(self.values, name, owner), self.observed
        if mask is not None:
            mask = as_tensor(mask, f"observed[{name!r}]")
            if mask.dtype != torch.bool or mask.shape != values.shape[:1]:
                raise TypeError(
                    f"Dataset: observed[{name!r}] must be a boolean mask of the rows, of shape "
                    f"({len(values)},), got {mask.dtype} of shape {tuple(mask.shape)}."
                )
        noise = None if self.noise is None else self.noise.checked(values, name)
        return replace(self, values=values, observed=mask, noise=noise)

    def subset(self, rows: Rows) -> Field:
        """Some of the data."""
        return replace(
            self,
            values=self.values[rows],
            observed=None if self.observed is None else self.observed[rows],
            noise=None if self.noise is None else self.noise.subset(rows),
        )

    def columns(self, columns: Tensor | slice) -> Field:
        """Some elements of each datum, which is a vector.

        The log-Jacobian stays; it is that of all elements.
        """
        noise = None if self.noise is None else self.noise.columns(columns)
        return replace(self, values=self.values[:, columns], noise=noise)

    def rows(self, rows: Rows) -> Tensor:
        """The stored values of a batch, without noise."""
        if isinstance(rows, Tensor) and rows.dtype != torch.bool:
            return self.values.index_select(0, rows)  # a third of the time of values[rows]
        return self.values[rows]

    def with_values(self, values: Tensor) -> Field:
        """The same record of other values; noise takes their device and dtype."""
        noise = None if self.noise is None else self.noise.to(values)
        return replace(self, values=values, noise=noise)

    def to(self, device: torch.device) -> Field:
        """The record on a device."""
        mask = None if self.observed is None else self.observed.to(device)
        return replace(self.with_values(self.values.to(device)), observed=mask)


def looks_like_images(shape: Sequence[int]) -> bool:
    """Whether a datum of this shape is taken for an image: the one rule, where nothing is said.

    A height and a width above one make an image, with a channel of size one or without. A vector is
    taken for one if its size is a square of at least `FEWEST_PIXELS`. `Field.images` decides where
    it is known what the values are.
    """
    if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1):
        return min(shape[-2:]) > 1
    return len(shape) == 1 and shape[0] >= FEWEST_PIXELS and math.isqrt(shape[0]) ** 2 == shape[0]
