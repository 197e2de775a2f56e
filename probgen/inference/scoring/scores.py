"""Scores that can be believed: log p(x) with its errors, its diagnostics and what it is a score of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probgen.basics.tensors import refuse_masked
from probgen.basics.text import aligned
from probgen.data.dataset import Dataset
from probgen.data.fingerprint import fingerprint
from probgen.inference.scoring.arviz import FEWEST_DRAWS

Array = NDArray[np.float64]


DOUBTFUL_SHARE = 0.1
"""Share of data with a k̂ that is too high, or unknown, from which on a score is doubted."""


class UnreliableEstimateWarning(UserWarning):
    """An importance-weighted estimate whose diagnostics say that it is a lower bound only."""


@dataclass(frozen=True, eq=False)
class Score:
    """log p(x) of a data set, per datum and on average, in nats.

    The average of importance weights has log p(x) as an upper bound of its expectation. The number is
    printed with `=` only where nothing says that it is lower by more than its error, `is_lower_bound`;
    `>=`, the notes and `warning()` follow that one property.

    A k̂ above the threshold says that errors cannot be believed; one below it does not say that they
    can. All diagnostics here are of the weights that were drawn. Where the guide misses a part of the
    posterior, none is drawn there: weights look even, k̂ is low, and the number is too low by more
    than the error stated. What helps is to compare: other guides, other seeds with many more draws,
    or data simulated by the model.

    Attributes:
        log_prob: per datum, shape `(data,)`.
        standard_error: Monte Carlo standard error of each; zero where the value is exact.
        bias: estimated bias of each, at most zero: −(relative variance of the mean weight) / 2.
        ess: effective sample size of each.
        khat: Pareto shape of each datum's weights; −inf where they are equal ("exact"), 0 or +inf
            where the largest are tied, as those of discrete latents with few states are (0: their
            frequencies are known well enough); NaN where there are fewer than 25 draws, or where all
            draws of a discrete latent have one weight, which says nothing of states not drawn.
        num_samples: importance samples a datum; 0 for a closed form.
        measure: what the nats are of, such as "density of x".
        transformation: what was done to the raw data.
        log_jacobian: what to add for the density before the transformation, nats.
        data_hash: fingerprint of the data scored.
        name: of the model.
        quantity: what was scored, such as `log p(x)`, `log p(x, y)` or `log p(x | y)`.
        replicates: for quasi-Monte Carlo the estimate of p(x) by each randomization over the one by
            all, shape `(randomizations, data)`; their points are shared by the data, so the errors
            of the data are not independent.
        chunk: data and draws in a pass. With other chunks the same seed gives other draws; they
            follow from the pair, the number of data and the device.
        precision: what networks and log-probabilities were computed in, where that is known.

    References:
        Burda, Grosse and Salakhutdinov, 2016, "Importance weighted autoencoders", eq. 8.
        Nowozin, 2018, "Debiasing evidence approximations", prop. 1 (bias and variance).
        Vehtari et al., 2024, "Pareto smoothed importance sampling" (k̂ and its threshold).
    """

    log_prob: Array
    standard_error: Array
    bias: Array
    ess: Array
    khat: Array
    num_samples: int
    measure: str
    transformation: str
    data_hash: str
    log_jacobian: float = 0.0
    name: str = "model"
    quantity: str = "log p(x)"
    replicates: Array | None = None
    chunk: tuple[int, int] | None = None
    precision: str | None = None

    @classmethod
    def closed_form(
        cls,
        log_prob: Array,
        data: Dataset,
        *,
        names: Sequence[str] = ("x",),
        measure: str = "density of x",
        model: str = "model",
        quantity: str = "log p(x)",
    ) -> Score:
        """The score of a model from elsewhere whose log-probabilities are exact.

        Args:
            log_prob: of each datum, nats.
            data: what was scored, so that tables can tell whether others scored the same.
            names: the variables scored.
            measure: what the nats are of.
            model: its name.
            quantity: what was scored.

        Raises:
            TypeError: data that are no Dataset.
            ValueError: not one finite value a datum.
        """
        if not isinstance(data, Dataset):
            raise TypeError(
                f"Score.closed_form: data must be a pg.Dataset, got {type(data).__name__}."
            )
        refuse_masked(log_prob, "log_prob", "Score.closed_form")
        values = np.asarray(log_prob, dtype=np.float64)
        if values.shape != (len(data),) or not np.isfinite(values).all():
            raise ValueError(
                f"Score.closed_form: expected {len(data)} finite values, one a datum, got shape "
                f"{values.shape} with {int((~np.isfinite(values)).sum())} not finite."
            )
        zero = np.zeros_like(values)
        return cls(
            log_prob=values,
            standard_error=zero,
            bias=zero,
            ess=np.full_like(zero, np.nan),
            khat=np.full_like(zero, -np.inf),
            num_samples=0,
            measure=measure,
            **provenance(data, names),
            name=model,
            quantity=quantity,
        )

    @property
    def mean(self) -> float:
        """Average log p(x), nats a datum."""
        return float(self.log_prob.mean())

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of the average that the finite number of draws causes."""
        if self.replicates is not None:
            averages = self.replicates.mean(1)
            return float(averages.std(ddof=1) / math.sqrt(len(averages)))
        return float(np.sqrt((self.standard_error**2).sum()) / len(self.log_prob))

    @property
    def sampling_error(self) -> float:
        """Standard error of the average as an estimate over all data like these."""
        if len(self.log_prob) < 2:
            return math.nan
        return float(self.log_prob.std(ddof=1) / math.sqrt(len(self.log_prob)))

    @property
    def mean_bias(self) -> float:
        """Delta-method estimate of the average's bias; the estimate is low by its size."""
        return float(self.bias.mean())

    @property
    def is_exact(self) -> bool:
        """Whether every value is exact: a closed form, or weights without spread."""
        return self.num_samples == 0 or bool(np.isneginf(self.khat).all())

    @property
    def is_lower_bound(self) -> bool:
        """Whether the number must be read as a lower bound, for one of these reasons.

        The estimated bias exceeds the Monte Carlo error or a tenth of a nat; k̂ is above its threshold,
        or unknown, for more than a tenth of the data; half of the data rest on fewer than ten
        effective samples. `False` does not prove the number right: see the class.
        """
        return bool(self._reasons())

    @property
    def khat_threshold(self) -> float:
        """min(1 − 1/log10 K, 0.7): above it the errors stated here cannot be relied on."""
        if self.num_samples < 2:
            return math.nan
        return min(1 - 1 / math.log10(self.num_samples), 0.7)

    @property
    def share_above_threshold(self) -> float:
        """Share of data whose k̂ is above the threshold; NaN where k̂ is."""
        if np.isnan(self.khat).all():
            return math.nan
        return float((self.khat > self.khat_threshold).mean())

    @property
    def khat_median(self) -> float:
        """Of the data for which k̂ is known; NaN where it is for none."""
        known = self.khat[~np.isnan(self.khat)]
        return float(np.median(known)) if len(known) else math.nan

    def warning(self) -> str | None:
        """In words why the number must be read as a lower bound, or `None` where it need not be."""
        reasons = self._reasons()
        if not reasons:
            return None
        return (
            f"{self.quantity} of {self.name}: {'; '.join(reasons)}. Read it as a lower bound; take more "
            "samples, or a guide with more room."
        )

    def _reasons(self) -> list[str]:
        """Why it is a lower bound; all that is printed of a score goes by this."""
        if self.is_exact:
            return []
        reasons = []
        share = self.share_above_threshold
        if share > DOUBTFUL_SHARE:
            reasons.append(
                f"k̂ is above {self.khat_threshold:.2f} for {share:.0%} of the data, so the errors "
                "stated are too small"
            )
        unknown = float(np.isnan(self.khat).mean())
        if unknown > DOUBTFUL_SHARE and self.num_samples < FEWEST_DRAWS:
            reasons.append(
                f"k̂ cannot be estimated from fewer than {FEWEST_DRAWS} samples, so nothing checks "
                "the errors stated"
            )
        elif unknown > DOUBTFUL_SHARE:
            reasons.append(
                f"all draws have the same weight for {unknown:.0%} of the data, which says nothing "
                "of values of the discrete latents that were not drawn"
            )
        if self.mean_bias < -0.1 or -self.mean_bias > self.monte_carlo_error:
            reasons.append(f"the estimate is low by about {-self.mean_bias:.2g} nats a datum")
        if float(np.median(self.ess)) < 10:
            reasons.append(
                f"half of the data rest on fewer than {np.median(self.ess):.1f} effective samples"
            )
        return reasons

    def __repr__(self) -> str:
        head = (
            f"{self.quantity} {'>=' if self.is_lower_bound else '='} {self.mean:.2f} nats a datum"
        )
        errors = "exact" if self.is_exact else f"± {self.monte_carlo_error:.2g} Monte Carlo"
        draws = {0: "closed form", 1: "summed exactly"}.get(self.num_samples)
        draws = draws or f"K={self.num_samples}"
        if self.replicates is not None:
            draws += f", {len(self.replicates)} scrambles of Sobol points"
        head += f", {errors}, ± {self.sampling_error:.2g} test sampling"
        head += f" ({len(self.log_prob)} data, {draws})"
        scale = (
            f"  scale add {self.log_jacobian:.2f} nats for the density of the data before scaling"
        )
        scaled = [scale] * bool(self.log_jacobian)
        if self.is_exact:
            return "\n".join([f"{head}; {self._what()}", *scaled])
        head += f", bias {self.mean_bias:.2g}; {self._what()}"
        lines = [head, *scaled, f"  ESS   {_summary(self.ess, worst=np.min, digits=1)}"]
        if np.isnan(self.khat).all():
            few = self.num_samples < FEWEST_DRAWS
            why = f"from fewer than {FEWEST_DRAWS} samples" if few else "from equal weights"
            lines.append(f"  k̂     not estimated {why}")
        else:
            share = f", {self.share_above_threshold:.1%} above {self.khat_threshold:.2f}"
            lines.append(f"  k̂     {_summary(self.khat, worst=np.max, digits=2)}{share}")
        warning = self.warning()
        if warning:
            lines.append(f"  note  {warning}")
        return "\n".join(lines)

    def _what(self) -> str:
        done = "" if self.transformation == "none" else f", {self.transformation}"
        return f"{self.measure}{done}, hash {self.data_hash}"


def provenance(data: Dataset, names: Sequence[str]) -> dict[str, Any]:
    """What a score of some variables says of their data, as fields of `Score`."""
    words = [data.transformations[name] for name in names if name in data.transformations]
    return {
        "transformation": "; ".join(words) or "none",
        "log_jacobian": sum(data.log_jacobians.get(name, 0.0) for name in names),
        "data_hash": fingerprint({name: data[name] for name in names}, data.observed),
    }


def table(scores: Mapping[str, Score]) -> str:
    """Scores of several models on the same data, best first, as an aligned table.

    Raises:
        TypeError: a value that is no Score.
        ValueError: the scores are of different data, or of a density and of a probability mass;
            no order among them would mean anything.
    """
    if not isinstance(scores, Mapping):
        raise TypeError(
            f"table: give a dict of scores by the model's name, got {type(scores).__name__}."
        )
    if not scores:
        raise ValueError("table: give at least one score by the model's name.")
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
    rows = [("model", first.quantity, "± MC", "± test", "bias", "K", "ESS median", "k̂ median")]
    for name, score in sorted(scores.items(), key=lambda item: -item[1].mean):
        exact = score.is_exact
        rows.append(
            (
                name,
                f"{'>= ' if score.is_lower_bound else ''}{score.mean:.2f}",
                "exact" if exact else f"{score.monte_carlo_error:.3f}",
                f"{score.sampling_error:.2f}",
                "0" if exact else f"{score.mean_bias:.3f}",
                "-" if exact else str(score.num_samples),
                "-" if exact else f"{np.median(score.ess):.1f}",
                "-" if exact or math.isnan(score.khat_median) else f"{score.khat_median:.2f}",
            )
        )
    lines, widths = aligned(rows, left={0})
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += [
        f">= {name}: {'; '.join(score._reasons())}"
        for name, score in scores.items()
        if score.is_lower_bound
    ]
    lines.append(
        f"nats a datum, {first.measure}; {len(first.log_prob)} data, hash {first.data_hash}"
    )
    if first.transformation != "none":
        lines.append(f"data: {first.transformation}")
    if first.log_jacobian:
        lines.append(
            f"add {first.log_jacobian:.2f} nats for the density of the data before scaling "
            "(log-Jacobian)"
        )
    return "\n".join(lines)


def _summary(values: Array, worst: object, digits: int) -> str:
    finite = values[~np.isnan(values)]
    extreme = worst(finite)  # type: ignore[operator]
    return f"median {np.median(finite):.{digits}f}, worst {extreme:.{digits}f}"
