r"""The marginal likelihood log p(x) of any pair, per datum, with its errors."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

import torch

from probgen.basics.checks import as_count, as_seed
from probgen.basics.locking import one_at_a_time
from probgen.basics.memory import enough_memory
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.basics.user_warnings import warn
from probgen.data.dataset import Dataset
from probgen.implicit import check_pair
from probgen.inference.compute.capture import check_compile
from probgen.inference.compute.devices import as_device, as_dtype, placed, used_precision
from probgen.inference.compute.processes import Group, check_not_launched, current_group
from probgen.inference.compute.spawn import launch
from probgen.inference.inputs import prepare
from probgen.inference.scoring.base import METHODS, Estimate, ScoreSettings, estimate_share
from probgen.inference.scoring.exact import variables_of_closed_form
from probgen.inference.scoring.importance import first_trace
from probgen.inference.scoring.scores import Score, UnreliableEstimateWarning, provenance
from probgen.inference.traces import PairTrace
from probgen.pair import LatentVariableModel

OWNER = "log_marginal_likelihood"

MOST_SAMPLES = 10**8
"""All weights of a datum stay in memory until its diagnostics are computed."""


@one_at_a_time
def log_marginal_likelihood(
    pair: LatentVariableModel,
    data: Any,
    *,
    num_samples: int = 1000,
    method: Literal["importance", "exact", "auto"] | str = "importance",
    draws: Literal["iid", "rqmc"] = "iid",
    seed: int = 0,
    device: str | torch.device = "auto",
    devices: int = 1,
    precision: str = "float32",
    compile: bool | str = "auto",
    progress: bool = False,
) -> Score:
    r"""Estimate log p(x) of every datum, by importance sampling from the guide or in closed form.

    $\log \hat p(x) = \log \frac{1}{K} \sum_k p(x, z_k) / q(z_k | x)$, whose expectation is at most
    log p(x). Discrete scalars are summed out inside each weight, whatever the guide says about them.
    If no latent remains that has to be drawn, log p(x) is exact. Labels that are known for some of
    the data only are scored where they are known.

    The diagnostics find bad draws, not missing ones: if the guide misses a part of the posterior,
    k̂ is low and the estimate is too low by more than its errors say. See `pg.Score`.

    Args:
        pair: the pair; it is left as it was.
        data: a Dataset, a dict of arrays by variable name, or one array.
        num_samples: importance samples K per datum.
        method: `"importance"`; `"exact"`, the closed form, for pairs that have a method `log_prob`;
            or `"auto"`, the closed form if the pair has one of these variables, importance sampling
            otherwise.
        draws: `"iid"`, or `"rqmc"` for Gaussian latents and transformations of them: 16 independent
            scrambles of Sobol points (randomized quasi-Monte Carlo), whose error decreases faster
            with K if there are few latents. K becomes the nearest 16 · 2^m.
        seed: of the draws; the global random state stays as it was.
        device: `"auto"`, or a device as torch names it.
        devices: how many GPUs, or processes on a CPU, share the data.
        precision: `"float32"` or `"float64"`, of networks and log-probabilities, or `"bf16"`, matrix
            products in bfloat16 and the rest in float32, as in `pg.fit`; averages over samples are
            always computed in float64.
        compile: make machine code of a pass over some data, as `pg.fit` does of a step; `"auto"`
            does so from 3,000 passes on. The size of a pass is the score's `chunk`: 4,000 draws for
            an MNIST network of 500 hidden units on a CPU, more for smaller networks or on a GPU.
        progress: show a progress bar.

    Returns:
        The score, with values, errors and diagnostics per datum as NumPy arrays, in nats.

    Raises:
        ValueError: data that do not fit the pair, fewer than two samples, an unknown method, or no
            closed form.
        FloatingPointError: weights that are NaN or +inf; the message names the datum.
        MemoryError: the device has too little memory; the message says which setting needs less.

    Warns:
        UnreliableEstimateWarning: the diagnostics say that the estimate is only a lower bound.
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
    check_pair(pair, OWNER)
    num_samples = as_count(num_samples, "num_samples", OWNER, least=2, most=MOST_SAMPLES)
    devices = as_count(devices, "devices", OWNER)
    seed = as_seed(seed, OWNER)
    target = as_device(device)
    precision = used_precision(precision, target, OWNER)
    check_not_launched(OWNER, devices)
    group = current_group(target)
    target = target if group is None else group.device
    scored = placed(pair, target, as_dtype(precision))
    dataset = prepare(scored, data, owner=OWNER, device=target, dtype=as_dtype(precision))
    method = _resolved(method, pair, dataset)
    if draws not in ("iid", "rqmc"):
        raise ValueError(f'{OWNER}: draws must be "iid" or "rqmc", got {draws!r}.')
    check_compile(compile, OWNER)
    if dataset.drawn_anew:
        raise ValueError(
            f"{OWNER}: {', '.join(dataset.drawn_anew)} is drawn anew in every batch, so its score "
            'would not be of fixed data. Store a draw: data.binarized("static"), or data.stored().'
        )
    settings = ScoreSettings(num_samples, draws, seed, precision, compile, progress)
    with enough_memory(OWNER, "num_samples, or score the data in parts"):
        with evaluation(scored), fixed_seed(seed, target):
            trace = first_trace(scored, dataset)
        estimate = _estimate(scored, dataset, target, method, settings, devices, group)
    score = Score(
        **estimate.columns,
        num_samples=estimate.num_samples,
        method=estimate.method,
        decoder_passes=estimate.decoder_passes,
        chunk=estimate.chunk,
        measure=_measure(trace, dataset),
        **provenance(dataset, list(dataset.values)),
        name=pair.name,
        quantity=_quantity(trace, dataset),
        precision=precision,
    )
    message = score.warning()
    if message:
        warn(message, UnreliableEstimateWarning)
    return score


def _resolved(method: str, pair: LatentVariableModel, data: Dataset) -> str:
    """The name of a scoring method, with `"auto"` decided."""
    if method == "auto":
        return "exact" if set(variables_of_closed_form(pair)) == set(data.values) else "importance"
    if method not in METHODS:
        known = ", ".join(f'"{name}"' for name in (*METHODS.names(), "auto"))
        raise ValueError(f"{OWNER}: method must be one of {known}, got {method!r}.")
    return method


def _estimate(
    pair: LatentVariableModel, data: Dataset, device: torch.device, method: str,
    settings: ScoreSettings, devices: int, group: Group | None,
) -> Estimate:  # fmt: skip
    """Compute the values here, or in several processes that share the data.

    Args:
        pair: on the device.
        data: on the device, prepared.
        device: where.
        method: the name of the method.
        settings: what the caller chose.
        devices: how many processes to start.
        group: the processes that a launcher such as torchrun started, with this one among them.
    """
    chosen = METHODS.get(method)()
    arguments: dict[str, Any] = {"pair": pair, "data": data, "method": method, **asdict(settings)}
    shared = chosen.num_processes == "many"
    if shared and devices > 1 and len(data) > 1:
        tensors, record = launch(
            estimate_share, arguments, min(devices, len(data)), device,
            owner=OWNER, advice="Nothing was kept; call again.",
        )  # fmt: skip
    elif shared and group is not None and len(data) >= group.size:
        tensors, record = group.from_first(estimate_share(group, device, **arguments))
    else:
        estimate: Estimate = chosen.estimate(pair, data, device, settings)
        return estimate
    columns = {name: tensor.numpy() for name, tensor in tensors.items()}
    chunk = record.pop("chunk")  # a list, after its way through JSON
    return Estimate(columns, **record, chunk=(chunk[0], chunk[1]) if chunk else None)


def _scored(trace: PairTrace, data: Dataset) -> dict[str, str]:
    """The variables scored, in the model's order; partly observed ones with `(where known)`."""
    partly = data.observed or {}
    return {
        name: name + " (where known)" * (name in partly)
        for name, site in trace.model.items()
        if site["is_observed"] or name in partly
    }


def _quantity(trace: PairTrace, data: Dataset) -> str:
    """`log p(x)`, or with the other variables that are scored or conditioned on."""
    scored = ", ".join(_scored(trace, data).values())
    inputs = ", ".join(name for name in data.values if name not in trace.model)
    return f"log p({scored} | {inputs})" if inputs else f"log p({scored})"


def _measure(trace: PairTrace, data: Dataset) -> str:
    """The measure: `density of x`, `probability mass of x`, or both with their variables."""
    kinds: dict[str, list[str]] = {}
    for name, described in _scored(trace, data).items():
        support = trace.model[name]["fn"].support
        kind = "probability mass" if support.is_discrete else "density"
        kinds.setdefault(kind, []).append(described)
    return ", ".join(f"{kind} of {', '.join(parts)}" for kind, parts in kinds.items())
