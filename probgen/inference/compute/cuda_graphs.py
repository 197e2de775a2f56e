"""A whole step on a GPU, recorded once as a CUDA graph and replayed by a single call from Python.

Rows of the batch, loss, gradients and optimizer become one sequence of kernels. What varies from step to
step are tensors that stay where they are: the rows' numbers, the KL weight of a warm-up, the learning
rates. Noise comes from the GPU's generator, which a replay moves on as the step as written would.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from probgen.basics.randomness import random_state, set_random_state
from probgen.inference.compute.capture import Captured, CaptureWarning, Tensors, words
from probgen.inference.compute.comparison import difference

Settings = list[dict[str, Any]]


class Replay:
    """Recorded steps over resident data.

    An optimizer is part of the recording where it can be: torch's Adam and its relatives, fused or
    `capturable`, without hooks. Another one steps after each replay, as what Python does in a step
    of its own would not be replayed.

    Args:
        batch: values and masks of rows of the data, given a tensor of their numbers.
        size: rows of every batch.
        step: the captured loss, with a graph of such batches that has passed its checks.
        optimizer: with a state from at least one step.
        further: what else the loss takes.

    Raises:
        RuntimeError: something in the step cannot be recorded.
    """

    def __init__(
        self, batch: Callable[[Tensor], tuple[Tensors, Tensors]], size: int, step: Captured,
        optimizer: torch.optim.Optimizer, further: Tensors,
    ) -> None:  # fmt: skip
        self.batch, self.size, self.step, self.optimizer = batch, size, step, optimizer
        self.device = step.parameters[0].device
        self.rows = torch.arange(size, device=self.device)
        self.further = {name: tensor.clone() for name, tensor in further.items()}
        self.rates = [torch.zeros((), device=self.device) for _ in optimizer.param_groups]
        self.loss = torch.zeros((), dtype=step.parameters[0].dtype, device=self.device)
        self.total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.metrics = {
            name: torch.zeros((), dtype=torch.float64, device=self.device) for name in step.metrics
        }
        self.count, self.unchecked = 0, True
        self.whole = _can_be_recorded(optimizer)
        self._settings = _settings(optimizer)
        self.begin(further)
        self._replay = recorded(self._step, self.device)
        self.gradients = [parameter.grad for parameter in step.parameters]

    def begin(self, further: Tensors) -> bool:
        """Take over what holds for an epoch; false where another recording is needed."""
        if further.keys() != self.further.keys() or _settings(self.optimizer) != self._settings:
            return False
        for name, tensor in further.items():
            self.further[name].copy_(tensor)
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            rate.fill_(float(group["lr"]))
        return True

    def __call__(self, rows: Tensor) -> None:
        """One step over these rows of the data.

        Raises:
            DisagreementError: it is off from the step as written; nothing was changed.
        """
        check = self._held_against(rows) if self.unchecked else None
        self.rows.copy_(rows)
        self._replay()
        if check is not None:
            check()
            self.unchecked = False
        if not self.whole:
            self._hand_out()
            self.optimizer.step()
        self.count += 1

    def taken(self) -> tuple[Tensor, dict[str, Tensor], int]:
        """Average loss and metrics of the steps since this was last asked, and their number of data."""
        steps, count = max(1, self.count), self.count * self.size
        mean = self.total / steps
        metrics = {name: total / steps for name, total in self.metrics.items()}
        for total in (self.total, *self.metrics.values()):
            total.zero_()
        self.count = 0
        return mean, metrics, count

    def _step(self) -> None:
        values, masks = self.batch(self.rows)
        self.loss.copy_(self.step.run(values, masks, self.further))
        self.total.add_(self.loss)
        for name, total in self.metrics.items():
            total.add_(self.step.metrics[name])
        if self.whole:
            with _rates_as_tensors(self.optimizer, self.rates):
                self.optimizer.step()

    def _hand_out(self) -> None:
        for parameter, gradient in zip(self.step.parameters, self.gradients, strict=True):
            parameter.grad = gradient

    def _held_against(self, rows: Tensor) -> Callable[[], None]:
        """Run the step as written; what it returns compares the replay with it."""
        state = random_state(self.device)
        tensors = [*self.step.parameters, *self.step.buffers]
        kept = [tensor.detach().clone() for tensor in tensors]
        optimizer = copy.deepcopy(self.optimizer.state_dict())
        totals = [self.total, *self.metrics.values()]
        totals_before = [total.clone() for total in totals]

        def put_back() -> None:
            with torch.no_grad():
                for tensor, before in zip(tensors, kept, strict=True):
                    tensor.copy_(before)

        values, masks = self.batch(rows)
        written = self.outcome(self.step.as_written(values, masks, self.further), None)
        put_back()
        set_random_state(state, self.device)

        def compare() -> None:
            reason = difference(
                written, self.outcome(self.loss, self.gradients), self.step.tolerance
            )
            if reason and bool(written[0].isfinite()):
                put_back()
                self.optimizer.load_state_dict(optimizer)
                for total, before in zip(totals, totals_before, strict=True):
                    total.copy_(before)
                set_random_state(state, self.device)
                raise DisagreementError(reason)

        return compare

    def outcome(self, loss: Tensor, gradients: list[Tensor | None] | None) -> list[Tensor]:
        """Value, gradients, and a copy of the buffers."""
        if gradients is None:
            gradients = [parameter.grad for parameter in self.step.parameters]
        zero = torch.zeros((), device=self.device)
        found = [loss, *(zero if gradient is None else gradient for gradient in gradients)]
        return found + [b.to(torch.float64, copy=True) for b in self.step.buffers]


class DisagreementError(RuntimeError):
    """A replay is off from the step as written."""


def can_replay(device: torch.device) -> bool:
    """Whether steps can be recorded there."""
    return device.type == "cuda"


def recorded(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The kernels that `run` launches, as one launch; they do not run while they are recorded."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph):
        run()
    return graph.replay


def without_replay(pair_name: str, error: Exception) -> None:
    """Say once that steps go on without a recording."""
    warnings.warn(
        f"fit: steps of {pair_name} are captured, but not replayed as one CUDA graph: "
        f"{words(error)} Only the speed differs.",
        CaptureWarning,
        stacklevel=2,
    )


@contextmanager
def _rates_as_tensors(optimizer: torch.optim.Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """While it is recorded, an optimizer reads its rates from tensors and keeps its step on the GPU."""
    kept = [(group["lr"], group["capturable"]) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"], group["capturable"] = rate, True
    try:
        yield
    finally:
        for group, (rate_before, capturable) in zip(optimizer.param_groups, kept, strict=True):
            group["lr"], group["capturable"] = rate_before, capturable


def _can_be_recorded(optimizer: torch.optim.Optimizer) -> bool:
    hooks = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    if not type(optimizer).__module__.startswith("torch.optim.") or any(hooks):
        return False
    return all(
        "capturable" in group and (group["capturable"] or group.get("fused"))
        for group in optimizer.param_groups
    )


def _settings(optimizer: torch.optim.Optimizer) -> Settings:
    """What a recording has baked in: all but rates and parameters."""
    return [
        {name: value for name, value in group.items() if name not in ("params", "lr")}
        for group in optimizer.param_groups
    ]
