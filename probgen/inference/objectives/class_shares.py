"""The semi-supervised objective with a Dirichlet prior on learned class probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from probgen.inference.objectives.semisupervised import SemiSupervised
from probgen.pair import LatentVariableModel

CONCENTRATION = 2.0
"""Concentration of the Dirichlet prior for each class: 2 acts like one more row of each class."""


class LearnedClassShares(SemiSupervised):
    r"""`SemiSupervised` with a Dirichlet prior on a learned p(y) = π.

    $$\mathcal J + \frac{c - 1}{N} \sum_k \log \pi_k$$

    N is the number of data and c the concentration for each class. For every value of the other
    parameters the objective is largest at

    $$\pi_k = \frac{n_k + \sum_{i\,\text{unlabelled}} q(y = k \mid x_i) + c - 1}{N + K (c - 1)}$$

    with n_k the number of labelled rows of class k and K the number of classes. These are the shares of
    the classes among all rows, where each unlabelled row counts for every class by its probability under
    the classifier. So the estimate is also valid if the rows to be labelled were chosen class by class,
    when their counts alone say nothing about the shares. No class gets probability zero, because π_k is
    at least (c − 1) / (N + K (c − 1)).

    Args:
        num_data: N, the number of data of the fit.
        concentration: c, above 1.
        **settings: the settings of `SemiSupervised`.

    References:
        Bishop, 2006, "Pattern recognition and machine learning", section 2.2.1 (the Dirichlet prior).
    """

    def __init__(
        self, num_data: int, *, concentration: float = CONCENTRATION, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.num_data, self.concentration = num_data, concentration

    def __repr__(self) -> str:
        return (
            f"{super().__repr__()[:-1]}, concentration={self.concentration:g} over {self.num_data})"
        )

    def __call__(
        self, pair: LatentVariableModel, data: Mapping[str, Tensor], **further: Any
    ) -> Tensor:
        """The value of `SemiSupervised` for each datum, plus the same prior term for all."""
        logits = pair.factors("p")[self.label]().logits
        log_prior = (self.concentration - 1) / self.num_data * logits.log_softmax(-1).sum()
        return super().__call__(pair, data, **further) + log_prior
