"""What compiled graphs do in a way of their own: matrix products, tanh, biases."""

from __future__ import annotations

import importlib
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import probgen as pg
from probgen.basics.randomness import fixed_seed
from probgen.inference.compute import inductor as compilation
from probgen.inference.compute.capture import Captured, trace
from probgen.inference.compute.inductor import (
    FEWEST_PRODUCTS,
    _dense,
    _tanh,
    compiled,
    has_compiler,
    has_onednn,
)

CPU = torch.device("cpu")
with_products = pytest.mark.skipif(
    not (has_onednn() and has_compiler(CPU)), reason="no oneDNN or compiler"
)


@with_products
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shape", [(128, 784, 500), (1, 3, 2), (33, 65, 17)])
def test_products(shape: tuple[int, int, int], turned: tuple[bool, bool]) -> None:
    n, k, m = shape
    a = torch.randn(k, n).T if turned[0] else torch.randn(n, k)
    b = torch.randn(m, k).T if turned[1] else torch.randn(k, m)
    found = torch.ops.probgen.product(a, b)
    exact = a.double() @ b.double()
    assert found.shape == exact.shape and found.is_contiguous()
    assert (found - exact).abs().max() < 1e-5 * k**0.5
    torch.library.opcheck(torch.ops.probgen.product.default, (a, b))


@with_products
@pytest.mark.parametrize("turned", [False, True])
def test_parts_of_a_matrix(turned: bool) -> None:
    """oneDNN's way for matrices with gaps takes a thousand times as long, so they are copied first."""
    whole = torch.randn(510, 794) if turned else torch.randn(794, 510)
    a, b = torch.randn(128, 784), whole[:500, :784].T if turned else whole[:784, :500]
    assert not (b.is_contiguous() or b.T.is_contiguous())
    dense = _dense(b)
    assert dense.is_contiguous() and torch.equal(dense, b)
    assert _dense(dense) is dense and _dense(dense.T).data_ptr() == dense.data_ptr()
    found = torch.ops.probgen.product(a, b)
    assert (found - a.double() @ b.double()).abs().max() < 3e-4


class Products(TorchDispatchMode):
    """Counts matrix products by the operation that takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.ours, self.others = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ours += func is torch.ops.probgen.product.default
        self.others += func in (torch.ops.aten.mm.default, torch.ops.aten.mm.out)
        return func(*args, **(kwargs or {}))


def outcome(
    precision: str, captured: bool, values: dict[str, Tensor]
) -> tuple[list[Tensor], Products]:
    """Value and gradients of a VAE whose outer products are large and inner ones small."""
    torch.manual_seed(0)
    pair = pg.models.VAE(x=pg.Bernoulli(200), z=pg.Normal(4), hidden=(150,))
    if precision == "float64":
        pair = pair.double()
        values = {name: value.double() for name, value in values.items()}

    def loss(values: Any, masks: Any, further: Any) -> Tensor:
        out: Tensor = -pg.ELBO(analytic_kl=True)(pair, values).mean()
        return out

    step = Captured(pair, loss, gradients=True, capture=captured, precision=precision, owner="test")
    with pytest.MonkeyPatch.context() as patch:
        noise = torch.randn(len(values["x"]), 4, dtype=torch.float64)  # the same in both
        patch.setattr(
            torch.distributions.normal,
            "_standard_normal",
            lambda shape, dtype, device: noise.reshape(shape).to(dtype),
        )
        for _ in range(3):
            with fixed_seed(0, CPU):
                value = step(values, {}, {})
        with Products() as counted:
            value = step(values, {}, {})
    return [value, *(p.grad.clone() for p in pair.parameters() if p.grad is not None)], counted


@with_products
@pytest.mark.slow
@pytest.mark.filterwarnings("error::probgen.CaptureWarning")
def test_a_compiled_step_takes_large_products_by_onednn() -> None:
    """Within float32's rounding of the eager step in float64."""
    torch.manual_seed(1)
    values = {"x": torch.bernoulli(torch.full((64, 200), 0.3))}
    assert 64 * 200 * 150 > FEWEST_PRODUCTS > 64 * 150 * 8
    exact, _ = outcome("float64", False, values)
    found, counted = outcome("float32", True, values)
    assert counted.ours == 5  # twice two layers and their gradients, but for that of the data
    assert counted.others > 0
    for a, b in zip(exact, found, strict=True):
        assert (a - b).norm() < 1e-5 * (1 + a.norm())


# ---------------------------------------------------------------- kept from call to call


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that machine code is made of; here they run as they are, from an empty store."""
    made: list[Any] = []

    def machine_code(graph: Any, inputs: Any) -> Any:
        made.append(graph)
        return graph

    monkeypatch.setattr(compilation, "_machine_code", machine_code)
    monkeypatch.setattr(compilation, "_cache", OrderedDict())
    return made


def traced(function: Any, *inputs: Tensor) -> Any:
    return compiled(trace(inputs, function, CPU, gradients=False), inputs)


@pytest.mark.skipif(not has_compiler(CPU), reason="no compiler")
def test_equal_structures_share_their_machine_code() -> None:
    """Pairs with weights of their own, scored and scored again: not one module more, the same numbers."""
    x = torch.bernoulli(torch.full((3, 7), 0.4))
    settings: Any = {"num_samples": 200, "precision": "float64"}

    def score(seed: int, compile: bool) -> Any:
        torch.manual_seed(seed)
        pair = pg.models.VAE(x=pg.Bernoulli(7), z=pg.Normal(2), hidden=(3,))
        return pg.log_marginal_likelihood(pair, x, compile=compile, **settings).log_prob

    score(0, True)
    before = set(sys.modules)
    for seed in (0, 1):
        assert np.allclose(score(seed, True), score(seed, False), rtol=1e-10)
    assert set(sys.modules) == before


def test_what_a_graph_depends_on_tells_it_from_others(made: list[Any]) -> None:
    """Each of these differs from the first in one thing, and each gives its own number."""
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    cases: list[tuple[Any, list[Tensor], list[float]]] = [
        (lambda a, b: a * b + 2.0, [a, b], [5.0, 10.0]),
        (lambda a, b: a * b + 2.0000001, [a, b], [5.0000001, 10.0000001]),
        (lambda a, b: a + b + 2.0, [a, b], [6.0, 8.0]),
        (lambda a, b: a * b + 2.0, [a.double(), b.double()], [5.0, 10.0]),
        (lambda a, b: a * b + 2.0, [a.repeat(2), b.repeat(2)], [5.0, 10.0, 5.0, 10.0]),
        (lambda a, b: a * b + 2.0, [a[:1].expand(2), b], [5.0, 6.0]),
        (lambda a, b: a * b + 2.0, [a, a], [3.0, 6.0]),  # one memory
        (lambda a, b: a * b + torch.tensor([2.0, 2.0]), [a, b], [5.0, 10.0]),
        (lambda a, b: a * b + torch.tensor([2.0, 3.0]), [a, b], [5.0, 11.0]),
        (lambda a, b: a * b + torch.tensor([2.0, 3.0]).double(), [a, b], [5.0, 11.0]),
    ]
    for _ in range(2):
        for function, inputs, expected in cases:
            assert traced(function, *inputs)(*inputs).tolist() == pytest.approx(expected, abs=1e-6)
    assert len(made) == len(cases)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)  # their number is written into the code
        traced(cases[0][0], a, b)
    finally:
        torch.set_num_threads(threads)
    assert len(made) == len(cases) + 1


def test_tensors_held_elsewhere_are_shared_by_nobody(made: list[Any]) -> None:
    """Equal today and changed tomorrow, in place: each step sees its own."""
    x, first, second = torch.ones(2), torch.tensor([2.0, 3.0]), torch.tensor([2.0, 3.0])

    def step_with(held: Tensor) -> Any:
        return lambda x: x * held + held.sum()

    runs = [traced(step_with(held), x) for held in (first, second)]
    assert len(made) == 1
    second.mul_(10)
    assert [run(x).tolist() for run in runs] == [[7.0, 8.0], [70.0, 80.0]]


def test_machine_code_is_kept_up_to_a_number(
    made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least recently used goes first."""
    monkeypatch.setattr(compilation, "CACHE_SIZE", 2)
    sizes = [1, 2, 1, 3, 1, 2, 3]  # 2 goes for 3, 3 for 2, 1 for 3
    for size in sizes:
        traced(lambda x: 2 * x, torch.ones(size))
    assert [len(graph(torch.ones(size))) for graph, size in zip(made, [1, 2, 3, 2, 3], strict=True)]
    assert len(compilation._cache) == 2


def test_one_graph_from_several_threads(made: list[Any]) -> None:
    x = torch.ones(5)
    graphs = [trace([x], lambda x: x + 1, CPU, gradients=False) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda graph: compiled(graph, [x]), graphs))
    assert len(made) == 1 and all(run(x).tolist() == [2.0] * 5 for run in runs)


def test_the_module_can_be_reloaded() -> None:
    """As notebooks do that watch for changes."""
    again = importlib.reload(compilation)
    if has_onednn():
        assert torch.ops.probgen.product(torch.eye(2), torch.ones(2, 3)).tolist() == [[1, 1, 1]] * 2
    assert again.FEWEST_PRODUCTS == FEWEST_PRODUCTS


def test_tanh() -> None:
    x = torch.cat([torch.linspace(-20, 20, 10_001), torch.tensor([-1e30, 1e30, 0.0])])
    assert (_tanh(x) - torch.tanh(x.double())).abs().max() < 3e-7
    assert _tanh(torch.tensor(torch.nan)).isnan()
    assert _tanh(x.double()) is NotImplemented
