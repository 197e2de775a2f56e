"""fit(): stochastic variational inference of any pair."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from probgen.contexts import (
    as_count,
    as_seed,
    enough_memory,
    evaluation,
    fixed_seed,
    kept_modes,
    quiet_pyro,
)
from probgen.data import Splits
from probgen.inference.batches import BATCH_SIZE, VALIDATION_ROWS, Resident, Stream, is_stream
from probgen.inference.devices import as_device, as_dtype
from probgen.inference.inputs import prepare
from probgen.inference.loop import Loop
from probgen.inference.objectives import ELBO, Objective, as_objective
from probgen.inference.optimizers import make_optimizer, make_scheduler
from probgen.inference.recording import Recorder, describe_data, described
from probgen.inference.results import FitResult
from probgen.pair import LatentVariableModel


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
    device: str | torch.device = "auto",
    seed: int = 0,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
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
            is iterated anew each epoch, and each batch is checked as it arrives).
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
        precision: `"float32"` or `"float64"`.
        device: `"auto"`, or a device as torch names it.
        seed: of batches, draws and validation; the global random state stays as it was.
        run_dir: a folder to keep the run in: configuration, weights, metrics, figures, and after
            every epoch a checkpoint, so that nothing is lost to a crash. `pg.load_run` reads it.
        resume: go on with the run in `run_dir` from its last whole epoch, to the same weights to
            the bit on a CPU (if an iterable of batches gives the same ones in an epoch); begin it
            where there is none yet. Only `num_epochs`, `patience` and
            `device` may differ from before.
        progress: show a progress bar.

    Returns:
        The curves, why it ended, and the pair. Ctrl-C ends the loop and returns what was learned.

    Raises:
        ValueError: data that do not fit the pair, or a setting out of range.
        TypeError: an argument of the wrong kind.
        FloatingPointError: the loss is not finite; names batch, site and quantity. The pair then
            has the last finite weights kept.
        RunError: (a `ValueError`) `run_dir` holds another run, or a damaged one.
        OSError: `run_dir` cannot be written, or the disk is full.
        MemoryError: the device has too little memory; says which setting lowers the need.

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
    seed = as_seed(seed, "fit")
    target, dtype = as_device(device), as_dtype(precision)
    goal = as_objective(objective)
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
            source, held = _sources(pair, data, validation, batch_size, target, dtype)
            loop = Loop(pair, source, held, goal, target, seed)
            loop.optimizer = make_optimizer(pair, optimizer, learning_rate, target)
            loop.scheduler = make_scheduler(scheduler, loop.optimizer)
            if run_dir is not None:
                settings = {
                    "num_epochs": num_epochs,
                    "batch_size": getattr(source, "size", None),
                    "learning_rate": float(learning_rate),
                    "objective": described(objective),
                    "optimizer": described(optimizer),
                    "scheduler": described(scheduler),
                    "patience": patience,
                    "precision": precision,
                    "device": str(target),
                    "seed": seed,
                }
                about = describe_data(getattr(source, "data", data), held and held.data, splits)
                recorder = Recorder.open(
                    run_dir, resume, pair, settings, about, partial(_probe, source, target)
                )
                stack.callback(recorder.close)
                loop.keep(recorder)
        except BaseException:
            for place, kind in before:  # nothing was trained: the pair goes back to where it was
                pair.to(device=place, dtype=kind)
            raise
        for context in (quiet_pyro(), kept_modes(pair), torch.enable_grad()):
            stack.enter_context(context)
        if not pair.training:
            pair.train()
        return loop.run(num_epochs, patience, progress)


def _sources(
    pair: LatentVariableModel, data: Any, validation: Any, batch_size: int | None,
    device: torch.device, dtype: torch.dtype,
) -> tuple[Resident | Stream, Resident | None]:  # fmt: skip
    where: dict[str, Any] = {"device": device, "dtype": dtype}
    source: Resident | Stream
    if is_stream(data):
        source = Stream(pair, data, where)
    else:
        prepared = prepare(pair, data, owner="fit", **where)
        source = Resident(prepared, batch_size or BATCH_SIZE, clamp=batch_size is None)
    if validation is None:
        return source, None
    prepared = prepare(pair, validation, owner="fit, validation data", **where)
    return source, Resident(prepared, VALIDATION_ROWS, clamp=True)


def _probe(source: Resident | Stream, device: torch.device, pair: LatentVariableModel) -> Tensor:
    """The bound of two data, or where they come in a stream the pair's parts in words."""
    if isinstance(source, Stream):
        return torch.frombuffer(bytearray(nn.Module.__repr__(pair).encode()), dtype=torch.uint8)
    with evaluation(pair), fixed_seed(0, device):
        values, masks = source.data.batch(slice(0, 2))
        return ELBO()(pair, values, observed=masks)
