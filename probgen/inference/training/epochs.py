"""Epochs of a fit: batches, updates of all players, and validation."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from probgen.basics.locking import LOCK
from probgen.basics.progress import Progress
from probgen.basics.randomness import fixed_seed, fixed_seeds_of_python
from probgen.basics.settings import evaluation
from probgen.inference.compute.cuda_graphs import can_replay
from probgen.inference.compute.devices import mixed, runs_ahead
from probgen.inference.objectives.base import Objective
from probgen.inference.objectives.registry import name_of
from probgen.inference.objectives.values import checked_value
from probgen.inference.training.averages import Averages
from probgen.inference.training.batches import Stream
from probgen.inference.training.feed import Feed
from probgen.inference.training.module import TrainingModule
from probgen.inference.training.nonfinite import ADVICE, broken_parameter, explain
from probgen.inference.training.players import Learner, RandomState, update_all
from probgen.inference.training.recorded_steps import RecordedSteps
from probgen.inference.training.results import FitResult
from probgen.inference.training.settings import Settings
from probgen.inference.training.training_state import TrainingState, clone_state

STEPS_UNCHECKED = 100
"""After this number of steps, graphs are compared with eager steps when the next epoch begins."""


class Training(TrainingState):
    """The epochs of one fit.

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
        super().__init__(module, feed, objective, settings, capture)
        self.recorded = RecordedSteps(
            module, self.learners, feed, enabled=feed.group is None and can_replay(self.device)
        )
        self.unchecked_steps, self.gradients_checked = 0, False

    def run(self) -> FitResult:
        """Train the remaining epochs, then load the selected weights into the pair."""
        result, settings, warmup = self.result, self.settings, self.objective.warmup_epochs
        done = len(result.elbo)
        try:
            show_bar = settings.progress and self.is_first
            with Progress(f"fit {self.module.name}", settings.num_epochs, show_bar) as bar:
                if done:
                    bar.update(done, "resumed")
                for epoch in range(done, settings.num_epochs):
                    waited = epoch - max(result.best_epoch, warmup)
                    if settings.patience is not None and waited >= settings.patience:
                        result.stopped = "early"
                        break
                    num_data = self.one_epoch(epoch, warmup)
                    bar.update(epoch + 1, result.last_epoch(num_data))
                    self.make_remarks()
                    if settings.callback is not None:
                        with LOCK.lent():
                            settings.callback(result)
        except KeyboardInterrupt:
            result.stopped = "interrupted"
            if self.recorder is not None:  # a resumed run starts from the last complete epoch
                self.recorder.restore(self)
                result.stopped = "interrupted"
        if self.best is not None:
            self.module.load_state_dict(self.best)
        else:
            result.best_epoch = len(result.elbo)
        if self.recorder is not None:
            self.recorder.finish(result)
        return result

    def try_players(self) -> None:
        """Compute each player's loss once, so that errors are raised before a run directory is made.

        Without a run directory the first step raises the same errors.
        """
        if isinstance(self.feed.training, Stream) or self.settings.run_dir is None:
            return  # a stream may yield each batch only once
        with evaluation(self.module), torch.enable_grad(), fixed_seed(0, self.device):
            batch = self.feed.training.batch(slice(0, 2))
            for learner in self.learners:
                learner.step.function(*batch, {})

    # ------------------------------------------------------------------ one epoch

    def one_epoch(self, epoch: int, warmup: int) -> int:
        """Train, validate, record and store an epoch; return its number of data."""
        start = time.perf_counter()
        kl_weight = min(1.0, (epoch + 1) / warmup) if warmup else 1.0
        averages = self.epoch(epoch, kl_weight)
        self.share_buffers()
        validation = None if self.feed.validation is None else self.validate()
        self.note(averages, validation, time.perf_counter() - start)
        self.step_schedulers(kl_weight)
        if self.recorder is not None:
            self.recorder.store(self)
        return averages.num_data

    def epoch(self, epoch: int, kl_weight: float) -> Averages:
        """Train for one pass over the data; return the averages of the losses and metrics."""
        # On a GPU, reading a loss waits for it. So an epoch runs without reading losses, and is
        # repeated with a look at every loss only if a loss was not finite.
        look = not runs_ahead(self.device) or not self.feed.training.can_repeat
        before = clone_state(self.module.state_dict())
        optimizers_before = [
            None if look else clone_state(learner.optimizer.state_dict())
            for learner in self.learners
        ]
        try:
            averages = self.steps(epoch, kl_weight, look)
            if not look and not averages.all_finite:
                self.module.load_state_dict(before)
                for learner, state in zip(self.learners, optimizers_before, strict=True):
                    learner.optimizer.load_state_dict(state or {})
                self.recorded.forget()  # it uses an optimizer state that has been replaced
                averages = self.steps(epoch, kl_weight, look=True)
            broken = broken_parameter(self.module)
            if broken:
                raise FloatingPointError(
                    f"fit: at the end of epoch {epoch + 1} {broken}; the gradient of the last step was "
                    f"not finite.{ADVICE}"
                )
        except FloatingPointError:
            self.module.load_state_dict(self.best if self.best is not None else before)
            raise
        return averages

    def steps(self, epoch: int, kl_weight: float, look: bool) -> Averages:
        """Train on all batches of an epoch; with `look`, read every loss before its update."""
        training, averages = self.feed.training, Averages(self.player_names)
        further = dict(self.constants)
        if self.objective.warmup_epochs > 1:
            further["kl_weight"] = self.scalar(kl_weight)
        self.recorded.begin(further)
        if self.unchecked_steps >= STEPS_UNCHECKED:
            for learner in self.learners:
                learner.step.check_again()
            self.recorded.check_again()
            self.unchecked_steps = 0
        seed = self.settings.seed * 1_000_003 + epoch
        with fixed_seed(seed, self.device), fixed_seeds_of_python(seed):
            for index, piece in enumerate(training.pieces(shuffle=True)):
                if not look and self.recorded.step(piece):
                    continue
                values, masks = training.batch(piece)
                size = len(next(iter(values.values())))
                # A smaller last batch occurs once per epoch, too rarely for a graph of its own.
                smaller = size != getattr(training, "size", size)
                batch = (values, masks, further)
                inspect = partial(self.inspect, batch=batch, epoch=epoch, index=index, look=look)
                averages.add(
                    update_all(
                        self.learners, batch, self.device, self.group,
                        eager=smaller, look=look, inspect=inspect,
                    )
                )  # fmt: skip
                self.gradients_checked = True
                self.result.observed = tuple(n + " (where known)" * (n in masks) for n in values)
                if not (look or smaller):
                    self.recorded.try_to_record(values, masks, further)
            self.unchecked_steps += index + 1
            averages.add_recorded(self.recorded.pop_averages())
        return averages

    def inspect(
        self, learner: Learner, loss: Tensor, state: RandomState | None, *, batch: Any, epoch: int,
        index: int, look: bool,
    ) -> None:  # fmt: skip
        """Check a step before its update.

        Raises:
            ValueError: in the first step, no parameter has a gradient.
            FloatingPointError: with `look`, the loss is not finite.
        """
        if not self.gradients_checked:
            self.check_gradients(learner)
        if look and not math.isfinite(loss.item()):
            assert state is not None
            raise FloatingPointError(
                explain(
                    self.module, learner, batch, state, self.device,
                    objective=self.objective, epoch=epoch + 1, batch_index=index + 1,
                )
            )  # fmt: skip

    def check_gradients(self, learner: Learner) -> None:
        """Check that the loss of a player depends on a parameter.

        Raises:
            ValueError: no parameter has a gradient.
        """
        if not learner.learns:
            raise ValueError(
                f"{learner.owner} depends on no learnable parameter of {self.module.name}, so nothing "
                "would be learned. Compute it from the pair that it is given, or make the parameters "
                "that it depends on learnable: requires_grad_(True)."
            )

    def validate(self) -> float:
        """The validation value with KL weight 1, on the same noise in every epoch."""
        validation, objective = self.feed.validation, self.feed.validation_objective
        assert validation is not None
        owner = f"fit: the objective {name_of(objective)}"
        total, count = torch.zeros((), dtype=torch.float64, device=self.device), 0
        with evaluation(self.module), fixed_seed(self.settings.seed + 1, self.device):
            for values, masks in map(validation.batch, validation.pieces(shuffle=False)):
                size = len(next(iter(values.values())))
                with mixed(self.settings.precision, self.device):
                    result = objective(
                        self.module.pair, values, observed=masks, **self.validation_constants
                    )
                    total += checked_value(result, size, owner).sum()
                count += size
        if self.group is not None:
            sums = self.group.sums(float(total), count)
            return sums[0] / sums[1]
        return float(total) / count
