"""Steps of one player on a GPU that are recorded as a CUDA graph, and what happens where that fails."""

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
    """Recorded steps over resident data, made when the graph of the step has passed its checks.

    One player with one update per batch is recorded; several players step by their graphs.

    Args:
        module: named in messages.
        learners: of the fit.
        feed: its training data.
        enabled: whether the device can record steps, and no other process takes part in them.
    """

    def __init__(
        self, module: TrainingModule, learners: Sequence[Learner], feed: Feed, enabled: bool
    ) -> None:
        self.module, self.learner, self.training = module, learners[0], feed.training
        one = len(learners) == 1 and self.learner.player.steps == 1
        self.enabled = enabled and one and isinstance(feed.training, Resident)
        self.replay: Replay | None = None

    def begin(self, further: Tensors) -> None:
        """Take over what holds for an epoch, or forget a recording that does not."""
        if self.replay is not None and not self.replay.begin(further):
            self.replay = None

    def forget(self) -> None:
        """Make another recording later."""
        self.replay = None

    def check_again(self) -> None:
        """Compare the recording with the step as written at its next use."""
        if self.replay is not None:
            self.replay.unchecked = True

    def step(self, piece: Any) -> bool:
        """Take a step by the recording, where there is one and the batch is whole."""
        if self.replay is None or len(piece) != self.replay.size:
            return False
        try:
            self.replay(piece)
        except DisagreementError as error:
            self._give_up(error)
            return False
        return True

    def try_to_record(self, values: Tensors, masks: Tensors, further: Tensors) -> None:
        """Record the step, once its graph has passed its checks."""
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
        except Exception as error:  # what a recording may raise has no end
            self._give_up(error)

    def taken(self) -> tuple[Tensor, dict[str, Tensor], int] | None:
        """Average loss and metrics of the recorded steps of an epoch, if there were any."""
        if self.replay is None or not self.replay.count:
            return None
        return self.replay.pop_averages()

    def _give_up(self, error: Exception) -> None:
        self.enabled, self.replay = False, None
        without_replay(self.module.name, error)
