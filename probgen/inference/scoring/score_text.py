"""The printed form of a score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probgen.inference.scoring.arviz import FEWEST_DRAWS

METHOD_NAMES = {
    "exact": "closed form", "summed": "exact sum", "importance": "importance sampling",
}  # fmt: skip
"""The names of methods in text; other methods have their own name."""


def score_text(score: Any) -> str:
    """The printed form of a `pg.Score`: the average with its errors, the cost and the diagnostics."""
    head = (
        f"{score.quantity} {'>=' if score.is_lower_bound else '='} {score.mean:.2f} nats per datum"
    )
    errors = "exact" if score.is_exact else f"± {score.monte_carlo_error:.2g} Monte Carlo"
    draws = {0: "closed form", 1: "summed exactly"}.get(score.num_samples)
    draws = draws or f"K={score.num_samples}"
    if score.replicates is not None:
        draws += f", {len(score.replicates)} scrambles of Sobol points"
    head += f", {errors}, ± {score.sampling_error:.2g} test sampling"
    head += f" ({len(score.log_prob)} data, {draws})"
    extra = []
    if score.log_jacobian:
        extra.append(
            f"  scale for the density of the data before scaling, add {score.log_jacobian:.2f} nats"
        )
    if score.decoder_passes:
        passes = f"{score.decoder_passes:,.0f} decoder passes per datum"
        extra.append(f"  cost  {METHOD_NAMES.get(score.method, score.method)}, {passes}")
    if score.is_exact:
        return "\n".join([f"{head}; {_scored_data(score)}", *extra])
    head += f", bias {score.mean_bias:.2g}; {_scored_data(score)}"
    lines = [head, *extra, f"  ESS   {_summary(score.ess, worst=np.min, digits=1)}"]
    if np.isnan(score.khat).all():
        few = score.num_samples < FEWEST_DRAWS
        why = f"from fewer than {FEWEST_DRAWS} samples" if few else "from equal weights"
        lines.append(f"  k̂     not estimated {why}")
    else:
        share = f", {score.share_above_threshold:.1%} above {score.khat_threshold:.2f}"
        lines.append(f"  k̂     {_summary(score.khat, worst=np.max, digits=2)}{share}")
    warning = score.warning()
    if warning:
        lines.append(f"  note  {warning}")
    return "\n".join(lines)


def _scored_data(score: Any) -> str:
    """The measure, the transformation and the data of a score."""
    transformed = "" if score.transformation == "none" else f", {score.transformation}"
    return f"{score.measure}{transformed}, hash {score.data_hash}"


def _summary(values: NDArray[np.float64], worst: Callable[..., float], digits: int) -> str:
    """Median and worst value, without those that are not known."""
    finite = values[~np.isnan(values)]
    extreme = worst(finite)
    return f"median {np.median(finite):.{digits}f}, worst {extreme:.{digits}f}"
