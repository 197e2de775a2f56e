"""fit(): stochastic variational inference of any pair."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from probgen.contexts import (
    as_count,
    as_seed,
    enough_memory,
    evaluation,
    fixed_seed,
    kept_modes,
    quiet_pyro,
    random_state,
)
from probgen.data import Splits
from probgen.inference.batches import BATCH_SIZE, VALIDATION_ROWS, Resident, Stream, is_stream
from probgen.inference.devices import as_device, as_dtype
from probgen.inference.inputs import prepare
from probgen.inference.nonfinite import TAIL, broken_parameter, explain
from probgen.inference.objectives import ELBO, Objective, as_objective
from probgen.inference.optimizers import make_optimizer, make_scheduler
from probgen.inference.recording import Recorder, describe_data, described
from probgen.inference.results import FitResult
from probgen.pair import LatentVariableModel
from probgen.progress import Progress


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
            the bit on a CPU; begin it where there is none yet. Only `num_epochs`, `patience` and
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
            loop = _Loop(pair, source, held, goal, target, seed)
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


class _Loop:
    """The state of one call of fit."""

    optimizer: torch.optim.Optimizer
    scheduler: Any

    def __init__(
        self,
        pair: LatentVariableModel,
        source: Resident | Stream,
        held: Resident | None,
        objective: Objective,
        device: torch.device,
        seed: int,
    ) -> None:
        self.pair, self.source, self.held = pair, source, held
        self.objective, self.device, self.seed = objective, device, seed
        self.result = FitResult(pair, device=str(device))
        self.best: dict[str, Tensor] | None = None
        self.recorder: Recorder | None = None

    def run(self, num_epochs: int, patience: int | None, progress: bool) -> FitResult:
        result, warmup = self.result, getattr(self.objective, "warmup_epochs", 0)
        done = len(result.elbo)
        try:
            with Progress(f"fit {self.pair.name}", num_epochs, progress) as bar:
                if done:
                    bar.update(done, "resumed")
                for epoch in range(done, num_epochs):
                    waited = epoch - max(result.best_epoch, warmup)
                    if patience is not None and waited >= patience:
                        result.stopped = "early"
                        break
                    start = time.perf_counter()
                    weight = min(1.0, (epoch + 1) / warmup) if warmup else 1.0
                    elbo, num_data = self.epoch(epoch, weight)
                    bound = None if self.held is None else self.validate()
                    self.record(elbo, bound, time.perf_counter() - start)
                    self.step_scheduler(weight)
                    if self.recorder is not None:
                        self.recorder.store(self)
                    bar.update(epoch + 1, self.describe(num_data))
        except KeyboardInterrupt:
            result.stopped = "interrupted"
            if self.recorder is not None:  # the run goes on from its last whole epoch
                self.recorder.restore(self)
                result.stopped = "interrupted"
        if self.best is not None:
            self.pair.load_state_dict(self.best)
        else:
            result.best_epoch = len(result.elbo)
        if self.recorder is not None:
            self.recorder.finish(result)
        return result

    def keep(self, recorder: Recorder) -> None:
        """Go on from where the run directory is, and write every epoch into it."""
        self.recorder = recorder
        recorder.restore(self)

    def epoch(self, epoch: int, weight: float) -> tuple[float, int]:
        """One pass; the average bound and the number of data."""
        # On a GPU reading the loss would wait for it, so a whole epoch runs unread and is repeated
        # with a look at every step only where it went wrong.
        look = self.device.type == "cpu" or not self.source.can_repeat
        before = _clone(self.pair.state_dict())
        optimizer_before = None if look else _clone(self.optimizer.state_dict())
        try:
            losses, counts = self.steps(epoch, weight, look)
            if not look and not bool(losses.isfinite().all()):
                assert optimizer_before is not None
                self.pair.load_state_dict(before)
                self.optimizer.load_state_dict(optimizer_before)
                losses, counts = self.steps(epoch, weight, look=True)
            broken = broken_parameter(self.pair)
            if broken:
                raise FloatingPointError(
                    f"fit: at the end of epoch {epoch + 1} {broken}; the gradient of its last step was "
                    f"not finite.{TAIL}"
                )
        except FloatingPointError:
            self.pair.load_state_dict(self.best if self.best is not None else before)
            raise
        sizes = torch.tensor(counts, dtype=torch.float64)
        return -float((losses.double().cpu() * sizes).sum() / sizes.sum()), sum(counts)

    def steps(self, epoch: int, weight: float, look: bool) -> tuple[Tensor, list[int]]:
        pair, losses, counts = self.pair, [], []
        kl_weight = None
        if weight < 1:
            kl_weight = torch.full((), weight, device=self.device)
        with fixed_seed(self.seed * 1_000_003 + epoch, self.device):
            for index, (values, masks) in enumerate(self.source.batches(shuffle=True)):
                state = random_state(self.device) if look else None
                bound = self.objective(pair, values, observed=masks, kl_weight=kl_weight)
                loss = -bound.mean()
                if look and not math.isfinite(loss.item()):
                    assert state is not None
                    raise FloatingPointError(
                        explain(
                            pair,
                            values,
                            masks,
                            state,
                            self.device,
                            num_particles=getattr(self.objective, "num_particles", 1),
                            epoch=epoch + 1,
                            batch=index + 1,
                        )
                    )
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                losses.append(loss.detach())
                counts.append(len(next(iter(values.values()))))
        self.result.observed = tuple(name + " (where known)" * (name in masks) for name in values)
        return torch.stack(losses), counts

    def validate(self) -> float:
        """The validation bound with full KL weight, on the same noise every epoch."""
        assert self.held is not None
        total, count = torch.zeros((), dtype=torch.float64, device=self.device), 0
        with evaluation(self.pair), fixed_seed(self.seed + 1, self.device):
            for values, masks in self.held.batches(shuffle=False):
                total += self.objective(self.pair, values, observed=masks).sum()
                count += len(next(iter(values.values())))
        return float(total) / count

    def record(self, elbo: float, bound: float | None, seconds: float) -> None:
        """Note an epoch, and keep its weights where its validation bound is the best so far."""
        result = self.result
        better = bound is not None and math.isfinite(bound)
        if better and self.best is not None:
            better = bound > result.validation_elbo[result.best_epoch - 1]  # type: ignore[operator]
        if better:
            self.best = _clone(self.pair.state_dict())
        result.elbo.append(elbo)
        result.learning_rate.append(float(self.optimizer.param_groups[0]["lr"]))
        result.seconds.append(seconds)
        if bound is not None:
            result.validation_elbo.append(bound)
        if better:
            result.best_epoch = len(result.elbo)

    def step_scheduler(self, weight: float) -> None:
        result = self.result
        if isinstance(self.scheduler, ReduceLROnPlateau):
            # During a warm-up the training bound falls because its weight rises.
            if weight == 1 or result.validation_elbo:
                self.scheduler.step(-(result.validation_elbo or result.elbo)[-1])
        elif self.scheduler is not None:
            self.scheduler.step()

    def describe(self, num_data: int) -> str:
        result = self.result
        text = f"ELBO {result.elbo[-1]:.2f}"
        if result.validation_elbo:
            text += f"  validation {result.validation_elbo[-1]:.2f}"
        return f"{text}  {num_data / result.seconds[-1]:,.0f} data/s"


def _clone(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: _clone(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_clone(value) for value in state)
    return state
