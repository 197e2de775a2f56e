"""Scores: log p(x) per datum with its errors, its diagnostics and the data that it belongs to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probgen.basics.tensors import refuse_masked
from probgen.data.dataset import Dataset
from probgen.data.fingerprint import fingerprint
from probgen.inference.scoring.arviz import FEWEST_DRAWS
from probgen.inference.scoring.score_text import score_text

Array = NDArray[np.float64]

DOUBTFUL_SHARE = 0.1
"""If k̂ is too high, or unknown, for a larger share of the data, a score is only a lower bound."""


class UnreliableEstimateWarning(UserWarning):
    """An importance-weighted estimate whose diagnostics say that it is only a lower bound.

    Example:
        Stop the program if a score is not reliable, here because of few samples:

        >>> import torch, warnings, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> vae = pg.models.VAE(x=pg.Bernoulli(4), z=pg.Normal(2), hidden=(8,))
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", pg.UnreliableEstimateWarning)
        ...     try:
        ...         pg.log_marginal_likelihood(vae, torch.ones(10, 4), num_samples=10, device="cpu")
        ...     except pg.UnreliableEstimateWarning as warning:
        ...         print(str(warning).split(",")[0])
        log p(x) of VAE: k̂ cannot be estimated from fewer than 25 samples
    """


@dataclass(frozen=True, eq=False)
class Score:
    """log p(x) of a data set, per datum and on average, in nats.

    The expectation of an importance-weighted estimate is at most log p(x). The average is printed
    with `=` only if no diagnostic says that it is too low by more than its error, and with `>=`
    otherwise: see `is_lower_bound`, which the notes and `warning()` follow.

    A k̂ above the threshold says that the errors are not reliable; a k̂ below it does not say that
    they are. All diagnostics are computed from the weights that were drawn. If the guide misses a
    part of the posterior, no draw lies there: the weights look even, k̂ is low, and the estimate is
    too low by more than the stated error. It helps to compare with other guides, other seeds and
    many more draws, or with data simulated by the model.

    Attributes:
        log_prob: log p(x) of each datum, nats, shape `(data,)`.
        standard_error: Monte Carlo standard error of each; zero if the value is exact.
        bias: estimated bias of each, at most zero: −(relative variance of the mean weight) / 2.
        ess: effective sample size of each.
        khat: Pareto shape of each datum's weights; −inf if they are equal ("exact"); 0 or +inf if
            the largest are tied, as for discrete latents with few states (0: their frequencies are
            known well enough); NaN if there are fewer than 25 draws, or if all draws of a discrete
            latent have one weight, which says nothing about states that were not drawn.
        num_samples: importance samples per datum; 0 for a closed form, 1 if all latents are summed.
        measure: the measure of the probability, such as "density of x".
        transformation: what was done to the raw data, in words.
        log_jacobian: what to add for the density before the transformation, nats.
        data_hash: fingerprint of the data scored.
        name: name of the model.
        quantity: what was scored, such as `log p(x)`, `log p(x, y)` or `log p(x | y)`.
        replicates: for quasi-Monte Carlo, the estimate of p(x) by each randomization divided by
            the estimate by all, shape `(randomizations, data)`. All data share the points, so the
            errors of the data are not independent.
        chunk: number of data and of draws in a pass. With other chunks the same seed gives other
            draws. Chunks follow from the pair, the number of data and the device.
        precision: what networks and log-probabilities were computed in, if that is known.
        method: how it was computed: `"exact"`, by a closed form; `"summed"`, all latents summed out;
            `"importance"`, by importance sampling from the guide.
        decoder_passes: how often the decoder was computed per datum: draws times the terms of exact
            sums; 0 for a closed form; `None` if that is not known.

    References:
        Burda, Grosse and Salakhutdinov, 2016, "Importance weighted autoencoders", eq. 8.
        Nowozin, 2018, "Debiasing evidence approximations", prop. 1 (bias and variance).
        Vehtari et al., 2024, "Pareto smoothed importance sampling" (k̂ and its threshold).

    Example:
        >>> import torch, probgen as pg
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1)).set_maximum_likelihood(x)
        >>> score = pg.log_marginal_likelihood(ppca, x, method="exact")
        >>> score.method, score.is_exact, score.log_prob.shape
        ('exact', True, (100,))
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
    method: str = "importance"
    decoder_passes: float | None = None

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
        """The score of a model of your own whose log-probabilities are exact.

        Args:
            log_prob: log-probability of each datum, nats, shape `(data,)`.
            data: the data that were scored, so that tables can tell whether scores are comparable.
            names: the variables scored.
            measure: the measure, such as "density of x".
            model: name of the model.
            quantity: what was scored.

        Raises:
            TypeError: data that are no Dataset.
            ValueError: not one finite value per datum.

        Example:
            >>> import numpy as np, torch, probgen as pg
            >>> data = pg.Dataset({"x": torch.zeros(4, 1)})
            >>> pg.Score.closed_form(np.zeros(4), data, model="mine").mean
            0.0
        """
        if not isinstance(data, Dataset):
            raise TypeError(
                f"Score.closed_form: data must be a pg.Dataset, got {type(data).__name__}."
            )
        refuse_masked(log_prob, "log_prob", "Score.closed_form")
        values = np.asarray(log_prob, dtype=np.float64)
        if values.shape != (len(data),) or not np.isfinite(values).all():
            raise ValueError(
                f"Score.closed_form: expected {len(data)} finite values, one per datum, got shape "
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
            method="exact",
            decoder_passes=0.0,
        )

    @property
    def mean(self) -> float:
        """Average log p(x), nats per datum."""
        return float(self.log_prob.mean())

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of the average due to the finite number of draws, nats."""
        if self.replicates is not None:
            averages = self.replicates.mean(1)
            return float(averages.std(ddof=1) / math.sqrt(len(averages)))
        return float(np.sqrt((self.standard_error**2).sum()) / len(self.log_prob))

    @property
    def sampling_error(self) -> float:
        """Standard error of the average as an estimate of its expectation over new data, nats."""
        if len(self.log_prob) < 2:
            return math.nan
        return float(self.log_prob.std(ddof=1) / math.sqrt(len(self.log_prob)))

    @property
    def mean_bias(self) -> float:
        """Estimated bias of the average by the delta method, nats; at most zero."""
        return float(self.bias.mean())

    @property
    def is_exact(self) -> bool:
        """Whether every value is exact: a closed form, or equal weights."""
        return self.num_samples == 0 or bool(np.isneginf(self.khat).all())

    @property
    def is_lower_bound(self) -> bool:
        """Whether the average is only a lower bound, for one of these reasons.

        The estimated bias exceeds the Monte Carlo error or 0.1 nats; k̂ is above its threshold, or
        unknown, for more than 10 % of the data; half of the data have fewer than ten effective
        samples. `False` does not prove that the estimate is right: see the class.
        """
        return bool(self.reasons())

    @property
    def khat_threshold(self) -> float:
        """min(1 − 1/log10 K, 0.7): if k̂ is above it, the stated errors are not reliable."""
        if self.num_samples < 2:
            return math.nan
        return min(1 - 1 / math.log10(self.num_samples), 0.7)

    @property
    def share_above_threshold(self) -> float:
        """Share of data whose k̂ is above the threshold; NaN if no k̂ is known."""
        if np.isnan(self.khat).all():
            return math.nan
        return float((self.khat > self.khat_threshold).mean())

    @property
    def khat_median(self) -> float:
        """Median k̂ of the data for which it is known; NaN if it is known for none."""
        known = self.khat[~np.isnan(self.khat)]
        return float(np.median(known)) if len(known) else math.nan

    def warning(self) -> str | None:
        """Why the average is only a lower bound, in words; `None` if it is not known to be one."""
        reasons = self.reasons()
        if not reasons:
            return None
        return (
            f"{self.quantity} of {self.name}: {'; '.join(reasons)}. The average is therefore only a "
            "lower bound. Increase num_samples, or use a more flexible guide."
        )

    def reasons(self) -> list[str]:
        """The reasons why the average is only a lower bound; none if it is not known to be one."""
        if self.is_exact:
            return []
        reasons = []
        share = self.share_above_threshold
        if share > DOUBTFUL_SHARE:
            reasons.append(
                f"k̂ is above {self.khat_threshold:.2f} for {share:.0%} of the data, so the stated "
                "errors are too small"
            )
        unknown = float(np.isnan(self.khat).mean())
        if unknown > DOUBTFUL_SHARE and self.num_samples < FEWEST_DRAWS:
            reasons.append(
                f"k̂ cannot be estimated from fewer than {FEWEST_DRAWS} samples, so the stated "
                "errors are not checked"
            )
        elif unknown > DOUBTFUL_SHARE:
            reasons.append(
                f"all draws have the same weight for {unknown:.0%} of the data, which says nothing "
                "about values of the discrete latents that were not drawn"
            )
        if self.mean_bias < -0.1 or -self.mean_bias > self.monte_carlo_error:
            reasons.append(f"the estimate is too low by about {-self.mean_bias:.2g} nats per datum")
        if float(np.median(self.ess)) < 10:
            reasons.append(
                f"half of the data have fewer than {np.median(self.ess):.1f} effective samples"
            )
        return reasons

    def __repr__(self) -> str:
        return score_text(self)


def provenance(data: Dataset, names: Sequence[str]) -> dict[str, Any]:
    """The fields of `Score` that describe the data of some variables."""
    words = [data.transformations[name] for name in names if name in data.transformations]
    return {
        "transformation": "; ".join(words) or "none",
        "log_jacobian": sum(data.log_jacobians.get(name, 0.0) for name in names),
        "data_hash": fingerprint({name: data[name] for name in names}, data.observed),
    }
