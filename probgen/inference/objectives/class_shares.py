"""The objective of few labels where the shares of the classes are learned too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from probgen.inference.objectives.semisupervised import SemiSupervised
from probgen.pair import LatentVariableModel

CONCENTRATION = 2.0
"""Of the Dirichlet prior, for each class: as if one further row of each had been seen."""


class LearnedClassShares(SemiSupervised):
    r"""`SemiSupervised` with a Dirichlet prior on a learned p(y) = π.

    $$\mathcal J + \frac{c - 1}{N} \sum_k \log \pi_k$$

    N is the number of data and c the concentration for each class. Whatever the rest of the pair, the
    objective is then largest at

    $$\pi_k = \frac{n_k + \sum_{i\,\text{unlabelled}} q(y = k \mid x_i) + c - 1}{N + K (c - 1)}$$

    with n_k the labelled rows of class k: the shares of the classes among all rows, each unlabelled one
    divided by the classifier. So labels may be drawn class by class, whose counts alone would say nothing
    of the shares; and no class is given up, since π_k stays above (c − 1) / (N + K (c − 1)).

    Args:
        num_data: N, all data of the fit.
        concentration: c, above 1.
        **settings: of `SemiSupervised`.

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
        """A value for each datum, as `SemiSupervised`; the prior is the same number in each."""
        logits = pair.factors("p")[self.label]().logits
        log_prior = (self.concentration - 1) / self.num_data * logits.log_softmax(-1).sum()
        return super().__call__(pair, data, **further) + log_prior
