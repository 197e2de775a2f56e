"""Training steps that are recorded as a CUDA graph, with a fallback if the recording fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from probgen.inference.compute.capture import Tensors
from probgen.inference.compute.cuda_graphs import DisagreementError, Replay, without_replay
from probgen.inference.training.batches import Resident
from probgen.inference.training.feed import Feed
from probgen.inference.training.module import TrainingModule
from probgen.inference.training.players import Learner


class RecordedSteps:
    """Recorded steps over data on the device, made after the graph of the step has been checked.

    Only one player with one update per batch is recorded; several players use their captured graphs.

    Args:
        module: the trained module, named in messages.
        learners: the learners of the fit.
        feed: the training data.
        enabled: whether the device can record steps and the fit runs in one process only.
    """

    def __init__(
        self, module: TrainingModule, learners: Sequence[Learner], feed: Feed, enabled: bool
    ) -> None:
        self.module, self.learner, self.training = module, learners[0], feed.training
        one = len(learners) == 1 and self.learner.player.steps == 1
        self.enabled = enabled and one and isinstance(feed.training, Resident)
        self.replay: Replay | None = None

    def begin(self, further: Tensors) -> None:
        """Copy in the inputs of an epoch, or drop the recording if it does not fit them."""
        if self.replay is not None and not self.replay.begin(further):
            self.replay = None

    def forget(self) -> None:
        """Drop the recording; a new one is made later."""
        self.replay = None

    def check_again(self) -> None:
        """Compare the recording with the eager step at its next use."""
        if self.replay is not None:
            self.replay.unchecked = True

    def step(self, piece: Any) -> bool:
        """Replay a step if there is a recording for this size of batch; return whether it was made."""
        if self.replay is None or len(piece) != self.replay.size:
            return False
        try:
            self.replay(piece)
        except DisagreementError as error:
            self._give_up(error)
            return False
        return True

    def try_to_record(self, values: Tensors, masks: Tensors, further: Tensors) -> None:
        """Record the step if its graph has passed its checks."""
        step = self.learner.step
        if (
            self.replay is not None
            or not self.enabled
            or not step.has_checked_graph(values, masks, further)
        ):
            return
        assert isinstance(self.training, Resident)
        try:
            self.replay = Replay(
                self.training.batch, self.training.size, step, self.learner.optimizer, further
            )
        except Exception as error:  # a recording may raise any exception
            self._give_up(error)

    def pop_averages(self) -> tuple[Tensor, dict[str, Tensor], int] | None:
        """Average loss and metrics of the replayed steps of an epoch, and the number of their data."""
        if self.replay is None or not self.replay.count:
            return None
        return self.replay.pop_averages()

    def _give_up(self, error: Exception) -> None:
        self.enabled, self.replay = False, None
        without_replay(self.module.name, error)
