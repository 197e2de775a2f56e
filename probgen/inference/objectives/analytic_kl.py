"""The evidence lower bound with closed-form KL terms for the latents that have them."""

from __future__ import annotations

from functools import partial

from probgen.inference.objectives.elbo import ELBO

OBJECTIVE = partial(ELBO, analytic_kl=True)
