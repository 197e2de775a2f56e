"""Columns of a table or pixels of images as the data x of a pair, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import validation
from torch import Tensor

from probgen.basics.tensors import refuse_masked
from probgen.variables import Bernoulli, Normal, Variable

Likelihood = Literal["auto", "bernoulli", "normal"]
Array = NDArray[np.float64]

LARGEST_LEVEL = 255
"""Whole numbers up to this one may be grey levels."""

EXTREME = 0.75
"""Share of grey levels near black or white from which on they are taken as probabilities."""


@dataclass(frozen=True)
class Scaling:
    """How columns become elements of x: (column - shift) / scale, without columns that never vary.

    Attributes:
        likelihood: `"bernoulli"`, x in [0, 1] is the probability of a one; or `"normal"`.
        shift: of every column.
        scale: of every column, above 0.
        kept: which columns are elements of x.
    """

    likelihood: Literal["bernoulli", "normal"]
    shift: Array
    scale: Array
    kept: NDArray[np.bool_]

    @classmethod
    def of(cls, values: Array, likelihood: Likelihood, owner: str) -> Scaling:
        """What fits some rows.

        `"auto"` takes values in [0, 1], or whole numbers from 0 to at most 255, as probabilities of ones
        where three quarters of them lie within a tenth of either end and most columns reach both, as in
        drawings and scans, and standardizes the columns of everything else.

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
            likelihood = "bernoulli" if _black_and_white(values) else "normal"
        width = values.shape[1]
        if likelihood == "bernoulli":
            if low.min() < 0:
                raise ValueError(
                    f'{owner}: likelihood="bernoulli" takes values of at least 0, got {low.min():.4g}. '
                    'Rescale them, or use "normal".'
                )
            top = max(1.0, float(high.max()))
            return cls("bernoulli", np.zeros(width), np.full(width, top), np.ones(width, bool))
        size = np.maximum(
            np.abs(low), np.abs(high)
        )  # squares of what is huge or tiny would be lost
        shares = values / np.where(size > 0, size, 1)
        spread = shares.std(0)
        kept = (low < high) & (spread > 0)
        return cls("normal", shares.mean(0) * size, np.where(kept, spread * size, 1.0), kept)

    def __call__(self, values: Array) -> Tensor:
        """Rows as x, shape `(rows, elements)`; beyond what training rows reach, probabilities stay in [0, 1]."""
        x = ((values - self.shift) / self.scale)[:, self.kept]
        return torch.from_numpy(x.clip(0, 1) if self.likelihood == "bernoulli" else x)

    def back(self, x: Tensor) -> Array:
        """Elements of x `(rows, elements)` as rows of the table; columns that never varied have their mean."""
        values = np.repeat(self.shift[None], len(x), 0)
        values[:, self.kept] += x.double().numpy() * self.scale[self.kept]
        return values

    @property
    def variable(self) -> Variable:
        """x, with one learned scale a column where it is Gaussian."""
        size = int(self.kept.sum())
        return Bernoulli(size) if self.likelihood == "bernoulli" else Normal(size, "shared")


def _black_and_white(values: Array) -> bool:
    """Whether values are zeros and ones, or grey levels of which few are in between."""
    top = values.max()
    if values.min() < 0 or top > LARGEST_LEVEL or (top > 1 and (values != np.round(values)).any()):
        return False
    top = max(top, 1.0)
    extreme = (values <= 0.1 * top) | (values >= 0.9 * top)
    reach = values.max(0)[values.min(0) < values.max(0)]  # columns of a table differ in this
    return bool(extreme.mean() >= EXTREME and np.median(reach) >= 0.9 * top)


def validate_data(estimator: Any, X: Any, y: Any = "no_validation", **settings: Any) -> Any:  # noqa: N803
    """scikit-learn's check of rows and labels, which would drop the mask of a masked array.

    Raises:
        ValueError: masked cells, or what scikit-learn refuses.
    """
    refuse_masked(X, "X", type(estimator).__name__)
    return validation.validate_data(estimator, X, y, **settings)
