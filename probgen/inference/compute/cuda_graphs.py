"""A whole step on a GPU, recorded once as a CUDA graph and replayed by a single call from Python.

Rows of the batch, loss, gradients and optimizer become one sequence of kernels. Whatever changes between
steps is copied into tensors at fixed addresses: the row indices, the KL weight of a warm-up, and the
learning rates. Noise comes from the GPU's generator, which a replay advances as the eager step would.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from probgen.basics.randomness import random_state, set_random_state
from probgen.basics.user_warnings import warn
from probgen.inference.compute.capture import Captured, CaptureWarning, Tensors, first_line
from probgen.inference.compute.comparison import difference

Settings = list[dict[str, Any]]


class Replay:
    """Recorded steps over data that stay on the GPU.

    The optimizer is part of the recording if it can be: torch's Adam and its variants, fused or
    `capturable`, without hooks. Any other optimizer steps in Python after each replay, because a
    recording does not repeat the Python code of its step.

    Args:
        batch: returns the values and masks of the rows whose indices it is given.
        size: number of rows in every batch.
        step: the captured loss, with a checked graph for batches of this size.
        optimizer: an optimizer that has made at least one step, so that it has a state.
        further: the further inputs of the loss.

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
        """Copy in the inputs of an epoch; return false if a new recording is needed."""
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
            DisagreementError: it disagrees with the eager step; nothing was changed.
        """
        check = self._check_against_eager(rows) if self.unchecked else None
        self.rows.copy_(rows)
        self._replay()
        if check is not None:
            check()
            self.unchecked = False
        if not self.whole:
            self._set_gradients()
            self.optimizer.step()
        self.count += 1

    def pop_averages(self) -> tuple[Tensor, dict[str, Tensor], int]:
        """Average loss and metrics of the steps since the last call, and their number of data."""
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

    def _set_gradients(self) -> None:
        for parameter, gradient in zip(self.step.parameters, self.gradients, strict=True):
            parameter.grad = gradient

    def _check_against_eager(self, rows: Tensor) -> Callable[[], None]:
        """Run the eager step, and return a function that compares the following replay with it."""
        state = random_state(self.device)
        tensors = [*self.step.parameters, *self.step.buffers]
        tensors_before = [tensor.detach().clone() for tensor in tensors]
        optimizer = copy.deepcopy(self.optimizer.state_dict())
        totals = [self.total, *self.metrics.values()]
        totals_before = [total.clone() for total in totals]

        def restore_tensors() -> None:
            with torch.no_grad():
                for tensor, before in zip(tensors, tensors_before, strict=True):
                    tensor.copy_(before)

        values, masks = self.batch(rows)
        eager = self.outcome(self.step.run_eagerly(values, masks, self.further), None)
        restore_tensors()
        set_random_state(state, self.device)

        def compare() -> None:
            replayed = self.outcome(self.loss, self.gradients)
            reason = difference(eager, replayed, self.step.tolerance)
            if reason and bool(eager[0].isfinite()):
                restore_tensors()
                self.optimizer.load_state_dict(optimizer)
                for total, before in zip(totals, totals_before, strict=True):
                    total.copy_(before)
                set_random_state(state, self.device)
                raise DisagreementError(reason)

        return compare

    def outcome(self, loss: Tensor, gradients: list[Tensor | None] | None) -> list[Tensor]:
        """The value, the gradients, and a copy of the buffers."""
        if gradients is None:
            gradients = [parameter.grad for parameter in self.step.parameters]
        zero = torch.zeros((), device=self.device)
        results = [loss, *(zero if gradient is None else gradient for gradient in gradients)]
        return results + [b.to(torch.float64, copy=True) for b in self.step.buffers]


class DisagreementError(RuntimeError):
    """A replay disagrees with the eager step."""


def can_replay(device: torch.device) -> bool:
    """Whether steps can be recorded on this device."""
    return device.type == "cuda"


def recorded(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Record the kernels that `run` launches as one launch; recording does not run them."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph):
        run()
    return graph.replay


def without_replay(pair_name: str, error: Exception) -> None:
    """Warn that the following steps run without a recording."""
    warn(
        f"fit: steps of {pair_name} are captured, but not replayed as one CUDA graph: "
        f"{first_line(error)} Only the speed differs.",
        CaptureWarning,
    )


@contextmanager
def _rates_as_tensors(optimizer: torch.optim.Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """During the recording, keep learning rates and step counts in tensors on the GPU."""
    before = [(group["lr"], group["capturable"]) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"], group["capturable"] = rate, True
    try:
        yield
    finally:
        for group, (rate_before, capturable) in zip(optimizer.param_groups, before, strict=True):
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
    """The settings that a recording cannot change later: all but learning rates and parameters."""
    return [
        {name: value for name, value in group.items() if name not in ("params", "lr")}
        for group in optimizer.param_groups
    ]
