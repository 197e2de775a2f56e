"""Machine code of a captured graph: inductor, with ways of our own for what it leaves slow on a CPU.

What inductor switches in the process is put back: the limit of recursion, the environment, the start
method of multiprocessing, and the thread of a progress bar that is not shown. What stays are modules
that were imported, and with setuptools its folder of further modules at the end of `sys.path`, where it
looks for them later.
"""

from __future__ import annotations

import multiprocessing
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from probgen.contexts import quiet_pyro, same_environment

WORTH = 500_000
"""Multiplications from which on oneDNN is faster than the default library, whose calls cost less."""


def compiled(graph: Any, inputs: Sequence[Tensor]) -> Callable[..., Any]:
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
