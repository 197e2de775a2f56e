"""Machine code of a captured graph: by inductor, with faster replacements for some CPU operations.

Weights are inputs of a graph, so the same machine code serves every pair of the same structure with
batches of the same shape. The code is cached under everything that it depends on; the least recently
used entry is dropped first.

Inductor changes settings of the process, which are restored: the recursion limit, the environment, the
start method of multiprocessing, and the monitor thread of tqdm. The modules that it imports stay loaded,
and setuptools leaves the folder of its own modules at the end of `sys.path`, where it needs it later.
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

CACHE_SIZE = 32
"""Number of graphs whose machine code is cached in a process."""

FEWEST_PRODUCTS = 500_000
"""Multiplications from which on oneDNN is faster than the default library, whose calls cost less."""


_cache: OrderedDict[Hashable, Callable[..., Any]] = OrderedDict()


def compiled(graph: Any, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """The machine code of a graph, compiled now or taken from the cache.

    Args:
        graph: as `make_fx` traces it; it is changed.
        inputs: its inputs, or tensors of the same shapes, strides and types.
    """
    with LOCK:  # inductor does not support several threads
        outer = _outer_tensors_to_inputs(graph)
        all_inputs = [*inputs, *outer]
        key = _key(graph, all_inputs)
        run = None if key is None else _cache.get(key)
        if run is None:
            run = _machine_code(graph, all_inputs)
        if key is not None:
            _cache[key] = run
            _cache.move_to_end(key)
            if len(_cache) > CACHE_SIZE:
                _cache.popitem(last=False)
    if not outer:
        return run
    return lambda *tensors: run(*tensors, *outer)


def _outer_tensors_to_inputs(graph: Any) -> list[Tensor]:
    """Turn tensors that a step takes from outside into inputs of its graph, because they may change.

    A number written in the step (`torch.tensor(0.5)`) stays a constant of the graph.
    """
    outer: dict[str, Tensor] = {}
    nodes = graph.graph
    last = [node for node in nodes.nodes if node.op == "placeholder"][-1:]
    for node in list(nodes.nodes):
        if node.op != "get_attr" or _is_literal(node):
            continue
        tensor = operator.attrgetter(node.target)(graph)
        if isinstance(tensor, Tensor) and last:
            with nodes.inserting_after(last[-1]):
                last.append(nodes.placeholder(f"held_{len(outer)}"))
            last[-1].meta = node.meta
            node.replace_all_uses_with(last[-1])
            nodes.erase_node(node)
            outer[last[-1].name] = tensor
    if outer:
        graph.recompile()
    return list(outer.values())


def _is_literal(node: Any) -> bool:
    """Whether a constant comes from a `torch.tensor(...)` within the step."""
    return all(user.target is torch.ops.aten.lift_fresh_copy.default for user in node.users)


def _key(graph: Any, inputs: Sequence[Tensor]) -> Hashable | None:
    """Everything that machine code depends on, compared by value; `None` if it is not known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch itself
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
        tuple(targets),  # the operations themselves, because two may have the same name
        tuple(_kind(tensor) for tensor in inputs),
        tuple(storages.index(storage) for storage in storages),  # which inputs share memory
        torch.get_num_threads(),  # a constant of the code
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        has_onednn(),
        config.get_hash(),
    )


def _kind(tensor: Tensor) -> Hashable:
    return (type(tensor), tensor.dtype, tensor.device, tuple(tensor.shape), tensor.stride())


def _machine_code(graph: Any, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """Compile a graph by inductor; its draws come from PyTorch's generators, as in the eager step."""
    with quiet_pyro(), warnings.catch_warnings(), torch.no_grad(), _restored_process():
        warnings.simplefilter("ignore")  # of torch itself
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx
        from torch._inductor.decomposition import select_decomp_table
        from torch._inductor.lowering import lowerings, make_fallback

        with config.patch(fallback_random=True, compile_threads=1):
            # A decomposed Bernoulli draw would use other noise than PyTorch's own operation. Inductor
            # falls back by itself, but raises an error if the environment variable CI is set.
            bernoulli = torch.ops.aten.bernoulli.default
            if bernoulli not in lowerings:
                make_fallback(bernoulli, warn=False, override_decomp=True)
            table = {op: rule for op, rule in select_decomp_table().items() if op != bernoulli}
            table[torch.ops.aten.tanh.default] = _tanh
            table[torch.ops.aten.addmm.default] = _addmm
            if has_onednn():
                table[torch.ops.aten.mm.default] = _mm
            run: Any = compile_fx(graph, list(inputs), decompositions=table)
    return cast(Callable[..., Any], run)


@contextmanager
def _restored_process() -> Iterator[None]:
    """Restore the settings of the process that inductor changes."""
    bar = vars(torch.hub)["tqdm"]  # avoid its monitor thread, because no bar is shown
    interval = getattr(bar, "monitor_interval", None)
    limit, method = sys.getrecursionlimit(), multiprocessing.get_start_method(allow_none=True)
    if interval is not None:
        bar.monitor_interval = 0
    try:
        with same_environment():
            yield
    finally:
        sys.setrecursionlimit(limit)
        if method is None:  # so that the user can still choose one
            multiprocessing.set_start_method(None, force=True)
        if interval is not None:
            bar.monitor_interval = interval


def _tanh(x: Tensor) -> Tensor:
    """tanh by one exponential: a third of the library's time, absolute error at most 2e-7."""
    if x.dtype == torch.float64:
        return NotImplemented
    return (1 - 2 / (1 + (2 * x.float()).exp())).to(x.dtype)


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: complex = 1, alpha: complex = 1) -> Tensor:
    """Add the bias separately, so that it is fused with the elementwise operation that follows."""
    if beta != 1 or alpha != 1 or a.dtype == torch.bfloat16:
        return NotImplemented
    return a @ b + bias


def has_onednn() -> bool:
    """Whether oneDNN is available and has kernels for this processor."""
    return torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")


def has_compiler(device: torch.device) -> bool:
    """Whether inductor can compile: a CPU needs g++ or clang++; on a GPU it uses Triton."""
    if device.type == "cpu":
        return any(shutil.which(name) for name in ("g++", "clang++"))
    return device.type == "cuda"


def _mm(a: Tensor, b: Tensor) -> Tensor:
    """Multiply by oneDNN: half the time of torch's default on processors that are not Intel's."""
    small = a.shape[0] * a.shape[1] * b.shape[1] < FEWEST_PRODUCTS
    if small or a.device.type != "cpu" or a.dtype != torch.float32:
        return NotImplemented
    # oneDNN needs the first matrix in row order; this copy is fused with the operation before.
    product: Tensor = torch.ops.probgen.product(a.contiguous(), _dense(b))
    return product


def _dense(b: Tensor) -> Tensor:
    """A matrix in row or column order; for parts of larger matrices oneDNN uses slow code."""
    return b if b.is_contiguous() or b.t().is_contiguous() else b.contiguous()


def _product(a: Tensor, b: Tensor) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise.default(a, _dense(b).t(), None, "none", [], "")
    return out


def _like_product(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


def _library() -> torch.library.Library:
    """The custom operation `product`, because inductor would copy transposed matrices for oneDNN."""
    library = torch.library.Library("probgen", "DEF")
    library.define("product(Tensor a, Tensor b) -> Tensor")
    library.impl("product", _product, "CPU")
    library.impl("product", _like_product, "Meta")
    return library


# Only one library per process, even if a notebook reloads this file.
_LIBRARY = globals().get("_LIBRARY") or _library()
