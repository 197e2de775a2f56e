r"""Importance-weighted marginal likelihood of any pair, per datum, with its errors."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probgen.basics.checks import as_count, as_seed
from probgen.basics.locking import one_at_a_time
from probgen.basics.memory import enough_memory
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.data.dataset import Dataset
from probgen.implicit import check_pair
from probgen.inference.compute.capture import check_compile
from probgen.inference.compute.devices import as_device, as_dtype, placed, used_precision
from probgen.inference.compute.processes import check_not_launched, current_group
from probgen.inference.compute.spawn import launch
from probgen.inference.importance_weights import estimate, estimate_share, first_trace
from probgen.inference.inputs import prepare
from probgen.inference.scoring.scores import Score, UnreliableEstimateWarning, provenance
from probgen.inference.traces import PairTrace
from probgen.pair import LatentVariableModel

MOST_SAMPLES = 10**8
"""All weights of a datum are kept until its diagnostics are made."""

CLOSED_FORM_ROWS = 10_000
"""Data whose closed form is taken at a time; what it needs beside them is a multiple of them."""


@one_at_a_time
def log_marginal_likelihood(
    pair: LatentVariableModel,
    data: Any,
    *,
    num_samples: int = 1000,
    method: Literal["importance", "exact"] = "importance",
    draws: Literal["iid", "rqmc"] = "iid",
    seed: int = 0,
    device: str | torch.device = "auto",
    devices: int = 1,
    precision: str = "float32",
    compile: bool | str = "auto",
    progress: bool = False,
) -> Score:
    r"""Estimate log p(x) of every datum by importance sampling from the guide.

    $\log \hat p(x) = \log \frac{1}{K} \sum_k p(x, z_k) / q(z_k | x)$, whose expectation is at most
    log p(x). Discrete scalars are summed out inside each weight, whatever the guide says of them.
    A pair without sampled latents is summed exactly. Labels known for some data only are scored
    where they are known.

    The diagnostics find bad draws, not missing ones: where the guide misses a part of the posterior,
    k̂ is low and the number is too low by more than its errors say. See `pg.Score`.

    Args:
        pair: the pair; it is left as it was.
        data: a Dataset, a dict of arrays by variable name, or one array.
        num_samples: importance samples K of each datum.
        method: `"importance"`, or `"exact"`: the closed form, for pairs that have a method
            `log_prob`.
        draws: `"iid"`, or `"rqmc"` for Gaussian latents and transformations of them: 16 independent scrambles of Sobol points
            (randomized quasi-Monte Carlo), whose error falls faster with K where latents are few.
            K becomes the nearest 16 · 2^m.
        seed: of the draws; the global random state stays as it was.
        device: `"auto"`, or a device as torch names it.
        devices: how many GPUs, or processes of a CPU, share the data.
        precision: `"float32"` or `"float64"`, of networks and log-probabilities, or `"bf16"`, matrix
            products in bfloat16 and the rest in float32, as in `pg.fit`; averages over samples are
            always taken in float64.
        compile: make machine code of a pass over some data, as `pg.fit` does of a step; `"auto"`
            from 3,000 passes on. What a pass takes is in the score's `chunk`: 4,000 draws of an
            MNIST network of 500 hidden units on a CPU, more of smaller ones or on a GPU.
        progress: show a progress bar.

    Returns:
        The score, with per-datum values, errors and diagnostics as NumPy arrays.

    Raises:
        ValueError: data that do not fit the pair, fewer than two samples, or no closed form.
        FloatingPointError: weights that are NaN or +inf, with the data concerned.
        MemoryError: the device has too little memory; says which setting lowers the need.

    Warns:
        UnreliableEstimateWarning: the diagnostics say that the number is a lower bound only.
        PrecisionWarning: the device is slower in bf16, so float32 is used.

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
    check_pair(pair, "log_marginal_likelihood")
    if method not in ("importance", "exact"):
        raise ValueError(
            f'log_marginal_likelihood: method must be "importance" or "exact", got {method!r}.'
        )
    num_samples = as_count(
        num_samples, "num_samples", "log_marginal_likelihood", least=2, most=MOST_SAMPLES
    )
    devices = as_count(devices, "devices", "log_marginal_likelihood")
    seed = as_seed(seed, "log_marginal_likelihood")
    target = as_device(device)
    precision = used_precision(precision, target, "log_marginal_likelihood")
    dtype = as_dtype(precision)
    check_not_launched("log_marginal_likelihood", devices)
    group = current_group(target)
    target = target if group is None else group.device
    scored = placed(pair, target, dtype)
    dataset = prepare(scored, data, owner="log_marginal_likelihood", device=target, dtype=dtype)
    if draws not in ("iid", "rqmc"):
        raise ValueError(f'log_marginal_likelihood: draws must be "iid" or "rqmc", got {draws!r}.')
    check_compile(compile, "log_marginal_likelihood")
    drawn = dataset.drawn_anew
    if drawn:
        raise ValueError(
            f"log_marginal_likelihood: {', '.join(drawn)} is drawn anew in every batch, so a score of "
            'it has no fixed data. Store a draw: data.binarized("static"), or data.stored().'
        )
    lower = "num_samples, or score the data in parts"
    with (
        enough_memory("log_marginal_likelihood", lower),
        evaluation(scored),
        fixed_seed(seed, target),
    ):
        trace = first_trace(scored, dataset)
        if method == "exact":
            exact = Score.closed_form(
                _closed_form(scored, dataset),
                dataset,
                names=list(dataset.values),
                measure=_measure(trace, dataset),
                model=pair.name,
                quantity=_quantity(trace, dataset),
            )
            return replace(exact, precision=precision)
    settings: dict[str, Any] = {
        "num_samples": num_samples, "draws": draws, "seed": seed, "precision": precision,
        "compile": compile, "progress": progress,
    }  # fmt: skip
    with enough_memory("log_marginal_likelihood", lower):
        if devices > 1 and len(dataset) > 1:
            arguments = {"pair": scored, "data": dataset, **settings}
            tensors, record = launch(
                estimate_share, arguments, min(devices, len(dataset)), target,
                owner="log_marginal_likelihood", way_on="Nothing was kept; call again.",
            )  # fmt: skip
            columns: dict[str, Any] = {n: t.numpy() for n, t in tensors.items()}
        elif group is not None and len(dataset) >= group.size:
            shared = estimate_share(group, target, scored, dataset, **settings)
            tensors, record = group.from_first(shared)
            columns = {n: t.numpy() for n, t in tensors.items()}
        else:
            columns, record = estimate(scored, dataset, target, **settings)
    score = Score(
        **columns,
        num_samples=record["num_samples"],
        chunk=(record["chunk"][0], record["chunk"][1]),
        measure=_measure(trace, dataset),
        **provenance(dataset, list(dataset.values)),
        name=pair.name,
        quantity=_quantity(trace, dataset),
        precision=precision,
    )
    message = score.warning()
    if message:
        warnings.warn(message, UnreliableEstimateWarning, stacklevel=3)
    return score


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
    blocks = (
        slice(first, first + CLOSED_FORM_ROWS) for first in range(0, len(data), CLOSED_FORM_ROWS)
    )
    parts: list[Tensor] = [method(**data.batch(rows)[0]).double().cpu() for rows in blocks]
    return torch.cat(parts).numpy()


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
