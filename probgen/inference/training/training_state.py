"""The state of a fit: module, learners, curves and best weights, and how processes share it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from probgen.inference.compute.devices import as_dtype
from probgen.inference.objectives.base import Objective
from probgen.inference.training.averages import Averages
from probgen.inference.training.feed import Feed
from probgen.inference.training.module import TrainingModule
from probgen.inference.training.players import Learner, learners_of
from probgen.inference.training.recorder import Recorder
from probgen.inference.training.results import FitResult, go_on_from, progress_of
from probgen.inference.training.settings import Settings


class TrainingState:
    """The state of one fit: the module, its learners, the curves, the best weights.

    Args:
        module: the pair and the networks of the objective.
        feed: batches, and the objective of the validation.
        objective: declares the players.
        settings: of the fit.
        capture: whether steps are captured.
    """

    def __init__(
        self, module: TrainingModule, feed: Feed, objective: Objective, settings: Settings,
        capture: bool = False,
    ) -> None:  # fmt: skip
        self.module, self.feed, self.objective = module, feed, objective
        self.settings, self.group = settings, feed.group
        self.device = settings.device
        self.learners = learners_of(module, objective, settings, self.device, capture)
        self.constants = self.scalars(feed.constants)
        self.validation_constants = self.scalars(feed.validation_constants)
        self.result = FitResult(
            module.pair, device=str(self.device), precision=settings.precision,
            quantity=objective.quantity,
        )  # fmt: skip
        self.best: dict[str, Tensor] | None = None
        self.recorder: Recorder | None = None
        self.remarks_made: set[str] = set()

    @property
    def player_names(self) -> list[str]:
        """Names of the players, in the order of their updates."""
        return [learner.player.name for learner in self.learners]

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.group is None or self.group.rank == 0

    def keep(self, recorder: Recorder) -> None:
        """Go on from where the run directory is, and write every epoch into it."""
        self.recorder = recorder
        recorder.restore(self)
        for learner in self.learners:  # a resumed run goes on as it was begun
            learner.step.capture = recorder.config["settings"]["captured"]

    def scalars(self, numbers: Mapping[str, float]) -> dict[str, Tensor]:
        """Numbers as tensors on the device."""
        return {name: self.scalar(number) for name, number in numbers.items()}

    def scalar(self, number: float) -> Tensor:
        return torch.full((), number, dtype=as_dtype(self.settings.precision), device=self.device)

    # ------------------------------------------------------------------ several processes

    def share(self) -> None:
        """The state of the first process in all of them."""
        if self.group is None:
            return
        state = self.group.from_first((
            self.module.state_dict(), self.best,
            [_learner_state(learner) for learner in self.learners], progress_of(self.result),
        ))  # fmt: skip
        weights, self.best, learner_states, progress = state
        self.module.load_state_dict(weights)
        for learner, (optimizer, scheduler, capture) in zip(
            self.learners, learner_states, strict=True
        ):
            learner.optimizer.load_state_dict(optimizer)
            learner.step.capture = capture
            if learner.scheduler is not None:
                learner.scheduler.load_state_dict(scheduler)
        go_on_from(self.result, progress)

    def share_buffers(self) -> None:
        """Buffers that training changes differ between processes: those of the first are kept."""
        if self.group is None:
            return
        buffers = dict(self.module.named_buffers())
        if buffers:
            kept = self.group.from_first(buffers)
            for name, buffer in buffers.items():
                buffer.copy_(kept[name])

    # ------------------------------------------------------------------ after an epoch

    def note(self, averages: Averages, validation: float | None, seconds: float) -> None:
        """Note an epoch, and keep its weights where its value is the best so far."""
        result = self.result
        value, metrics = averages.numbers()
        decisive, curve = validation, result.validation_elbo
        if validation is None and self.objective.keeps == "best":
            decisive, curve = value, result.elbo
        better = decisive is not None and math.isfinite(decisive)
        if better and self.best is not None:
            better = decisive > curve[result.best_epoch - 1]  # type: ignore[operator]
        if better:
            self.best = clone_state(self.module.state_dict())
        result.elbo.append(value)
        for name, number in metrics.items():
            result.metrics.setdefault(name, []).append(number)
        result.learning_rate.append(float(self.learners[0].optimizer.param_groups[0]["lr"]))
        result.seconds.append(seconds)
        if validation is not None:
            result.validation_elbo.append(validation)
        if better:
            result.best_epoch = len(result.elbo)

    def step_schedulers(self, kl_weight: float) -> None:
        result = self.result
        for learner in self.learners:
            scheduler = learner.scheduler
            if isinstance(scheduler, ReduceLROnPlateau):
                # During a warm-up the training value falls because the weight of the KL terms rises.
                if kl_weight == 1 or result.validation_elbo:
                    scheduler.step(-(result.validation_elbo or result.elbo)[-1])
            elif scheduler is not None:
                scheduler.step()

    def make_remarks(self) -> None:
        """What the objective has to say about the epochs so far, each remark once."""
        for remark in self.objective.remarks(self.result):
            if remark not in self.remarks_made:
                self.remarks_made.add(remark)
                if self.is_first:
                    warnings.warn(f"fit: {remark}", stacklevel=2)


def _learner_state(learner: Learner) -> tuple[Any, Any, bool]:
    scheduler = learner.scheduler
    return (
        learner.optimizer.state_dict(),
        None if scheduler is None else scheduler.state_dict(),
        learner.step.capture,
    )


def clone_state(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: clone_state(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(clone_state(value) for value in state)
    return state
