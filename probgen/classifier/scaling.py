"""Scaling: columns of a table or pixels of images as the data x of a pair, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probgen.data.dataset import Dataset
from probgen.data.field import Field
from probgen.variables import Bernoulli, Normal, Variable

Likelihood = Literal["auto", "bernoulli", "normal"]
Array = NDArray[np.float64]

LARGEST_LEVEL = 255
"""Whole numbers from 0 up to this one may be grey levels."""

EXTREME = 0.75
"""Grey levels are taken as probabilities if at least this share of them is near black or white."""


@dataclass(frozen=True)
class Scaling:
    """How columns become elements of x: (column - shift) / scale, without constant columns.

    Attributes:
        likelihood: `"bernoulli"`, where x in [0, 1] is the probability of a one; or `"normal"`.
        shift: what is subtracted from each column, shape `(columns,)`.
        scale: what each column is divided by, above 0, shape `(columns,)`.
        varying: which columns are elements of x, shape `(columns,)`.
    """

    likelihood: Literal["bernoulli", "normal"]
    shift: Array
    scale: Array
    varying: NDArray[np.bool_]

    @classmethod
    def of(cls, values: Array, likelihood: Likelihood, owner: str) -> Scaling:
        """Choose the scaling of some rows.

        `"auto"` takes values as probabilities of ones if they lie in [0, 1], or are whole numbers from 0
        to at most 255, and if three quarters of them are within a tenth of either end of that range and
        most columns reach the upper end, as in drawings and scans. It standardizes the columns of all
        other data.

        Args:
            values: rows, shape `(rows, columns)`.
            likelihood: `"bernoulli"`, `"normal"` or `"auto"`.
            owner: the caller, for messages.

        Raises:
            ValueError: an unknown word, values below 0 for `"bernoulli"`, or no column that varies.
        """
        if likelihood not in ("auto", "bernoulli", "normal"):
            raise ValueError(
                f'{owner}: likelihood must be "auto", "bernoulli" or "normal", got {likelihood!r}.'
            )
        low, high = values.min(0), values.max(0)
        if not bool((low < high).any()):
            raise ValueError(
                f"{owner}: no column varies over the {len(values)} rows, so there is nothing to learn."
            )
        if likelihood == "auto":
            likelihood = "bernoulli" if _near_black_or_white(values) else "normal"
        width = values.shape[1]
        if likelihood == "bernoulli":
            if low.min() < 0:
                raise ValueError(
                    f'{owner}: likelihood="bernoulli" takes values of at least 0, got {low.min():.4g}. '
                    'Rescale them, or use "normal".'
                )
            top = max(1.0, float(high.max()))
            return cls("bernoulli", np.zeros(width), np.full(width, top), np.ones(width, bool))
        # Squares of huge or tiny values would overflow or underflow, so columns are divided first.
        size = np.maximum(np.abs(low), np.abs(high))
        relative = values / np.where(size > 0, size, 1)
        deviation = relative.std(0)
        varying = (low < high) & (deviation > 0)
        scale = np.where(varying, deviation * size, 1.0)
        return cls("normal", relative.mean(0) * size, scale, varying)

    @classmethod
    def for_training(
        cls, values: Array, likelihood: Likelihood, encoder: Any, owner: str
    ) -> Scaling:
        """The scaling of training rows: that of a trained encoder, or one chosen by the rows.

        Args:
            values: rows, shape `(rows, columns)`.
            likelihood: as `of` takes it; an encoder has its own.
            encoder: a trained VAE that `train_encoder` returned, any other VAE, or `None`.
            owner: the caller, for messages.

        Raises:
            ValueError: an encoder that was trained on other rows; or as `of`.
        """
        scaling: Scaling = getattr(encoder, "scaling", None) or cls.of(values, likelihood, owner)
        factor = None if encoder is None else encoder.factors("p").get("x")
        num_columns = len(scaling.varying)
        differs = factor and repr(factor.variable) != repr(scaling.variable)
        if values.shape[1] != num_columns or differs:
            raise ValueError(
                f"{owner}: encoder= was trained on other rows: its x is {factor and factor.variable!r}, of "
                f"{num_columns} columns; these rows have {values.shape[1]} columns, from which x is "
                f"{scaling.variable!r}. Train it on rows like these."
            )
        return scaling

    def __call__(self, values: Array) -> Tensor:
        """Rows as x, shape `(rows, elements)`.

        Probabilities stay in [0, 1], also for rows with values beyond those of the training rows.
        """
        x = ((values - self.shift) / self.scale)[:, self.varying]
        return torch.from_numpy(x.clip(0, 1) if self.likelihood == "bernoulli" else x)

    def dataset(
        self,
        values: Array,
        codes: NDArray[Any] | None = None,
        known: NDArray[np.bool_] | None = None,
    ) -> Dataset:
        """Rows as the data of a pair.

        Args:
            values: rows, shape `(rows, columns)`.
            codes: class codes y of the rows, shape `(rows,)`.
            known: which class codes are known; `None` says nothing about that.
        """
        fields = {"x": Field(self(values))}
        if codes is not None:
            mask = None if known is None else torch.from_numpy(known)
            fields["y"] = Field(torch.from_numpy(codes), mask)
        data = Dataset.from_fields(fields)
        return data.binarized("dynamic") if self.likelihood == "bernoulli" else data

    def inverse(self, x: Tensor) -> Array:
        """Rows in the units of the table, of x `(rows, elements)`; constant columns get their mean."""
        values = np.repeat(self.shift[None], len(x), 0)
        values[:, self.varying] += x.double().numpy() * self.scale[self.varying]
        return values

    @property
    def variable(self) -> Variable:
        """Family and shape of x: Bernoulli, or Gaussian with one learned scale for each column."""
        size = int(self.varying.sum())
        return Bernoulli(size) if self.likelihood == "bernoulli" else Normal(size, "shared")


def _near_black_or_white(values: Array) -> bool:
    """Whether values are zeros and ones, or grey levels most of which are near black or white."""
    top = values.max()
    if values.min() < 0 or top > LARGEST_LEVEL or (top > 1 and (values != np.round(values)).any()):
        return False
    top = max(top, 1.0)
    extreme = (values <= 0.1 * top) | (values >= 0.9 * top)
    # Pixels have the same range, columns of a table have ranges of their own.
    largest = values.max(0)[values.min(0) < values.max(0)]
    return bool(extreme.mean() >= EXTREME and np.median(largest) >= 0.9 * top)
