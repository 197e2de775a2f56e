"""fit(): stochastic variational inference of any pair."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from probgen.basics.checks import as_count, as_seed
from probgen.basics.locking import one_at_a_time
from probgen.basics.memory import enough_memory
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation, kept_modes, quiet_pyro
from probgen.data.dataset import Splits, fingerprint
from probgen.inference.compute.capture import check_compile
from probgen.inference.compute.devices import FORCED, as_device, as_dtype, used_precision
from probgen.inference.compute.processes import Group, check_not_launched, current_group
from probgen.inference.compute.spawn import Outcome, launch
from probgen.inference.inputs import check_other_parts, prepare
from probgen.inference.objectives.elbo import ELBO, Objective, as_objective, values_of
from probgen.inference.objectives.semisupervised import SemiSupervised
from probgen.inference.training.batches import (
    BATCH_SIZE,
    VALIDATION_ROWS,
    Resident,
    Stream,
    is_stream,
)
from probgen.inference.training.epochs import Loop
from probgen.inference.training.optimizers import check_learnable, make_optimizer, make_scheduler
from probgen.inference.training.recorder import Recorder, describe_data, described
from probgen.inference.training.results import FitResult, progress_of, set_progress
from probgen.pair import LatentVariableModel

DIFFERENT_DATA = (
    "fit: the processes were given different data, or other batch sizes. Load the same data in each of them: "
    "each takes its share of every batch by itself."
)

SECONDS_WORTH = 30.0
"""Seconds that compiling must save to be worth it, which itself takes up to twenty."""


@one_at_a_time
def fit(
    pair: LatentVariableModel,
    data: Any,
    *,
    num_epochs: int,
    batch_size: int | None = None,
    learning_rate: float = 1e-3,
    objective: str | Objective | Any = "elbo",
    optimizer: Any = None,
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    validation: Any = "auto",
    patience: int | None = None,
    precision: str = "float32",
    compile: bool | str = "auto",
    device: str | torch.device = "auto",
    devices: int = 1,
    seed: int = 0,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    callback: Callable[[FitResult], Any] | None = None,
) -> FitResult:
    """Fit a pair to data by stochastic variational inference.

    The pair is moved to the device and stays there. Variables of a Dataset that it does not know
    are left aside. Values are checked against every variable's
    support over all data before the first step; inside the loop validation is off and nothing
    waits for a GPU within an epoch. Same seed, machine, thread count: same weights to the bit on
    CPU.

    Args:
        pair: the pair; its weights are where training starts.
        data: `Splits` from `pg.load`, a `Dataset`, a dict of arrays by variable name, one array
            for a pair with one data variable, or an iterable of such batches (a DataLoader; it
            is iterated anew each epoch, and each batch is checked as it arrives). A list or tuple of
            one array is that array.
        num_epochs: passes over the data.
        batch_size: data in a step, by default 128, or all where there are fewer; the last batch of
            an epoch may be smaller.
        learning_rate: of the default Adam, or of an optimizer class.
        objective: `"elbo"`, `"analytic-kl"`, `pg.ELBO(...)`, one of Pyro's ELBO objects, or a
            callable like them.
        optimizer: a torch optimizer over the pair's parameters, or a callable that makes one of
            them; by default one fused Adam.
        scheduler: a callable that makes a torch learning-rate scheduler of the optimizer; it
            steps once an epoch.
        validation: data for the validation ELBO, `None`, or `"auto"`: the validation part where
            `data` are `Splits`. With validation the weights of the best epoch are kept.
        patience: stop after so many epochs without a better validation ELBO.
        precision: `"float32"`; `"bf16"`, matrix products in bfloat16 and everything else in
            float32, which is faster on hardware made for it (elsewhere float32 takes its place,
            with a warning; `"bf16-forced"` insists); or `"float64"`. The result and the run
            directory say which one was used.
        compile: make one graph of a step and, where there is a C++ compiler, machine code of the
            graph: the same numbers up to rounding, without the cost of Python. `"auto"` does so
            where that is estimated to save half a minute (30,000 steps of a small network, 10,000 of
            one with 800,000 weights), since compiling takes up to twenty seconds. A graph is held
            against the step as written, at first and every 100 steps or so; where they disagree, fit
            says so once and goes on as written. On a GPU the whole step, the optimizer's included,
            is then replayed as one CUDA graph.
        device: `"auto"`, or a device as torch names it.
        devices: how many GPUs, or processes of a CPU, share the work: each takes `batch_size` data
            a step and noise of its own, and their gradients are averaged, so that a step is one of
            `devices * batch_size` data. The script that calls needs the usual
            `if __name__ == "__main__":`. Under torchrun or srun leave it at 1: the processes that are
            there share the work, every one of them makes the same calls, the first alone writes and
            prints, and all end with the same weights.
        seed: of batches, draws and validation; the global random state stays as it was.
        run_dir: a folder to keep the run in: configuration, weights, metrics, figures, and after
            every epoch a checkpoint, so that nothing is lost to a crash. `pg.load_run` reads it.
        resume: go on with the run in `run_dir` from its last whole epoch, to the same weights to
            the bit on a CPU (if an iterable of batches gives the same ones in an epoch); begin it
            where there is none yet. Only `num_epochs`, `patience` and `device` may differ from
            before; steps are captured if they were.
        progress: show a progress bar.
        callback: called after every epoch with the curves so far and the pair, for errors or pictures
            along the way; what it draws at random changes nothing about the run.

    Returns:
        The curves, why it ended, and the pair. Ctrl-C ends the loop and returns what was learned;
        with several devices it ends the processes and is raised, and the last whole epoch is in
        `run_dir`.

    Raises:
        ValueError: data that do not fit the pair, a latent that no data inform though the pair does
            not say `local = True`, a setting out of range, nothing that can be learned, or an
            objective that returns values of a wrong shape or without a gradient.
        TypeError: an argument of the wrong kind, or an objective that returns something of it.
        FloatingPointError: the loss is not finite; names batch, site and quantity. The pair then
            has the last finite weights kept.
        RunError: (a `ValueError`) `run_dir` holds another run, or a damaged one.
        OSError: `run_dir` cannot be written, or the disk is full.
        ImportError: several devices without lightning-fabric.
        RuntimeError: one of several processes died; the last whole epoch is in `run_dir`.
        MemoryError: the device has too little memory; says which setting lowers the need.

    Warns:
        PrecisionWarning: the device is slower in bf16, so float32 is used.

    References:
        Hoffman et al., 2013, "Stochastic variational inference".
        Kingma and Ba, 2015, "Adam: a method for stochastic optimization".

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
        >>> x = torch.randn(64, 1) @ torch.ones(1, 3) + 0.1 * torch.randn(64, 3)
        >>> result = pg.fit(ppca, x, num_epochs=5, batch_size=32, progress=False)
        >>> len(result.elbo), result.stopped
        (5, 'completed')
    """
    if not isinstance(pair, LatentVariableModel):
        raise TypeError(f"fit: expected a pair (pg.LatentVariableModel), got {pair!r}.")
    num_epochs = as_count(num_epochs, "num_epochs", "fit")
    if batch_size is not None:
        batch_size = as_count(batch_size, "batch_size", "fit")
    if patience is not None:
        patience = as_count(patience, "patience", "fit")
    devices = as_count(devices, "devices", "fit")
    seed = as_seed(seed, "fit")
    target = as_device(device)
    precision = used_precision(precision, target, "fit")
    dtype = as_dtype(precision)
    goal = as_objective(objective)
    check_learnable(pair)
    check_not_launched("fit", devices)
    group = current_group(target)
    if group is not None:
        target = group.device
        if is_stream(data) and not isinstance(data, Splits):
            raise ValueError(
                f"fit: {group.size} processes share data that are all there; give a Dataset or arrays in "
                "place of an iterable of batches, or start one process."
            )
    if devices > 1:
        if callback is not None:
            raise ValueError("fit: callback= is for one device; several train in other processes.")
        if is_stream(data) and not isinstance(data, Splits):
            raise ValueError(
                "fit: several devices share data that are all there; give a Dataset or arrays in place "
                "of an iterable of batches, or use devices=1."
            )
        settings = {
            "num_epochs": num_epochs, "batch_size": batch_size, "learning_rate": learning_rate,
            "objective": objective, "optimizer": optimizer, "scheduler": scheduler,
            "validation": validation, "patience": patience,
            "precision": FORCED if precision == "bf16" else precision,  # decided here, for all
            "compile": compile, "seed": seed, "run_dir": run_dir, "resume": resume,
            "progress": progress,
        }  # fmt: skip
        return _fit_together(pair, data, devices, target, settings)
    splits = data if isinstance(data, Splits) else None
    if isinstance(data, Splits):
        validation = data.validation if isinstance(validation, str) else validation
        data = data.train
    if isinstance(validation, str):
        if validation != "auto":
            raise ValueError(f'fit: validation must be "auto", None or data, got {validation!r}.')
        validation = None
    if patience is not None and validation is None:
        raise ValueError(
            f"fit: patience={patience} needs validation data; give validation=..., or Splits "
            "with a validation part (pg.Dataset.split)."
        )
    if resume and run_dir is None:
        raise ValueError("fit: resume=True needs run_dir=..., the folder of the run to go on with.")
    before = [(p.device, p.dtype) for p in pair.parameters()][:1]
    with ExitStack() as stack:
        stack.enter_context(enough_memory("fit", "batch_size, num_particles or hidden"))
        try:
            pair.to(device=target, dtype=dtype)
            source, held = _sources(pair, data, validation, batch_size, goal, target, dtype, group)
            if group is not None:
                group.check_same(_seen(source, held), DIFFERENT_DATA)
            if run_dir is not None or isinstance(goal, SemiSupervised):
                _probe_objective(pair, source, goal, target)
            if splits is not None:
                check_other_parts(pair, splits, "fit")
            captured = wants_capture(compile, pair, source, num_epochs)
            loop = Loop(
                pair, source, held, goal, target, seed,
                precision=precision, capture=captured, group=group,
            )  # fmt: skip
            loop.result.precision = precision
            loop.optimizer = make_optimizer(pair, optimizer, learning_rate, target)
            loop.scheduler = make_scheduler(scheduler, loop.optimizer)
            with nullcontext() if group is None else group.together():
                if run_dir is not None and (group is None or group.rank == 0):
                    settings = {
                        "num_epochs": num_epochs,
                        "batch_size": getattr(source, "size", None),
                        "learning_rate": float(learning_rate),
                        "objective": described(objective),
                        "optimizer": described(optimizer),
                        "scheduler": described(scheduler),
                        "patience": patience,
                        "precision": precision,
                        "compile": compile,
                        "captured": captured,
                        "device": str(target),
                        "seed": seed,
                        "devices": 1 if group is None else group.size,
                    }
                    about = describe_data(
                        getattr(source, "data", data), held and held.data, splits,
                        given=splits is not None and validation is not splits.validation,
                    )  # fmt: skip
                    recorder = Recorder.open(
                        run_dir, resume, pair, settings, about, partial(_probe, source, target)
                    )
                    stack.callback(recorder.close)
                    loop.keep(recorder)
                    # A resumed run goes on as it was begun.
                    loop.step.capture = recorder.config["settings"]["captured"]
            loop.share()
        except BaseException:
            for place, kind in before:  # nothing was trained: the pair goes back to where it was
                pair.to(device=place, dtype=kind)
            raise
        for context in (quiet_pyro(), kept_modes(pair), torch.enable_grad()):
            stack.enter_context(context)
        if not pair.training:
            pair.train()
        return loop.run(num_epochs, patience, progress, callback)


def _fit_together(
    pair: LatentVariableModel, data: Any, devices: int, device: torch.device,
    settings: dict[str, Any],
) -> FitResult:  # fmt: skip
    """`fit` in several processes; the weights and curves of the first come back."""
    folder = settings["run_dir"]
    way_on = (
        "With run_dir=... the last whole epoch would be kept."
        if folder is None
        else f"The last whole epoch is in {folder}: resume=True goes on from it."
    )
    arguments = {"pair": pair, "data": data, **settings}
    tensors, record = launch(fit_share, arguments, devices, device, owner="fit", way_on=way_on)
    pair.to(device=device, dtype=as_dtype(settings["precision"]))
    pair.load_state_dict(tensors)
    result = FitResult(pair)
    set_progress(result, record)
    result.stopped = record["stopped"]
    return result


def fit_share(
    group: Group, device: torch.device, pair: LatentVariableModel, data: Any, **settings: Any
) -> Outcome:
    """What one of several processes does: a fit whose gradients are shared."""
    # Tensors that were sent are shared memory, and each process has weights of its own.
    result = fit(copy.deepcopy(pair), data, device=device, **settings)
    return dict(result.pair.state_dict()), progress_of(result)


def wants_capture(
    compile: bool | str, pair: LatentVariableModel, source: Resident | Stream, num_epochs: int
) -> bool:
    """Whether steps are captured: as asked, or where it is worth it.

    By a rule and not by a clock, so that the same call computes the same numbers: a step saves a
    millisecond of Python, and another for 50 million products of weights and data.

    Raises:
        ValueError: neither a bool nor `"auto"`.
    """
    check_compile(compile, "fit")
    if compile != "auto":
        return bool(compile)
    if not isinstance(source, Resident):
        return False
    products = source.size * sum(p.numel() for p in pair.parameters())
    return num_epochs * source.num_batches * 1e-3 * (1 + products / 5e7) >= SECONDS_WORTH


def _sources(
    pair: LatentVariableModel, data: Any, validation: Any, batch_size: int | None, goal: Objective,
    device: torch.device, dtype: torch.dtype, group: Group | None,
) -> tuple[Resident | Stream, Resident | None]:  # fmt: skip
    where: dict[str, Any] = {"device": device, "dtype": dtype}
    source: Resident | Stream
    if is_stream(data):
        if isinstance(goal, SemiSupervised):
            goal.check_stream()
        source = Stream(pair, data, {**where, "learning": True})
    else:
        prepared = prepare(pair, data, owner="fit", learning=True, **where)
        clamp = batch_size is None
        source = Resident(prepared, batch_size or BATCH_SIZE, clamp=clamp, group=group)
        if isinstance(goal, SemiSupervised):
            source = goal.batches(prepared, source.size, group)
    if validation is None:
        return source, None
    prepared = prepare(pair, validation, owner="fit, validation data", **where)
    if isinstance(goal, SemiSupervised):
        goal.check_validation(prepared)
    return source, Resident(prepared, VALIDATION_ROWS, clamp=True, group=group)


def _seen(source: Resident | Stream, validation: Resident | None) -> list[Any]:
    """What several processes must agree on: the data and the size of a batch."""
    parts = [part for part in (source, validation) if isinstance(part, Resident)]
    return [(part.size, fingerprint(part.data.values, part.data.observed)) for part in parts]


def _probe_objective(
    pair: LatentVariableModel, source: Resident | Stream, goal: Objective, device: torch.device
) -> None:
    """What is wrong with an objective, or it with the pair, shows before a run directory is begun."""
    if isinstance(source, Stream):  # each of its parts may be there only once
        return
    with evaluation(pair), torch.enable_grad(), fixed_seed(0, device):
        values, masks = source.data.batch(slice(0, 2))
        values_of(goal, pair, values, masks, {})


def _probe(source: Resident | Stream, device: torch.device, pair: LatentVariableModel) -> Tensor:
    """The bound of two data, or where they come in a stream the pair's parts in words."""
    if isinstance(source, Stream):
        return torch.frombuffer(bytearray(nn.Module.__repr__(pair).encode()), dtype=torch.uint8)
    with evaluation(pair), fixed_seed(0, device):
        values, masks = source.data.batch(slice(0, 2))
        return ELBO()(pair, values, observed=masks)
