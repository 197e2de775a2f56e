"""Machine code of a captured graph: inductor, with ways of our own for what it leaves slow on a CPU.

Weights go into a graph as inputs, so that one machine code serves every pair of the same structure and
batches of the same shape. It is kept by all that it depends on, the least recently used left out.

What inductor switches in the process is put back: the limit of recursion, the environment, the start
method of multiprocessing, and the thread of a progress bar that is not shown. What stays are modules
that were imported, and with setuptools its folder of further modules at the end of `sys.path`, where it
looks for them later.
"""

from __future__ import annotations

import multiprocessing
import operator
import platform
import shutil
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from probgen.basics.locking import LOCK
from probgen.basics.settings import quiet_pyro, same_environment

MOST_KEPT = 32
"""Graphs whose machine code is kept in a process, for calls to come."""

WORTH = 500_000
"""Multiplications from which on oneDNN is faster than the default library, whose calls cost less."""


_kept: OrderedDict[Hashable, Callable[..., Any]] = OrderedDict()


def compiled(graph: Any, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """The machine code of a graph, made or kept from an equal one.

    Args:
        graph: as `make_fx` traces it; it is changed.
        inputs: what it will be called with, or tensors of the same shapes, strides and kinds.
    """
    with LOCK:  # inductor is not made for several threads
        held = _held_tensors_to_inputs(graph)
        everything = [*inputs, *held]
        key = _key(graph, everything)
        run = None if key is None else _kept.get(key)
        if run is None:
            run = _machine_code(graph, everything)
        if key is not None:
            _kept[key] = run
            _kept.move_to_end(key)
            if len(_kept) > MOST_KEPT:
                _kept.popitem(last=False)
    if not held:
        return run
    return lambda *given: run(*given, *held)


def _held_tensors_to_inputs(graph: Any) -> list[Tensor]:
    """Tensors that a step holds from elsewhere become further inputs of its graph: they may change.

    What was written as a number (`torch.tensor(0.5)`) is the graph's own and stays in it.
    """
    held: dict[str, Tensor] = {}
    nodes = graph.graph
    last = [node for node in nodes.nodes if node.op == "placeholder"][-1:]
    for node in list(nodes.nodes):
        if node.op != "get_attr" or _is_written(node):
            continue
        tensor = operator.attrgetter(node.target)(graph)
        if isinstance(tensor, Tensor) and last:
            with nodes.inserting_after(last[-1]):
                last.append(nodes.placeholder(f"held_{len(held)}"))
            last[-1].meta = node.meta
            node.replace_all_uses_with(last[-1])
            nodes.erase_node(node)
            held[last[-1].name] = tensor
    if held:
        graph.recompile()
    return list(held.values())


def _is_written(node: Any) -> bool:
    """Whether a constant is but the literal of a `torch.tensor(...)` within the step."""
    return all(user.target is torch.ops.aten.lift_fresh_copy.default for user in node.users)


def _key(graph: Any, inputs: Sequence[Tensor]) -> Hashable | None:
    """All that machine code depends on, compared by value; none where that cannot be told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own parts
        from torch._inductor import config

    targets: list[Any] = []
    for node in graph.graph.nodes:
        target = node.target
        if node.op == "get_attr":
            target = operator.attrgetter(node.target)(graph)
            if not isinstance(target, Tensor) or target.layout != torch.strided:
                return None
            content = target.detach().cpu().contiguous().flatten().view(torch.uint8)
            target = (_kind(target), bytes(content.tolist()))
        targets.append(target)
    storages = [tensor.untyped_storage().data_ptr() for tensor in inputs]
    return (
        graph.code,  # operations, their order, and every number
        tuple(targets),  # the operations themselves: two may have one name
        tuple(_kind(tensor) for tensor in inputs),
        tuple(storages.index(place) for place in storages),  # which ones share memory
        torch.get_num_threads(),  # written into the code
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        has_onednn(),
        config.get_hash(),
    )


def _kind(tensor: Tensor) -> Hashable:
    return (type(tensor), tensor.dtype, tensor.device, tuple(tensor.shape), tensor.stride())


def _machine_code(graph: Any, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """A graph through inductor; draws come from PyTorch's own generators, as without it."""
    with quiet_pyro(), warnings.catch_warnings(), torch.no_grad(), _process_as_before():
        warnings.simplefilter("ignore")  # of torch's own parts
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx
        from torch._inductor.decomposition import select_decomp_table
        from torch._inductor.lowering import lowerings, make_fallback

        with config.patch(fallback_random=True, compile_threads=1):
            # Taken apart, a Bernoulli draw would take other noise than PyTorch's own. Inductor would
            # find this way by itself, but refuses to where the environment says CI.
            bernoulli = torch.ops.aten.bernoulli.default
            if bernoulli not in lowerings:
                make_fallback(bernoulli, warn=False, override_decomp=True)
            parts = {op: how for op, how in select_decomp_table().items() if op != bernoulli}
            parts[torch.ops.aten.tanh.default] = _tanh
            parts[torch.ops.aten.addmm.default] = _addmm
            if has_onednn():
                parts[torch.ops.aten.mm.default] = _mm
            run: Any = compile_fx(graph, list(inputs), decompositions=parts)
    return cast(Callable[..., Any], run)


@contextmanager
def _process_as_before() -> Iterator[None]:
    """Put back what inductor switches in the process."""
    bar = vars(torch.hub)["tqdm"]  # its thread would watch a bar that is not shown
    interval = getattr(bar, "monitor_interval", None)
    limit, method = sys.getrecursionlimit(), multiprocessing.get_start_method(allow_none=True)
    if interval is not None:
        bar.monitor_interval = 0
    try:
        with same_environment():
            yield
    finally:
        sys.setrecursionlimit(limit)
        if method is None:  # a user may still choose one
            multiprocessing.set_start_method(None, force=True)
        if interval is not None:
            bar.monitor_interval = interval


def _tanh(x: Tensor) -> Tensor:
    """tanh by one exponential, a third of the library's time, to 2e-7 of absolute error."""
    if x.dtype == torch.float64:
        return NotImplemented
    return (1 - 2 / (1 + (2 * x.float()).exp())).to(x.dtype)


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: complex = 1, alpha: complex = 1) -> Tensor:
    """The bias joins whatever elementwise operation follows, in place of a pass of its own."""
    if beta != 1 or alpha != 1 or a.dtype == torch.bfloat16:
        return NotImplemented
    return a @ b + bias


def has_onednn() -> bool:
    """Whether oneDNN is there with kernels made for the processor."""
    return torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")


def has_compiler(device: torch.device) -> bool:
    """Whether inductor has what it needs: g++ or clang for a CPU; on a GPU it brings Triton."""
    if device.type == "cpu":
        return any(shutil.which(name) for name in ("g++", "clang++"))
    return device.type == "cuda"


def _mm(a: Tensor, b: Tensor) -> Tensor:
    """By oneDNN, which on processors that are not Intel's takes half the time of torch's default."""
    small = a.shape[0] * a.shape[1] * b.shape[1] < WORTH
    if small or a.device.type != "cpu" or a.dtype != torch.float32:
        return NotImplemented
    # oneDNN wants the first one in rows; turned here, that joins the operation before.
    product: Tensor = torch.ops.probgen.product(a.contiguous(), _dense(b))
    return product


def _dense(b: Tensor) -> Tensor:
    """Rows or columns without gaps; for parts of a larger matrix oneDNN has but a slow reference."""
    return b if b.is_contiguous() or b.t().is_contiguous() else b.contiguous()


def _product(a: Tensor, b: Tensor) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise.default(a, _dense(b).t(), None, "none", [], "")
    return out


def _like_product(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


def _library() -> torch.library.Library:
    """An operation of our own, since inductor would copy transposed matrices for oneDNN."""
    library = torch.library.Library("probgen", "DEF")
    library.define("product(Tensor a, Tensor b) -> Tensor")
    library.impl("product", _product, "CPU")
    library.impl("product", _like_product, "Meta")
    return library


_LIBRARY = globals().get("_LIBRARY") or _library()  # once, also where a notebook reloads the module
