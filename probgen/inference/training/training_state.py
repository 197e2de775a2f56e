"""The state of a fit: module, learners, curves and best weights, and how processes share it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from probgen.basics.user_warnings import warn
from probgen.inference.compute.devices import as_dtype
from probgen.inference.objectives.base import Objective
from probgen.inference.training.averages import Averages
from probgen.inference.training.feed import Feed
from probgen.inference.training.module import TrainingModule
from probgen.inference.training.players import Learner, learners_of
from probgen.inference.training.recorder import Recorder
from probgen.inference.training.results import FitResult, progress_of, resume_progress
from probgen.inference.training.settings import Settings


class TrainingState:
    """The state of one fit: the module, its learners, the curves, and the best weights.

    Args:
        module: the pair and the networks of the objective.
        feed: training batches, validation data, and the objective of the validation.
        objective: the objective, which declares the players.
        settings: the settings of the fit.
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
        """Resume from the state of the run directory, and store every epoch in it."""
        self.recorder = recorder
        recorder.restore(self)
        for learner in self.learners:  # a resumed run is captured if it was before
            learner.step.capture = recorder.config["settings"]["captured"]

    def scalars(self, numbers: Mapping[str, float]) -> dict[str, Tensor]:
        """Convert numbers into scalar tensors on the device."""
        return {name: self.scalar(number) for name, number in numbers.items()}

    def scalar(self, number: float) -> Tensor:
        return torch.full((), number, dtype=as_dtype(self.settings.precision), device=self.device)

    # ------------------------------------------------------------------ several processes

    def share(self) -> None:
        """Copy the state of the first process to all others."""
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
        resume_progress(self.result, progress)

    def share_buffers(self) -> None:
        """Copy the buffers of the first process to all others, because training changes them."""
        if self.group is None:
            return
        buffers = dict(self.module.named_buffers())
        if buffers:
            first = self.group.from_first(buffers)
            for name, buffer in buffers.items():
                buffer.copy_(first[name])

    # ------------------------------------------------------------------ after an epoch

    def note(self, averages: Averages, validation: float | None, seconds: float) -> None:
        """Record an epoch, and save its weights if its value is the best so far."""
        result = self.result
        value, metrics = averages.numbers()
        score, curve = validation, result.validation_elbo
        if validation is None and self.objective.keeps == "best":
            score, curve = value, result.elbo
        better = score is not None and math.isfinite(score)
        if better and self.best is not None:
            better = score > curve[result.best_epoch - 1]  # type: ignore[operator]
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
                # In a warm-up the training value decreases because the KL weight increases.
                if kl_weight == 1 or result.validation_elbo:
                    scheduler.step(-(result.validation_elbo or result.elbo)[-1])
            elif scheduler is not None:
                scheduler.step()

    def make_remarks(self) -> None:
        """Warn of the remarks that the objective makes about the epochs so far, each once."""
        for remark in self.objective.remarks(self.result):
            if remark not in self.remarks_made:
                self.remarks_made.add(remark)
                if self.is_first:
                    warn(f"fit: {remark}")


def _learner_state(learner: Learner) -> tuple[Any, Any, bool]:
    scheduler = learner.scheduler
    return (
        learner.optimizer.state_dict(),
        None if scheduler is None else scheduler.state_dict(),
        learner.step.capture,
    )


def clone_state(state: Any) -> Any:
    """A copy of a nested state, with copies of its tensors."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: clone_state(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(clone_state(value) for value in state)
    return state
