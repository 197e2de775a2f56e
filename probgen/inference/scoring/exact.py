"""The closed form of log p(x), for pairs that have a method `log_prob`."""

from __future__ import annotations

import inspect

import numpy as np
import torch
from torch import Tensor

from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.data.dataset import Dataset
from probgen.inference.scoring.base import Estimate, ScoreSettings, ScoringMethod
from probgen.pair import LatentVariableModel

ROWS = 10_000
"""Number of data whose closed form is computed at a time; the memory needed is a multiple of them."""


class Exact(ScoringMethod):
    """`pair.log_prob` of the data, in nats; nothing is drawn."""

    num_processes = "one"

    def estimate(
        self, pair: LatentVariableModel, data: Dataset, device: torch.device,
        settings: ScoreSettings, *, rank: int = 0, first_row: int = 0,
    ) -> Estimate:  # fmt: skip
        """See `ScoringMethod`.

        Raises:
            ValueError: the pair has no closed form, or one of other variables, or a value of it is
                not finite.
        """
        owner = "log_marginal_likelihood"
        method = getattr(pair, "log_prob", None)
        if not callable(method):
            raise ValueError(
                f"{owner}: {pair.name} has no closed form (a method log_prob); use "
                'method="importance".'
            )
        wanted = variables_of_closed_form(pair)
        if set(wanted) != set(data.values):
            raise ValueError(
                f"{owner}: the closed form of {pair.name} is of {', '.join(wanted)}, got "
                f"{', '.join(data.values)}."
            )
        blocks = (slice(first, first + ROWS) for first in range(0, len(data), ROWS))
        with evaluation(pair), fixed_seed(settings.seed, device):
            parts: list[Tensor] = [method(**data.batch(rows)[0]).double().cpu() for rows in blocks]
        log_prob = torch.cat(parts).numpy()
        if log_prob.shape != (len(data),) or not np.isfinite(log_prob).all():
            raise ValueError(
                f"{owner}: {pair.name}.log_prob must return {len(data)} finite values, one per datum, "
                f"got shape {log_prob.shape} with {int((~np.isfinite(log_prob)).sum())} not finite."
            )
        zero = np.zeros_like(log_prob)
        columns = {
            "log_prob": log_prob, "standard_error": zero, "bias": zero,
            "ess": np.full_like(zero, np.nan), "khat": np.full_like(zero, -np.inf),
        }  # fmt: skip
        return Estimate(columns, "exact", num_samples=0, decoder_passes=0)


def variables_of_closed_form(pair: LatentVariableModel) -> list[str]:
    """The variables that the pair's closed form takes; none where it has no closed form."""
    method = getattr(pair, "log_prob", None)
    return list(inspect.signature(method).parameters) if callable(method) else []
