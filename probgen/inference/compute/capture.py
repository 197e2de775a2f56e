"""A step of any pair as one graph of tensor operations: Pyro's handlers run once, when it is made.

A graph is good for one shape of batch. What varies from step to step must be a tensor that goes in: a
Python number would be baked in. So every graph is held against the step as written, on the same
noise, at its first uses and again and again later; where they disagree, the step as written is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from probgen.basics.randomness import fixed_seed, random_state, set_random_state
from probgen.basics.settings import capturing, quiet_pyro, same_environment
from probgen.inference.compute.comparison import TOLERANCE, difference
from probgen.inference.compute.inductor import compiled, has_compiler

Tensors = Mapping[str, Tensor]
Function = Callable[[Tensors, Tensors, Tensors], Tensor | tuple[Tensor, Tensors]]
"""Of values and masks by variable name, and of further tensors: what one step computes.

Either a tensor alone, or a tensor and metrics, scalars by name, which take no part in gradients.
"""

CHECKS = 2
"""Batches on which a new graph is held against the step as written."""

MOST_GRAPHS = 8
"""Shapes and structures that are captured; a stream of batches may have no end of them."""


class CaptureWarning(UserWarning):
    """A step runs as written, without a captured graph, and why."""


def check_compile(compile: bool | str, owner: str) -> None:
    """What users may say of compiling.

    Raises:
        ValueError: neither a bool nor `"auto"`.
    """
    if compile != "auto" and not isinstance(compile, bool):
        raise ValueError(f'{owner}: compile must be True, False or "auto", got {compile!r}.')


class Captured:
    """A function of batches, with gradients of parameters if asked for.

    Attributes:
        metrics: those of the last call.

    Args:
        pair: the module whose parameters and buffers the function depends on, with a `name`.
        function: what a step computes; with gradients a scalar.
        gradients: leave the gradient of each parameter in `.grad`.
        capture: make graphs; otherwise every call runs the function as written.
        precision: `"float32"`, `"float64"` or `"bf16"`, for the tolerance of the comparison.
        owner: the function that messages name.
        parameters: those whose gradients are computed, by default all that require one. The others
            are constants in the step, and their gradients stay as they were.
    """

    def __init__(
        self, pair: Any, function: Function, *, gradients: bool, capture: bool, precision: str,
        owner: str, parameters: Sequence[nn.Parameter] | None = None,
    ) -> None:  # fmt: skip
        self.pair, self.function, self.gradients = pair, function, gradients
        self.capture, self.owner = capture, owner
        self.tolerance = TOLERANCE[precision]
        learnable = [(name, p) for name, p in pair.named_parameters() if p.requires_grad]
        own = {id(p) for _, p in learnable} if parameters is None else {id(p) for p in parameters}
        self._own = [(name, p) for name, p in learnable if id(p) in own]
        self._others = [(name, p) for name, p in learnable if id(p) not in own]
        self.parameters = [p for _, p in self._own]
        self.metrics: dict[str, Tensor] = {}
        self.buffers = list(pair.buffers())
        self._graphs: dict[Any, _Graph] = {}

    def __call__(self, values: Tensors, masks: Tensors, further: Tensors) -> Tensor:
        """The function's value; gradients are left in the parameters."""
        parts = (values, masks, further)
        if not self.capture:
            return self.as_written(*parts)
        key = self._key(parts)
        graph = self._graphs.get(key)
        if graph is None and len(self._graphs) == MOST_GRAPHS:
            return self.as_written(*parts)
        if graph is None:
            try:
                graph = self._graphs[key] = self._make(parts)
            except Exception as error:  # what a tracer or compiler may raise has no end
                return self._give_up(words(error), parts)
        if graph.checks:
            reason = self._disagreement(graph, parts)
            if reason:
                return self._give_up(reason, parts)
            graph.checks -= 1
        return self._run(graph, parts)

    def settled(self, values: Tensors, masks: Tensors, further: Tensors) -> bool:
        """Whether there is a graph for such a batch that has passed its checks."""
        graph = self._graphs.get(self._key((values, masks, further)))
        return graph is not None and not graph.checks

    def run(self, values: Tensors, masks: Tensors, further: Tensors) -> Tensor:
        """The value by a graph that is there, unchecked."""
        parts = (values, masks, further)
        return self._run(self._graphs[self._key(parts)], parts)

    def check_again(self) -> None:
        """Hold every graph against the step as written at its next use."""
        for graph in self._graphs.values():
            graph.checks = max(graph.checks, 1)

    def as_written(self, values: Tensors, masks: Tensors, further: Tensors) -> Tensor:
        """The same without a graph."""
        with self._others_constant():
            value, metrics = _with_metrics(self.function(values, masks, further))
            if self.gradients:
                for parameter in self.parameters:
                    parameter.grad = None
                value.backward()
        self.metrics = {name: metric.detach() for name, metric in metrics.items()}
        return value.detach()

    @contextmanager
    def _others_constant(self) -> Iterator[None]:
        """Without gradients of the other parameters, so that nothing is computed for them."""
        try:
            for _, parameter in self._others:
                parameter.requires_grad_(False)
            yield
        finally:
            for _, parameter in self._others:
                parameter.requires_grad_(True)

    def _key(self, parts: Sequence[Tensors]) -> Any:
        return (
            self.pair.training,
            tuple((name, t.shape, t.dtype) for part in parts for name, t in part.items()),
        )

    def _run(self, graph: _Graph, parts: Sequence[Tensors]) -> Tensor:
        # The gradients of the step before are kept until now: new ones get fresh memory while they
        # live, and theirs the time after, so that nothing goes back to the system and out again.
        value, *rest = graph.run(*self._inputs(parts))
        self.metrics = dict(zip(graph.metrics, rest, strict=False))
        for parameter, gradient in zip(graph.reached, rest[len(graph.metrics) :], strict=True):
            parameter.grad = gradient
        return value

    def _give_up(self, reason: str, parts: Sequence[Tensors]) -> Tensor:
        self.capture = False
        self._graphs.clear()
        warnings.warn(
            f"{self.owner}: {self.pair.name} runs as written, without a captured graph: {reason} "
            "Only the speed differs; compile=False says so beforehand.",
            CaptureWarning,
            stacklevel=2,
        )
        return self.as_written(*parts)

    def _inputs(self, parts: Sequence[Tensors]) -> list[Tensor]:
        tensors = [p.data for _, p in (*self._own, *self._others)]
        tensors += self.buffers
        return [*tensors, *(t.contiguous() for part in parts for t in part.values())]

    def _make(self, parts: Sequence[Tensors]) -> _Graph:
        step = _Step(self.pair, self.function)
        names = [f"pair.{name}" for name, _ in self._own]
        rest = [f"pair.{name}" for name, _ in (*self._others, *self.pair.named_buffers())]
        reached: list[nn.Parameter] = []
        metric_names: list[str] = []

        def flat(*tensors: Tensor) -> list[Tensor]:
            inputs = iter(tensors)
            weights = [next(inputs).detach().requires_grad_(self.gradients) for _ in names]
            state = dict(zip(names, weights, strict=True)) | {name: next(inputs) for name in rest}
            given = tuple({name: next(inputs) for name in part} for part in parts)
            value, metrics = _with_metrics(torch.func.functional_call(step, state, given))
            metric_names[:] = metrics
            detached = [metric.detach() for metric in metrics.values()]
            if not self.gradients:
                return [value, *detached]
            found = torch.autograd.grad(value, weights, allow_unused=True)
            reached[:] = [p for p, g in zip(self.parameters, found, strict=True) if g is not None]
            return [value.detach(), *detached, *(g.contiguous() for g in found if g is not None)]

        inputs = self._inputs(parts)
        device = inputs[0].device if inputs else torch.device("cpu")
        graph = trace([t.clone() for t in inputs], flat, device, self.gradients)
        run = compiled(graph, inputs) if has_compiler(device) else graph
        return _Graph(run, list(reached), list(metric_names))

    def _disagreement(self, graph: _Graph, parts: Sequence[Tensors]) -> str:
        """Nothing, or in words how graph and function differ on the same noise."""
        device = next(t for part in parts for t in part.values()).device
        before, kept = random_state(device), [b.clone() for b in self.buffers]
        metrics: list[Tensors] = []

        def outcome(run: Callable[[], Tensor]) -> list[Tensor]:
            set_random_state(before, device)
            for buffer, value in zip(self.buffers, kept, strict=True):
                buffer.copy_(value)
            found = [run(), *(p.grad for p in self.parameters if self.gradients)]
            metrics.append(self.metrics)
            found += [b.to(torch.float64, copy=True) for b in self.buffers]
            zero = torch.zeros((), device=device)
            return [zero if t is None else t.detach() for t in found]

        with torch.enable_grad() if self.gradients else torch.no_grad():
            written = outcome(lambda: self.as_written(*parts))
            for parameter in self.parameters:
                parameter.grad = None
            try:
                captured = outcome(lambda: self._run(graph, parts))
            except Exception as error:  # a compiled graph that cannot run
                set_random_state(before, device)
                return words(error)
        set_random_state(before, device)
        for buffer, value in zip(self.buffers, kept, strict=True):
            buffer.copy_(value)
        if self.gradients and not bool(written[0].isfinite()):
            return ""  # nothing to compare; whoever reads the loss says why
        for name, metric in metrics[0].items():
            reason = difference([metric], [metrics[1][name]], self.tolerance)
            if reason:
                return reason.replace("the value", f"the metric {name}", 1)
        return difference(written, captured, self.tolerance)


class _Graph:
    """A captured graph, the metrics and gradients that it returns, and the checks that are left."""

    def __init__(
        self, run: Callable[..., Any], reached: list[nn.Parameter], metrics: list[str]
    ) -> None:
        self.run, self.reached, self.metrics, self.checks = run, reached, metrics, CHECKS


def _with_metrics(found: Tensor | tuple[Tensor, Tensors]) -> tuple[Tensor, Tensors]:
    return found if isinstance(found, tuple) else (found, {})


class _Step(nn.Module):
    """Holds the pair so that its tensors can be exchanged for a call."""

    def __init__(self, pair: Any, function: Function) -> None:
        super().__init__()
        self.pair, self.function = pair, function
        self.training = pair.training

    def forward(self, *parts: Tensors) -> Tensor | tuple[Tensor, Tensors]:
        return self.function(*parts)


def trace(
    inputs: Sequence[Tensor], function: Callable[..., Any], device: torch.device, gradients: bool
) -> Any:
    """The operations of a function of tensors, in order; random states are left as they were."""
    from torch.fx.experimental.proxy_tensor import make_fx

    with ExitStack() as stack:
        stack.enter_context(fixed_seed(0, device))
        stack.enter_context(quiet_pyro())
        stack.enter_context(capturing())
        stack.enter_context(same_environment())
        stack.enter_context(torch.enable_grad() if gradients else torch.no_grad())
        return make_fx(function)(*inputs)


def words(error: Exception) -> str:
    """The first line of what went wrong."""
    text = str(error).strip().split("\n")[0][:200]
    return f"{type(error).__name__}: {text.rstrip('.')}."
