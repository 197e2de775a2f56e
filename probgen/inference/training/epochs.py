"""The loop of a fit: epochs, validation, the weights kept, and what happens when a loss breaks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from probgen.basics.locking import LOCK
from probgen.basics.progress import Progress
from probgen.basics.randomness import fixed_seed, fixed_seeds_of_python, random_state
from probgen.basics.settings import evaluation
from probgen.inference.compute.capture import Captured, Tensors
from probgen.inference.compute.cuda_graphs import (
    DisagreementError,
    Replay,
    can_replay,
    without_replay,
)
from probgen.inference.compute.devices import as_dtype, mixed, runs_ahead
from probgen.inference.compute.processes import Group
from probgen.inference.objectives.elbo import Objective, values_of
from probgen.inference.training.batches import Resident, Stream
from probgen.inference.training.nonfinite import TAIL, broken_parameter, explain
from probgen.inference.training.recorder import Recorder
from probgen.inference.training.results import FitResult, go_on_from, progress_of
from probgen.pair import LatentVariableModel

STEPS_UNCHECKED = 100
"""After so many steps a captured one is held against the one as written, when an epoch begins."""


class Loop:
    """The state of one call of fit: the pair, its optimizer and scheduler, the curves, the best weights."""

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
        *,
        precision: str = "float32",
        capture: bool = False,
        group: Group | None = None,
    ) -> None:
        self.group = group
        self.pair, self.source, self.held = pair, source, held
        self.objective, self.device, self.seed = objective, device, seed
        self.precision, self.unchecked = precision, 0
        self.step = Captured(
            pair, self.loss, gradients=True, capture=capture, precision=precision, owner="fit"
        )
        self.constants = {} if isinstance(source, Stream) else self.constants_of(objective, source)
        unstratified = getattr(objective, "unstratified", None)
        self.judge: Objective = objective if unstratified is None else unstratified()
        self.held_constants = {} if held is None else self.constants_of(self.judge, held)
        self.learns = False
        self.replay: Replay | None = None
        self.replays = group is None and isinstance(source, Resident)
        self.replays = self.replays and can_replay(device)
        self.result = FitResult(pair, device=str(device))
        self.best: dict[str, Tensor] | None = None
        self.recorder: Recorder | None = None

    def run(
        self, num_epochs: int, patience: int | None, progress: bool,
        callback: Callable[[FitResult], Any] | None = None,
    ) -> FitResult:  # fmt: skip
        result, warmup = self.result, getattr(self.objective, "warmup_epochs", 0)
        done = len(result.elbo)
        try:
            shown = progress and (self.group is None or self.group.rank == 0)
            with Progress(f"fit {self.pair.name}", num_epochs, shown) as bar:
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
                    if callback is not None:
                        with LOCK.lent():
                            callback(result)
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

    def loss(self, values: Tensors, masks: Tensors, further: Tensors) -> Tensor:
        """The negative bound, averaged over a batch."""
        with mixed(self.precision, self.device):
            return -values_of(self.objective, self.pair, values, masks, further).mean()

    def constants_of(self, objective: Objective, source: Resident) -> Tensors:
        """What an objective takes of all the data, as tensors."""
        constants = getattr(objective, "constants", None)
        numbers = {} if constants is None else dict(constants(source.data))
        return {name: self.scalar(number) for name, number in numbers.items()}

    def scalar(self, number: float) -> Tensor:
        return torch.full((), number, dtype=as_dtype(self.precision), device=self.device)

    def epoch(self, epoch: int, weight: float) -> tuple[float, int]:
        """One pass; the average bound and the number of data."""
        # On a GPU reading the loss would wait for it, so a whole epoch runs unread and is repeated
        # with a look at every step only where it went wrong.
        look = not runs_ahead(self.device) or not self.source.can_repeat
        before = _clone(self.pair.state_dict())
        optimizer_before = None if look else _clone(self.optimizer.state_dict())
        try:
            losses, counts = self.steps(epoch, weight, look)
            if not look and not bool(losses.isfinite().all()):
                assert optimizer_before is not None
                self.pair.load_state_dict(before)
                self.optimizer.load_state_dict(optimizer_before)
                self.replay = None  # its optimizer state is no longer the one in use
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
        """The losses of an epoch and their numbers of data; recorded steps come as one average."""
        pair, losses, counts = self.pair, [], []
        further = dict(self.constants)
        if getattr(self.objective, "warmup_epochs", 0) > 1:
            further["kl_weight"] = self.scalar(weight)
        if self.replay is not None and not self.replay.begin(further):
            self.replay = None
        if self.unchecked >= STEPS_UNCHECKED:
            self.step.check_again()
            if self.replay is not None:
                self.replay.unchecked = True
            self.unchecked = 0
        seed = self.seed * 1_000_003 + epoch
        with fixed_seed(seed, self.device), fixed_seeds_of_python(seed):
            for index, piece in enumerate(self.source.pieces(shuffle=True)):
                if not look and self.replayed(piece):
                    continue
                state = random_state(self.device) if look else None
                values, masks = self.source.batch(piece)
                size = len(next(iter(values.values())))
                # A smaller last batch comes once an epoch, which is not worth a graph of its own.
                ragged = size != getattr(self.source, "size", size)
                step = self.step.as_written if ragged else self.step
                loss = step(values, masks, further)
                if not self.learns:
                    self.check_gradients()
                if look and not math.isfinite(loss.item()):
                    assert state is not None
                    raise FloatingPointError(
                        explain(
                            pair,
                            values,
                            masks,
                            state,
                            self.device,
                            objective=self.objective,
                            further=further,
                            epoch=epoch + 1,
                            batch=index + 1,
                        )
                    )
                if self.group is not None:
                    loss, size = self.group.average(loss, size, self.step.parameters)
                self.optimizer.step()
                losses.append(loss)
                counts.append(size)
                self.result.observed = tuple(n + " (where known)" * (n in masks) for n in values)
                if not (look or ragged):
                    self.record_step(values, masks, further)
            self.unchecked += index + 1
            if self.replay is not None and self.replay.count:
                loss, size = self.replay.taken()
                losses.append(loss.to(losses[0].dtype) if losses else loss)
                counts.append(size)
        return torch.stack(losses), counts

    def check_gradients(self) -> None:
        """The first step must reach a parameter.

        Raises:
            ValueError: it reaches none.
        """
        self.learns = any(parameter.grad is not None for parameter in self.step.parameters)
        if not self.learns:
            raise ValueError(
                f"fit: the objective depends on no parameter of {self.pair.name} that can be learned, so "
                "nothing would be. Compute it of the pair that it is given, or free the parameters that "
                "it depends on: requires_grad_(True)."
            )

    def replayed(self, piece: Any) -> bool:
        """Take a step by the recording, where there is one and the batch is whole."""
        if self.replay is None or len(piece) != self.replay.source.size:
            return False
        try:
            self.replay(piece)
        except DisagreementError as error:
            self.give_up_replays(error)
            return False
        return True

    def record_step(self, values: Tensors, masks: Tensors, further: Tensors) -> None:
        """On a GPU record the step, once its graph has passed its checks."""
        if (
            self.replay is not None
            or not self.replays
            or not self.step.settled(values, masks, further)
        ):
            return
        assert isinstance(self.source, Resident)
        try:
            self.replay = Replay(self.source, self.step, self.optimizer, further)
        except Exception as error:  # what a recording may raise has no end
            self.give_up_replays(error)

    def give_up_replays(self, error: Exception) -> None:
        self.replays, self.replay = False, None
        without_replay(self.pair.name, error)

    def validate(self) -> float:
        """The validation bound with full KL weight, on the same noise every epoch."""
        assert self.held is not None
        total, count = torch.zeros((), dtype=torch.float64, device=self.device), 0
        with evaluation(self.pair), fixed_seed(self.seed + 1, self.device):
            for values, masks in map(self.held.batch, self.held.pieces(shuffle=False)):
                with mixed(self.precision, self.device):
                    bound = values_of(self.judge, self.pair, values, masks, self.held_constants)
                total += bound.sum()
                count += len(next(iter(values.values())))
        if self.group is not None:
            sums = self.group.sums(float(total), count)
            return sums[0] / sums[1]
        return float(total) / count

    def share(self) -> None:
        """The state of the first process in all of them."""
        if self.group is None:
            return
        state = self.group.from_first((
            self.pair.state_dict(), self.best, self.optimizer.state_dict(),
            None if self.scheduler is None else self.scheduler.state_dict(),
            progress_of(self.result), self.step.capture,
        ))  # fmt: skip
        weights, self.best, optimizer, scheduler, progress, self.step.capture = state
        self.pair.load_state_dict(weights)
        self.optimizer.load_state_dict(optimizer)
        if self.scheduler is not None:
            self.scheduler.load_state_dict(scheduler)
        go_on_from(self.result, progress)

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
