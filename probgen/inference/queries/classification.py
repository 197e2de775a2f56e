"""Class probabilities of a guide's classifier, and whether they are calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from probgen.basics.checks import as_count, as_seed
from probgen.basics.locking import one_at_a_time
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.basics.tensors import refuse_masked
from probgen.data.dataset import Dataset
from probgen.implicit import check_pair
from probgen.inference.expectations import guide_average
from probgen.inference.inputs import place_and_prepare
from probgen.inference.queries.posterior import device_of
from probgen.inference.sobol import GivenNoise, gaussian_noise, rounded
from probgen.inference.traces import trace_guide
from probgen.pair import LatentVariableModel

ROWS = 10_000
"""Number of data times number of draws that the classifier processes at once."""


@one_at_a_time
def class_probabilities(
    pair: LatentVariableModel,
    data: Any,
    *,
    label: str = "y",
    num_samples: int = 100,
    draws: Literal["iid", "rqmc"] = "iid",
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Tensor:
    r"""Class probabilities: the average of $q(y | \cdot)$ over draws of the latents on which it depends.

    Args:
        pair: the pair; it is not changed.
        data: a Dataset, a dict of arrays by variable name, or one array; labels in it are ignored.
        label: the name of the class variable.
        num_samples: draws per datum; only one is used if y depends on no latent.
        draws: `"iid"`, or `"rqmc"` for Gaussian latents and transformations of them: the same Sobol
            points for every datum, so that the prediction for one datum does not depend on the
            others; their number is the 16 · 2^m nearest to `num_samples`.
        seed: of the draws.
        device: `"auto"`, or a device as torch names it.

    Returns:
        Shape `(data, classes)`, on the CPU.

    Raises:
        ValueError: the data do not fit the pair, or the guide has no factor for the class.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> m2 = pg.models.M2(x=pg.Bernoulli(4), y=pg.Categorical(3), z=pg.Normal(2))
        >>> pg.class_probabilities(m2, torch.ones(5, 4)).shape
        torch.Size([5, 3])
    """
    owner = "class_probabilities"
    num_samples = as_count(num_samples, "num_samples", owner)
    if draws not in ("iid", "rqmc"):
        raise ValueError(f'{owner}: draws must be "iid" or "rqmc", got {draws!r}.')
    check_pair(pair, owner)
    no_classifier = ValueError(
        f"{owner}: {pair.name} has no guide factor q({label} | ...), so it does not classify. "
        "Use a pair with one, such as pg.models.M2."
    )
    if pair.factors("q") and label not in pair.factors("q"):
        raise no_classifier
    seed = as_seed(seed, owner)
    if isinstance(data, Dataset) and label in data.values:
        data = data.only(*(name for name in data.values if name != label))
    elif isinstance(data, Mapping):
        data = {name: value for name, value in data.items() if name != label}
    classifier, dataset = place_and_prepare(pair, data, owner, device)
    target, dtype = device_of(dataset), next(classifier.parameters()).dtype
    with evaluation(classifier), fixed_seed(seed, target):
        one = dataset.subset(slice(0, 1))
        first = trace_guide(classifier, one.values, label, observed=one.observed)
        if label not in first.guide_sums:
            raise no_classifier
        noise = None
        if not first.sampled:
            num_samples = 1
        elif draws == "rqmc":
            num_samples = rounded(num_samples)
            noise = GivenNoise(gaussian_noise(first, num_samples, seed, target, dtype, owner))
        rows = max(1, ROWS // num_samples)
        parts = []
        for start in range(0, len(dataset), rows):
            block = dataset.subset(slice(start, start + rows))
            trace = trace_guide(
                classifier, block.values, label, num_particles=num_samples,
                observed=block.observed, noise=noise,
            )  # fmt: skip
            probabilities = guide_average(trace, trace.log_q[label].exp(), before=label)
            probabilities = probabilities.movedim(trace.guide_sums[label], -1)
            shape = probabilities.shape[-2:]  # (data, classes); particles, if any, to the left
            probabilities = probabilities.reshape(-1, *shape).mean(0)
            parts.append(probabilities.expand(len(block), -1).cpu())
    return torch.cat(parts)


def calibration_error(probabilities: ArrayLike, y: ArrayLike, *, num_bins: int = 15) -> float:
    r"""The expected calibration error: how far a classifier's confidence is from its accuracy.

    $$\sum_b \frac{n_b}{n}\,|\,\mathrm{accuracy}_b - \mathrm{confidence}_b\,|$$

    over equally wide bins of the confidence, which is the probability of the most probable class.

    Args:
        probabilities: shape `(data, classes)`.
        y: the true classes 0, 1, ..., shape `(data,)`.
        num_bins: how many bins.

    Returns:
        From 0 (calibrated) to 1.

    Raises:
        ValueError: shapes that do not fit, probabilities that do not sum to one, or there are no data.

    References:
        Guo, Pleiss, Sun and Weinberger, 2017, "On calibration of modern neural networks", eq. 3.

    Example:
        >>> import probgen as pg
        >>> round(pg.calibration_error([[0.9, 0.1], [0.9, 0.1]], [0, 1]), 3)
        0.4
    """
    counts, confidence, correct = calibration_bins(probabilities, y, num_bins)
    return float(np.abs(correct - confidence).sum() / counts.sum())


def calibration_bins(
    probabilities: ArrayLike, y: ArrayLike, num_bins: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Number of data, sum of the confidence and number of correct predictions, by bins of the confidence.

    Raises:
        ValueError: as `calibration_error`.
    """
    owner = "calibration_error"
    num_bins = as_count(num_bins, "num_bins", owner)
    for name, value in (("probabilities", probabilities), ("y", y)):
        refuse_masked(value, name, "calibration_error")
    predicted, true_codes = np.asarray(probabilities, dtype=np.float64), np.asarray(y)
    if predicted.ndim != 2 or true_codes.shape != predicted.shape[:1] or not len(true_codes):
        raise ValueError(
            f"{owner}: needs probabilities of shape (data, classes) and as many true classes y, got shapes "
            f"{predicted.shape} and {true_codes.shape}."
        )
    if not (np.abs(predicted.sum(1) - 1) < 1e-3).all():
        raise ValueError(
            f"{owner}: each row of probabilities must sum to one; normalize them first."
        )
    confidence, correct = predicted.max(1), predicted.argmax(1) == true_codes
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts, confidences, corrects = (
        np.bincount(bins, weight, num_bins) for weight in (None, confidence, correct)
    )
    return counts, confidences, corrects
