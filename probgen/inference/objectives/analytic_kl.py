"""The evidence lower bound with closed-form KL terms, where there are some."""

from __future__ import annotations

from functools import partial

from probgen.inference.objectives.elbo import ELBO

OBJECTIVE = partial(ELBO, analytic_kl=True)
