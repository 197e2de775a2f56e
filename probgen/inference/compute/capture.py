"""A step of any pair as one graph of tensor operations, so that Pyro's handlers run only once.

A graph is valid for one shape of batch. Whatever changes between steps must be an input tensor: a
Python number becomes a constant of the graph. Therefore each graph is compared with the eager step,
which runs without a graph, on the same noise, at its first uses and regularly later. If they disagree,
the eager step is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from probgen.basics.randomness import fixed_seed, random_state, set_random_state
from probgen.basics.settings import capturing, quiet_pyro, same_environment
from probgen.basics.user_warnings import warn
from probgen.inference.compute.comparison import TOLERANCE, difference
from probgen.inference.compute.inductor import compiled, has_compiler

Tensors = Mapping[str, Tensor]
Function = Callable[[Tensors, Tensors, Tensors], Tensor | tuple[Tensor, Tensors]]
"""What one step computes from values and masks by variable name, and from further tensors.

It returns a tensor, or a tensor and metrics: scalars by name, which have no gradients.
"""

CHECKS = 2
"""Number of batches on which a new graph is compared with the eager step."""

MOST_GRAPHS = 8
"""Largest number of graphs, one per shape of batch; a stream of batches may have any number."""


class CaptureWarning(UserWarning):
    """A step runs eagerly, without a captured graph, which changes only the speed; the message says why.

    Example:
        Stop the program if a step cannot be captured, here because it reads a tensor as a number:

        >>> import torch, warnings, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
        >>> def scaled(pair, data, **further):
        ...     return pg.ELBO()(pair, data, **further) * data["x"].std().item()
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", pg.CaptureWarning)
        ...     try:
        ...         pg.fit(ppca, torch.randn(20, 3), objective=scaled, num_epochs=1, compile=True,
        ...                device="cpu", progress=False)
        ...     except pg.CaptureWarning as warning:
        ...         print(str(warning).split(": ")[1])
        PPCA runs eagerly, without a captured graph
    """


def check_compile(compile: bool | str, owner: str) -> None:
    """Check the argument `compile` of a public function.

    Raises:
        ValueError: neither a bool nor `"auto"`.
    """
    if compile != "auto" and not isinstance(compile, bool):
        raise ValueError(f'{owner}: compile must be True, False or "auto", got {compile!r}.')


class Captured:
    """A function of batches that is captured as graphs, with gradients of parameters if requested.

    Attributes:
        metrics: the metrics of the last call.

    Args:
        pair: the module whose parameters and buffers the function depends on, with a `name`.
        function: what a step computes; it must be a scalar if gradients are requested.
        gradients: whether to leave the gradient of each parameter in `.grad`.
        capture: whether to make graphs; if false, every call runs the function eagerly.
        precision: `"float32"`, `"float64"` or `"bf16"`; it sets the tolerance of the comparison.
        owner: the function that messages name.
        parameters: those whose gradients are computed, by default all that require one. The others
            are constants in the step, and their `.grad` does not change.
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
        """Return the function's value, and leave the gradients in the parameters."""
        parts = (values, masks, further)
        if not self.capture:
            return self.run_eagerly(*parts)
        key = self._key(parts)
        graph = self._graphs.get(key)
        if graph is None and len(self._graphs) == MOST_GRAPHS:
            return self.run_eagerly(*parts)
        if graph is None:
            try:
                graph = self._graphs[key] = self._make(parts)
            except Exception as error:  # a tracer or compiler may raise any exception
                return self._give_up(first_line(error), parts)
        if graph.checks:
            reason = self._disagreement(graph, parts)
            if reason:
                return self._give_up(reason, parts)
            graph.checks -= 1
        return self._run(graph, parts)

    def has_checked_graph(self, values: Tensors, masks: Tensors, further: Tensors) -> bool:
        """Whether a graph for a batch of this shape has passed its checks."""
        graph = self._graphs.get(self._key((values, masks, further)))
        return graph is not None and not graph.checks

    def run(self, values: Tensors, masks: Tensors, further: Tensors) -> Tensor:
        """Run the existing graph for a batch of this shape, without a check."""
        parts = (values, masks, further)
        return self._run(self._graphs[self._key(parts)], parts)

    def check_again(self) -> None:
        """Compare every graph with the eager step at its next use."""
        for graph in self._graphs.values():
            graph.checks = max(graph.checks, 1)

    def run_eagerly(self, values: Tensors, masks: Tensors, further: Tensors) -> Tensor:
        """Do the same without a graph."""
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
        """Treat the other parameters as constants, so that no gradients are computed for them."""
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
        # The gradients of the previous step are still alive here, so the new ones get other memory,
        # and the two blocks alternate. Nothing is returned to the system and allocated again.
        value, *rest = graph.run(*self._inputs(parts))
        self.metrics = dict(zip(graph.metrics, rest, strict=False))
        for parameter, gradient in zip(graph.reached, rest[len(graph.metrics) :], strict=True):
            parameter.grad = gradient
        return value

    def _give_up(self, reason: str, parts: Sequence[Tensors]) -> Tensor:
        self.capture = False
        self._graphs.clear()
        warn(
            f"{self.owner}: {self.pair.name} runs eagerly, without a captured graph: {reason} "
            "Only the speed differs; use compile=False to avoid this warning.",
            CaptureWarning,
        )
        return self.run_eagerly(*parts)

    def _inputs(self, parts: Sequence[Tensors]) -> list[Tensor]:
        tensors = [p.data for _, p in (*self._own, *self._others)]
        tensors += self.buffers
        return [*tensors, *(t.contiguous() for part in parts for t in part.values())]

    def _make(self, parts: Sequence[Tensors]) -> _Graph:
        step = _Step(self.pair, self.function)
        names = [f"pair.{name}" for name, _ in self._own]
        constants = [f"pair.{name}" for name, _ in (*self._others, *self.pair.named_buffers())]
        reached: list[nn.Parameter] = []
        metric_names: list[str] = []

        def flat(*tensors: Tensor) -> list[Tensor]:
            inputs = iter(tensors)
            weights = [next(inputs).detach().requires_grad_(self.gradients) for _ in names]
            state = dict(zip(names, weights, strict=True))
            state |= {name: next(inputs) for name in constants}
            batch = tuple({name: next(inputs) for name in part} for part in parts)
            value, metrics = _with_metrics(torch.func.functional_call(step, state, batch))
            metric_names[:] = metrics
            detached = [metric.detach() for metric in metrics.values()]
            if not self.gradients:
                return [value, *detached]
            grads = torch.autograd.grad(value, weights, allow_unused=True)
            reached[:] = [p for p, g in zip(self.parameters, grads, strict=True) if g is not None]
            return [value.detach(), *detached, *(g.contiguous() for g in grads if g is not None)]

        inputs = self._inputs(parts)
        device = inputs[0].device if inputs else torch.device("cpu")
        graph = trace([t.clone() for t in inputs], flat, device, self.gradients)
        run = compiled(graph, inputs) if has_compiler(device) else graph
        return _Graph(run, list(reached), list(metric_names))

    def _disagreement(self, graph: _Graph, parts: Sequence[Tensors]) -> str:
        """How graph and function differ on the same noise, in words; empty if they agree."""
        device = next(t for part in parts for t in part.values()).device
        noise, buffers = random_state(device), [b.clone() for b in self.buffers]
        metrics: list[Tensors] = []

        def outcome(run: Callable[[], Tensor]) -> list[Tensor]:
            set_random_state(noise, device)
            for buffer, value in zip(self.buffers, buffers, strict=True):
                buffer.copy_(value)
            results = [run(), *(p.grad for p in self.parameters if self.gradients)]
            metrics.append(self.metrics)
            results += [b.to(torch.float64, copy=True) for b in self.buffers]
            zero = torch.zeros((), device=device)
            return [zero if t is None else t.detach() for t in results]

        with torch.enable_grad() if self.gradients else torch.no_grad():
            eager = outcome(lambda: self.run_eagerly(*parts))
            for parameter in self.parameters:
                parameter.grad = None
            try:
                captured = outcome(lambda: self._run(graph, parts))
            except Exception as error:  # the compiled graph cannot run
                set_random_state(noise, device)
                return first_line(error)
        set_random_state(noise, device)
        for buffer, value in zip(self.buffers, buffers, strict=True):
            buffer.copy_(value)
        if self.gradients and not bool(eager[0].isfinite()):
            return ""  # nothing to compare; the caller reads the loss and reports it
        for name, metric in metrics[0].items():
            reason = difference([metric], [metrics[1][name]], self.tolerance)
            if reason:
                return reason.replace("the value", f"the metric {name}", 1)
        return difference(eager, captured, self.tolerance)


class _Graph:
    """A captured graph, the parameters and metrics that it has results for, and the checks left."""

    def __init__(
        self, run: Callable[..., Any], reached: list[nn.Parameter], metrics: list[str]
    ) -> None:
        self.run, self.reached, self.metrics, self.checks = run, reached, metrics, CHECKS


def _with_metrics(result: Tensor | tuple[Tensor, Tensors]) -> tuple[Tensor, Tensors]:
    return result if isinstance(result, tuple) else (result, {})


class _Step(nn.Module):
    """A module with the pair as a part, so that a call can replace the pair's tensors."""

    def __init__(self, pair: Any, function: Function) -> None:
        super().__init__()
        self.pair, self.function = pair, function
        self.training = pair.training

    def forward(self, *parts: Tensors) -> Tensor | tuple[Tensor, Tensors]:
        return self.function(*parts)


def trace(
    inputs: Sequence[Tensor], function: Callable[..., Any], device: torch.device, gradients: bool
) -> Any:
    """Record the operations of a function of tensors; the random states do not change."""
    from torch.fx.experimental.proxy_tensor import make_fx

    with ExitStack() as stack:
        stack.enter_context(fixed_seed(0, device))
        stack.enter_context(quiet_pyro())
        stack.enter_context(capturing())
        stack.enter_context(same_environment())
        stack.enter_context(torch.enable_grad() if gradients else torch.no_grad())
        return make_fx(function)(*inputs)


def first_line(error: Exception) -> str:
    """The type of an exception and the first line of its message."""
    text = str(error).strip().split("\n")[0][:200]
    return f"{type(error).__name__}: {text.rstrip('.')}."
