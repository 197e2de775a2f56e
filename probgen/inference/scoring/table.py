"""Scores of several models on the same data, as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from probgen.basics.text import aligned
from probgen.inference.scoring.scores import Score


def table(scores: Mapping[str, Score]) -> str:
    """Scores of several models on the same data, best first, as an aligned table.

    Args:
        scores: by the names that the table shows.

    Returns:
        Text: for each model the average in nats per datum, its Monte Carlo error, its error as an
        estimate over new data, the estimated bias, the method, draws and decoder passes per datum,
        and the medians of ESS and k̂.

    Raises:
        TypeError: a value that is no Score.
        ValueError: scores of different data, or of a density and of a probability mass, which
            cannot be compared.

    Example:
        >>> import torch, probgen as pg
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1)).set_maximum_likelihood(x)
        >>> scores = {"ppca": pg.log_marginal_likelihood(ppca, x, method="exact")}
        >>> pg.table(scores).splitlines()[0].split()[:3]
        ['model', 'log', 'p(x)']
    """
    if not isinstance(scores, Mapping):
        raise TypeError(
            f"table: expected a dict of scores by the model's name, got {type(scores).__name__}."
        )
    if not scores:
        raise ValueError("table: got no scores. Give at least one, by the model's name.")
    for name, score in scores.items():
        if not isinstance(score, Score):
            raise TypeError(f"table: {name} must be a Score, got {type(score).__name__}.")
    first_name, first = next(iter(scores.items()))
    for name, score in scores.items():
        for what, a, b in (
            ("quantities", first.quantity, score.quantity),
            ("measures", first.measure, score.measure),
            ("transformations", first.transformation, score.transformation),
            ("data", first.data_hash, score.data_hash),
        ):
            if a != b:
                raise ValueError(
                    f"table: {first_name} and {name} have different {what} ({a} and {b}), so their "
                    "scores cannot be compared. Score both on the same prepared Dataset, and the "
                    'same variables of it, as in data.only("x").'
                )
    rows = [
        ("model", first.quantity, "± MC", "± test", "bias", "method", "K", "passes", "ESS median",
         "k̂ median")
    ]  # fmt: skip
    for name, score in sorted(scores.items(), key=lambda item: -item[1].mean):
        exact = score.is_exact
        rows.append(
            (
                name,
                f"{'>= ' if score.is_lower_bound else ''}{score.mean:.2f}",
                "exact" if exact else f"{score.monte_carlo_error:.3f}",
                f"{score.sampling_error:.2f}",
                "0" if exact else f"{score.mean_bias:.3f}",
                score.method,
                "-" if exact else str(score.num_samples),
                f"{score.decoder_passes:,.0f}" if score.decoder_passes else "-",
                "-" if exact else f"{np.median(score.ess):.1f}",
                "-" if exact or math.isnan(score.khat_median) else f"{score.khat_median:.2f}",
            )
        )
    lines, widths = aligned(rows, left={0, 5})
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += [
        f">= {name}: {'; '.join(score.reasons())}"
        for name, score in scores.items()
        if score.is_lower_bound
    ]
    lines.append(
        f"nats per datum, {first.measure}; {len(first.log_prob)} data, hash {first.data_hash}"
    )
    if first.transformation != "none":
        lines.append(f"data: {first.transformation}")
    if first.log_jacobian:
        lines.append(
            f"for the density of the data before scaling, add {first.log_jacobian:.2f} nats "
            "(log-Jacobian)"
        )
    return "\n".join(lines)
