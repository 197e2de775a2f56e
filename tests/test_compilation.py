"""What compiled graphs do in a way of their own: matrix products, tanh, biases."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import probgen as pg
from probgen.contexts import fixed_seed
from probgen.inference import compilation
from probgen.inference.capture import Captured
from probgen.inference.compilation import WORTH, _dense, _tanh, has_compiler, has_onednn

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
    """Within float32's rounding of the step as written in float64."""
    torch.manual_seed(1)
    values = {"x": torch.bernoulli(torch.full((64, 200), 0.3))}
    assert 64 * 200 * 150 > WORTH > 64 * 150 * 8
    exact, _ = outcome("float64", False, values)
    found, counted = outcome("float32", True, values)
    assert counted.ours == 5  # twice two layers and their gradients, but for that of the data
    assert counted.others > 0
    for a, b in zip(exact, found, strict=True):
        assert (a - b).norm() < 1e-5 * (1 + a.norm())


def test_the_module_can_be_reloaded() -> None:
    """As notebooks do that watch for changes."""
    again = importlib.reload(compilation)
    if has_onednn():
        assert torch.ops.probgen.product(torch.eye(2), torch.ones(2, 3)).tolist() == [[1, 1, 1]] * 2
    assert again.WORTH == WORTH


def test_tanh() -> None:
    x = torch.cat([torch.linspace(-20, 20, 10_001), torch.tensor([-1e30, 1e30, 0.0])])
    assert (_tanh(x) - torch.tanh(x.double())).abs().max() < 3e-7
    assert _tanh(torch.tensor(torch.nan)).isnan()
    assert _tanh(x.double()) is NotImplemented
