r"""Importance-weighted marginal likelihood of any pair, per datum, with its errors."""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probgen.contexts import as_count, as_seed, enough_memory, evaluation, fixed_seed
from probgen.data import Dataset
from probgen.export import pareto_khat
from probgen.inference.devices import as_device, as_dtype, placed
from probgen.inference.inputs import prepare
from probgen.inference.objectives import log_importance_weights
from probgen.inference.scores import Score, UnreliableEstimateWarning, provenance
from probgen.inference.traces import PairTrace, trace_pair
from probgen.pair import LatentVariableModel
from probgen.progress import Progress

ROWS = {"cpu": 4_000, "cuda": 200_000}
"""Rows (data times draws times classes) in a pass, where a row's outputs fit the cache or the GPU."""

WEIGHTS = 500_000
"""Weights kept at a time: a block of data with all its draws, at least one datum."""


MOST_SAMPLES = 10**8
"""All weights of a datum are kept until its diagnostics are made."""


def log_marginal_likelihood(
    pair: LatentVariableModel,
    data: Any,
    *,
    num_samples: int = 1000,
    method: Literal["importance", "exact"] = "importance",
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "float32",
    progress: bool = False,
) -> Score:
    r"""Estimate log p(x) of every datum by importance sampling from the guide.

    $\log \hat p(x) = \log \frac{1}{K} \sum_k p(x, z_k) / q(z_k | x)$, whose expectation is at most
    log p(x). Discrete scalars are summed out inside each weight, whatever the guide says of them.
    A pair without sampled latents is summed exactly. Labels known for some data only are scored
    where they are known.

    Args:
        pair: the pair; it is left as it was.
        data: a Dataset, a dict of arrays by variable name, or one array.
        num_samples: importance samples K of each datum.
        method: `"importance"`, or `"exact"`: the closed form, for pairs that have a method
            `log_prob`.
        seed: of the draws; the global random state stays as it was.
        device: `"auto"`, or a device as torch names it.
        precision: `"float32"` or `"float64"`, of networks and log-probabilities; averages over
            samples are always taken in float64.
        progress: show a progress bar.

    Returns:
        The score, with per-datum values, errors and diagnostics as NumPy arrays.

    Raises:
        ValueError: data that do not fit the pair, fewer than two samples, or no closed form.
        FloatingPointError: weights that are NaN or +inf, with the data concerned.
        MemoryError: the device has too little memory; says which setting lowers the need.

    Warns:
        UnreliableEstimateWarning: the diagnostics say that the number cannot be trusted.

    References:
        Burda, Grosse and Salakhutdinov, 2016, "Importance weighted autoencoders", eq. 8.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> fa = pg.models.FactorAnalysis(x=pg.Normal(4), z=pg.Normal(1))
        >>> x = fa.sample(100)["x"]
        >>> estimate = pg.log_marginal_likelihood(fa, x, num_samples=500)
        >>> exact = pg.log_marginal_likelihood(fa, x, method="exact")
        >>> abs(estimate.mean - exact.mean) < 4 * estimate.monte_carlo_error
        True
    """
    if not isinstance(pair, LatentVariableModel):
        raise TypeError(
            f"log_marginal_likelihood: expected a pair (pg.LatentVariableModel), got {pair!r}."
        )
    if method not in ("importance", "exact"):
        raise ValueError(
            f'log_marginal_likelihood: method must be "importance" or "exact", got {method!r}.'
        )
    num_samples = as_count(
        num_samples, "num_samples", "log_marginal_likelihood", least=2, most=MOST_SAMPLES
    )
    seed = as_seed(seed, "log_marginal_likelihood")
    target, dtype = as_device(device), as_dtype(precision)
    scored = placed(pair, target, dtype)
    dataset = prepare(scored, data, owner="log_marginal_likelihood", device=target, dtype=dtype)
    if dataset.redrawn:
        raise ValueError(
            f"log_marginal_likelihood: {', '.join(dataset.redrawn)} is binarized anew in every "
            'batch, so a score of it has no fixed data. Store a draw: data.binarized("static").'
        )
    lower = "num_samples, or score the data in parts"
    with (
        enough_memory("log_marginal_likelihood", lower),
        evaluation(scored),
        fixed_seed(seed, target),
    ):
        trace = _first_trace(scored, dataset)
        if method == "exact":
            return Score.closed_form(
                _closed_form(scored, dataset),
                dataset,
                names=list(dataset.values),
                measure=_measure(trace, dataset),
                model=pair.name,
                quantity=_quantity(trace, dataset),
            )
        with Progress(f"log p(x) of {pair.name}", len(dataset), progress) as bar:
            columns, drawn = _importance(scored, dataset, num_samples, trace, target, bar)
    score = Score(
        **columns,
        num_samples=drawn,
        measure=_measure(trace, dataset),
        **provenance(dataset, list(dataset.values)),
        name=pair.name,
        quantity=_quantity(trace, dataset),
    )
    message = score.warning()
    if message:
        warnings.warn(message, UnreliableEstimateWarning, stacklevel=2)
    return score


Columns = dict[str, Any]


def _importance(
    pair: LatentVariableModel, data: Dataset, num_samples: int, first: PairTrace,
    device: torch.device, bar: Progress,
) -> tuple[Columns, int]:  # fmt: skip
    """log p, standard error, bias, ESS and k̂ of each datum, and how many draws were taken."""
    draws = num_samples if first.sampled else 1
    classes = 1
    for name in first.sums:
        classes *= first.model[name]["value"].numel()
    rows = max(1, ROWS.get(device.type, ROWS["cpu"]) // classes)
    # Few data a pass: what the guide computes once a datum is then repeated for few of them.
    step = max(1, rows // draws)
    passes = math.ceil(draws / max(1, rows // step))
    chunks = [draws // passes + (index < draws % passes) for index in range(passes)]
    block = step * max(1, WEIGHTS // (step * draws))
    parts: list[Columns] = []
    for first_row in range(0, len(data), block):
        weights = []
        for start in range(first_row, min(first_row + block, len(data)), step):
            values, masks = data.batch(slice(start, start + step))
            passed = [
                log_importance_weights(
                    trace_pair(pair, values, num_particles=chunk, observed=masks)
                )
                for chunk in chunks
            ]
            weights.append(torch.cat(passed))
            bar.update(min(start + step, len(data)))
        parts.append(_summarize(torch.cat(weights, 1), first_row))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, draws


def _summarize(log_weights: Tensor, start: int) -> Columns:
    """From log-weights `(draws, data)`; `start` is the index of the first datum."""
    # A log-weight is a sum of some hundred terms, each with a rounding error of its own.
    float_error = 100 * torch.finfo(log_weights.dtype).eps
    log_weights = log_weights.double()
    broken = (log_weights.isnan() | (log_weights == torch.inf)).any(0)
    broken |= (log_weights == -torch.inf).all(0)
    if bool(broken.any()):
        datum = start + int(broken.nonzero()[0])
        raise FloatingPointError(
            f"log_marginal_likelihood: the log-weights of datum {datum} are NaN, +inf or all −inf. "
            'Look at the datum and the pair\'s outputs there; precision="float64" helps where they '
            "overflow."
        )
    draws = log_weights.shape[0]
    log_prob = log_weights.logsumexp(0) - math.log(draws)
    relative = (log_weights - log_prob).exp()  # weights over their mean
    variance = relative.var(0) if draws > 1 else torch.zeros_like(log_prob)
    error = (variance / draws).sqrt()
    ess = relative.sum(0) ** 2 / (relative**2).sum(0)
    array = log_weights.T.cpu().numpy()
    khat = pareto_khat(array, float_error)
    columns = {
        "log_prob": log_prob,
        "standard_error": error,
        "bias": -variance / (2 * draws),
        "ess": ess,
    }
    return {name: column.cpu().numpy() for name, column in columns.items()} | {"khat": khat}


def _closed_form(pair: LatentVariableModel, data: Dataset) -> NDArray[np.float64]:
    method = getattr(pair, "log_prob", None)
    if not callable(method):
        raise ValueError(
            f"log_marginal_likelihood: {pair.name} has no closed form (a method log_prob); use "
            'method="importance".'
        )
    wanted = list(inspect.signature(method).parameters)
    if set(wanted) != set(data.values):
        raise ValueError(
            f"log_marginal_likelihood: the closed form of {pair.name} is of {', '.join(wanted)}, got "
            f"{', '.join(data.values)}."
        )
    log_prob: Tensor = method(**data.values)
    return log_prob.double().cpu().numpy()


def _first_trace(pair: LatentVariableModel, data: Dataset) -> PairTrace:
    values, masks = data.batch(slice(0, 1))
    return trace_pair(pair, values, observed=masks)


def _scored(trace: PairTrace, data: Dataset) -> dict[str, str]:
    """The variables that the score is of, in the model's order, with `(where known)`."""
    partly = data.observed or {}
    return {
        name: name + " (where known)" * (name in partly)
        for name, site in trace.model.items()
        if site["is_observed"] or name in partly
    }


def _quantity(trace: PairTrace, data: Dataset) -> str:
    """`log p(x)`, or with other variables scored or conditioned on."""
    scored = ", ".join(_scored(trace, data).values())
    inputs = ", ".join(name for name in data.values if name not in trace.model)
    return f"log p({scored} | {inputs})" if inputs else f"log p({scored})"


def _measure(trace: PairTrace, data: Dataset) -> str:
    """What is scored: `density of x`, `probability mass of x`, or both kinds by name."""
    kinds: dict[str, list[str]] = {}
    for name, described in _scored(trace, data).items():
        support = trace.model[name]["fn"].support
        kind = "probability mass" if support.is_discrete else "density"
        kinds.setdefault(kind, []).append(described)
    return ", ".join(f"{kind} of {', '.join(parts)}" for kind, parts in kinds.items())
