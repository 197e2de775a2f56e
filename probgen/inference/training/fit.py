"""`fit`: stochastic variational inference of any pair."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from probgen.basics.locking import one_at_a_time
from probgen.basics.memory import enough_memory
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation, kept_modes, quiet_pyro
from probgen.inference.compute.devices import as_device, as_dtype, used_precision
from probgen.inference.compute.processes import Group, check_not_launched, current_group
from probgen.inference.compute.spawn import Outcome, launch
from probgen.inference.inputs import check_given
from probgen.inference.objectives.base import Objective
from probgen.inference.objectives.registry import as_objective, resolved
from probgen.inference.traces import trace_pair
from probgen.inference.training.batches import Resident, Stream
from probgen.inference.training.epochs import Training
from probgen.inference.training.feed import Feed, prepare_feed
from probgen.inference.training.module import TrainingModule
from probgen.inference.training.optimizers import check_learnable
from probgen.inference.training.recorder import Recorder
from probgen.inference.training.results import FitResult, progress_of, set_progress
from probgen.inference.training.settings import Settings
from probgen.pair import LatentVariableModel

SECONDS_WORTH = 30.0
"""Steps are compiled if that saves at least this many seconds; compiling takes up to twenty."""


@one_at_a_time
def fit(
    pair: Any,
    data: Any,
    *,
    num_epochs: int,
    batch_size: int | None = None,
    learning_rate: float = 1e-3,
    objective: str | Objective | Any = "auto",
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

    The pair is moved to the device and stays there. Variables of a Dataset that are not variables of
    the pair are ignored. Before the first step all values are checked against the supports of their
    variables. During training Pyro's own checks are off, and within an epoch nothing waits for a GPU.
    On a CPU, the same seed, machine and number of threads give the same weights to the bit.

    Args:
        pair: the pair; training starts from its weights.
        data: `Splits` from `pg.load`, a `Dataset`, a dict of arrays by variable name, one array
            for a pair with one data variable, or an iterable of such batches, such as a DataLoader,
            which is iterated in every epoch; each of its batches is checked when it arrives. A list or
            tuple of one array means that array.
        num_epochs: passes over the data.
        batch_size: data per step; by default 128, or all data if there are fewer. The last batch of
            an epoch may be smaller.
        learning_rate: of the default Adam, or of an optimizer class.
        objective: what is maximized: `"auto"`, the objective that the model names in its class
            attribute `objective`, by default the ELBO; the name of an objective, such as `"elbo"` or
            `"analytic-kl"`; a `pg.Objective` such as `pg.ELBO(...)`; one of Pyro's ELBO objects; or a
            callable that returns one value per datum.
        optimizer: a torch optimizer of the pair's parameters, or a callable that returns one for
            the parameters that it is given; by default a fused Adam. Each player of an objective has an
            optimizer of its own.
        scheduler: a callable that returns a torch learning-rate scheduler for an optimizer; it
            steps once per epoch.
        validation: data for the validation ELBO, `None`, or `"auto"`: the validation part if
            `data` are `Splits`. With validation the weights of the best epoch are kept.
        patience: stop after this number of epochs without a better validation ELBO.
        precision: `"float32"`; `"bf16"`, matrix products in bfloat16 and everything else in
            float32, which is faster on hardware made for it (on other hardware float32 is used, with
            a warning; `"bf16-forced"` uses bfloat16 in any case); or `"float64"`. The result and the
            run directory say which one was used.
        compile: compile a step to one graph and, if there is a C++ compiler, to machine code. It
            computes the same numbers up to rounding, without the cost of Python. `"auto"` compiles if
            that is estimated to save half a minute (30,000 steps of a small network, 10,000 of one
            with 800,000 weights), because compiling takes up to twenty seconds. The graph is compared
            with the uncompiled step at the first step and about every 100 steps; if they disagree,
            fit warns once and continues with the uncompiled step. On a GPU the whole step, including
            the optimizer's, is replayed as one CUDA graph.
        device: `"auto"`, or a device as torch names it.
        devices: the number of GPUs, or of processes on a CPU, that share the work. Each takes
            `batch_size` data per step, with noise of its own, and the gradients are averaged, so a step
            uses `devices * batch_size` data. The calling script needs the usual
            `if __name__ == "__main__":`. Under torchrun or srun leave it at 1: the processes that were
            started share the work. All of them make the same calls and end with the same weights; only
            the first one writes and prints.
        seed: of batches, draws and validation; the global random state stays as it was.
        run_dir: a folder for the run: configuration, weights, metrics, figures, and a checkpoint
            after every epoch, so that a crash loses no complete epoch. `pg.load_run` reads it.
        resume: continue the run in `run_dir` after its last complete epoch, or start it if there is none
            yet. On a CPU the weights are the same to the bit as without the interruption (if an
            iterable of batches yields the same ones in an epoch). Only `num_epochs`, `patience` and
            `device` may differ from before; steps are compiled if they were before.
        progress: show a progress bar.
        callback: called after every epoch with the curves so far and the pair, for errors or pictures
            during training; random draws in it do not change the run.

    Returns:
        The curves, the reason why training ended, and the pair. Ctrl-C ends the training and returns
        what was learned; with several devices it ends the processes and is raised, and the last whole
        epoch is in `run_dir`.

    Raises:
        ValueError: data that do not fit the pair, a latent that no data inform if the pair has no
            `local = True`, a setting out of range, no parameter that can be learned, or an
            objective that returns values of a wrong shape or without a gradient.
        TypeError: an argument, or a value that the objective returns, is of the wrong kind.
        FloatingPointError: the loss is not finite; the message names batch, site and quantity. The
            pair then has the last finite weights that were kept.
        RunError: (a `ValueError`) `run_dir` contains another run, or a damaged one.
        OSError: `run_dir` cannot be written, or the disk is full.
        ImportError: several devices without lightning-fabric.
        RuntimeError: one of several processes died; the last complete epoch is in `run_dir`.
        MemoryError: the device has too little memory; the message says which setting needs less.

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
    if not isinstance(pair, nn.Module):
        raise TypeError(f"fit: expected a pair (pg.LatentVariableModel), got {pair!r}.")
    target = as_device(device)
    objective = resolved(objective, pair)
    settings = Settings.checked(
        num_epochs=num_epochs, batch_size=batch_size, learning_rate=learning_rate,
        objective=objective, optimizer=optimizer, scheduler=scheduler, validation=validation,
        patience=patience, precision=used_precision(precision, target, "fit"), compile=compile,
        device=target, devices=devices, seed=seed, run_dir=run_dir, resume=resume,
        progress=progress, callback=callback,
    )  # fmt: skip
    declared = as_objective(objective)
    declared.check_model(pair)
    check_learnable(pair)
    check_not_launched("fit", settings.devices)
    group = current_group(target)
    streamed = check_given(pair, data, settings.devices, group)
    if settings.devices > 1:
        arguments = {"pair": pair, "data": data, "settings": settings.for_processes()}
        outcome = launch(
            fit_share, arguments, settings.devices, settings.device,
            owner="fit", advice=_what_is_kept(settings),
        )  # fmt: skip
        return _result_of_processes(pair, settings, *outcome)
    if group is not None:
        settings = replace(settings, device=group.device)
    with ExitStack() as stack:
        stack.enter_context(enough_memory("fit", "batch_size, num_particles or hidden"))
        with _put_back_on_error(pair):
            pair.to(device=settings.device, dtype=as_dtype(settings.precision))
            feed = prepare_feed(pair, data, declared, settings, group, streamed=streamed)
            training = _begin(pair, feed, declared, settings, stack)
        for context in (quiet_pyro(), kept_modes(training.module), torch.enable_grad()):
            stack.enter_context(context)
        if not pair.training:
            pair.train()
        return training.run()


def _begin(
    pair: Any, feed: Feed, objective: Objective, settings: Settings, stack: ExitStack
) -> Training:
    """What is needed before the first step: the players, and the run directory, new or resumed."""
    group, dtype = feed.group, as_dtype(settings.precision)
    module = TrainingModule(pair, objective, settings.seed, settings.device, dtype)
    captured = wants_capture(settings.compile, module, feed, settings.num_epochs)
    training = Training(module, feed, objective, settings, captured)
    training.try_players()
    with nullcontext() if group is None else group.together():
        if settings.run_dir is not None and training.is_first:
            record = settings.record(getattr(feed.training, "size", None), captured, group)
            recorder = Recorder.open(
                settings.run_dir, settings.resume, pair, record, feed.describe(),
                partial(_outputs, feed, settings.device),
            )  # fmt: skip
            stack.callback(recorder.close)
            training.keep(recorder)
    training.share()
    return training


@contextmanager
def _put_back_on_error(pair: nn.Module) -> Iterator[None]:
    """If nothing was trained, move the pair back to its device and precision."""
    before = [(p.device, p.dtype) for p in pair.parameters()][:1]
    try:
        yield
    except BaseException:
        for device, dtype in before:
            pair.to(device=device, dtype=dtype)
        raise


def _what_is_kept(settings: Settings) -> str:
    """What to do after one of several processes has died, in words."""
    if settings.run_dir is None:
        return "With run_dir=... the last complete epoch would be kept."
    return f"The last complete epoch is in {settings.run_dir}: continue it with resume=True."


def _result_of_processes(
    pair: Any, settings: Settings, tensors: dict[str, Tensor], record: dict[str, Any]
) -> FitResult:
    """The pair with the weights that several processes trained, and the curves."""
    pair.to(device=settings.device, dtype=as_dtype(settings.precision))
    pair.load_state_dict(tensors)
    result = FitResult(pair)
    set_progress(result, record)
    result.stopped = record["stopped"]
    return result


def fit_share(
    group: Group, device: torch.device, pair: Any, data: Any, settings: Settings
) -> Outcome:
    """The work of one of several processes: a fit whose gradients are averaged over all of them."""
    # Tensors that were sent lie in shared memory, but each process needs weights of its own.
    result = fit(copy.deepcopy(pair), data, **{**vars(settings), "device": device})
    return dict(result.pair.state_dict()), progress_of(result)


def wants_capture(compile: bool | str, module: nn.Module, feed: Feed, num_epochs: int) -> bool:
    """Whether steps are compiled: as the user says, or if it saves enough time.

    This is estimated and not timed, so that the same call computes the same numbers: a compiled step
    saves one millisecond of Python, and another one per 50 million products of weights and data.
    """
    if compile != "auto":
        return bool(compile)
    if not isinstance(feed.training, Resident):
        return False
    products = feed.training.size * sum(p.numel() for p in module.parameters())
    steps = num_epochs * feed.training.num_batches
    return steps * 1e-3 * (1 + products / 5e7) >= SECONDS_WORTH


def _outputs(feed: Feed, device: torch.device, pair: Any) -> Tensor:
    """Numbers in which equal models agree: log-probabilities of two data, or two samples.

    For data in a stream, they are the bytes of a description of the model.
    """
    if isinstance(feed.training, Stream):
        return torch.frombuffer(bytearray(nn.Module.__repr__(pair).encode()), dtype=torch.uint8)
    with evaluation(pair), fixed_seed(0, device):
        values, masks = feed.training.batch(slice(0, 2))
        if isinstance(pair, LatentVariableModel):
            trace = trace_pair(pair, values, observed=masks)
            parts: list[Tensor] = [*trace.log_p.values(), *trace.log_q.values()]
        else:
            parts = list(pair.sample(2).values())
        return torch.cat([part.double().flatten() for part in parts]).nan_to_num()
