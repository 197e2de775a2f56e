"""Steps recorded once and replayed: what a CUDA graph does, played on the CPU by a tape of operations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR, StepLR
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import probgen as pg
from probgen.inference.compute import capture
from probgen.inference.compute import cuda_graphs as replay
from probgen.inference.compute.capture import CaptureWarning
from probgen.inference.training import epochs as loop
from tests.fitting import QUICK, structured, vae, weights
from tests.inference.compute.test_capture import noisy
from tests.pairs import CASES

pytestmark = pytest.mark.filterwarnings("error::probgen.CaptureWarning")
SETTINGS: Any = {"batch_size": 8, "learning_rate": 1e-2, "num_epochs": 25, "compile": True}


class Tape(TorchDispatchMode):
    """Operations on fixed memory. As a CUDA graph it changes nothing while it records, and replays
    the same operations on the same tensors, whatever Python would do by then."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        self.made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor) and id(tensor) not in self.made | self.before.keys():
                self.before[id(tensor)] = (tensor, tensor.detach().clone())
        out = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, out))
        self.made |= {id(t) for t in tree_leaves(out) if isinstance(t, Tensor)} - self.before.keys()
        return out

    def replay(self) -> None:
        for func, args, kwargs, out in self.operations:
            in_place = any(r.alias_info and r.alias_info.is_write for r in func._schema.returns)
            in_place |= not func._schema.returns
            if in_place or not any(r.alias_info for r in func._schema.returns):  # no view
                again = func(*args, **kwargs)
                for mine, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(mine, Tensor) and mine is not new:
                        mine.copy_(new)


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """The path for GPUs on the CPU; the recordings that were made."""
    made: list[Tape] = []

    def recorded(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
        tape, state = Tape(), torch.get_rng_state()
        try:
            with torch.no_grad(), tape:
                run()
        finally:
            for tensor, value in tape.before.values():
                tensor.detach().copy_(value)
            torch.set_rng_state(state)
        made.append(tape)
        return torch.no_grad()(tape.replay)

    monkeypatch.setattr(capture, "has_compiler", lambda device: False)
    monkeypatch.setattr(loop, "runs_ahead", lambda device: True)
    monkeypatch.setattr(loop, "can_replay", lambda device: True)
    monkeypatch.setattr(replay, "recorded", recorded)
    return made


def both(
    build: Callable[[], Any], data: Any, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> tuple[Any, Any]:
    """Fits with and without replays: the same curves and weights, but for rates rounded to float32."""
    settings = {**SETTINGS, **QUICK, "precision": "float64", **settings}
    replayed, plain = build(), build()
    state = torch.get_rng_state()
    one = pg.fit(replayed, data, **settings)
    assert torch.equal(torch.get_rng_state(), state)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "can_replay", lambda device: False)
        other = pg.fit(plain, data, **settings)
    assert one.elbo == pytest.approx(other.elbo, rel=1e-7)
    assert one.validation_elbo == pytest.approx(other.validation_elbo, rel=1e-7)
    for name, tensor in replayed.state_dict().items():
        assert torch.allclose(
            tensor.double(), plain.state_dict()[name].double(), rtol=1e-6, atol=1e-7
        )
    return one, other


class Momentum(OneCycleLR):
    """A schedule that moves Adam's betas too, which a recording has baked in."""

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer, max_lr=0.02, total_steps=30)


OPTIMIZERS: dict[str, Any] = {
    "default": {},
    "schedule": {"scheduler": partial(StepLR, step_size=3, gamma=0.7)},
    "AdamW": {"optimizer": partial(torch.optim.AdamW, lr=1e-2, fused=True, weight_decay=0.1)},
    "steps by itself": {"optimizer": partial(torch.optim.SGD, lr=1e-2, momentum=0.9)},
    "plain Adam steps by itself": {"optimizer": torch.optim.Adam},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("build", [vae, noisy])
def test_replayed_steps_are_the_steps(
    name: str, build: Any, tapes: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ragged last batch, warm-up, redrawn data, buffers, validation; a learning rate that moves."""
    data = pg.Dataset({"x": 0.1 + 0.8 * structured(43)}).binarized("dynamic")
    both(build, data, monkeypatch, objective=pg.ELBO(2, warmup_epochs=4),
         validation=structured(10), **OPTIMIZERS[name])  # fmt: skip
    assert len(tapes) == 1
    whole = any("_fused_adam" in str(func) for func, *_ in tapes[0].operations)
    assert whole is ("by itself" not in name)


@pytest.mark.parametrize("name", ["M2", "mixture", "hierarchical", "binary latents"])
def test_every_kind_of_pair(name: str, tapes: list[Tape], monkeypatch: pytest.MonkeyPatch) -> None:
    """Enumeration, partly known labels, several latents, score-function terms."""
    case = CASES[name]
    data = pg.Dataset(case.data(40))
    if case.label:
        data = pg.Dataset(data.values, observed={case.label: torch.arange(40) % 2 == 0})

    def build() -> Any:
        torch.manual_seed(1)
        return case.build()

    both(build, data, monkeypatch, num_epochs=3)
    assert len(tapes) == 1


def test_what_is_baked_in_is_recorded_anew(
    tapes: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    both(vae, structured(43), monkeypatch, scheduler=Momentum, num_epochs=6)
    assert len(tapes) == 6


def test_a_replay_that_is_off_is_found(tapes: list[Tape], monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is taken back and done as captured; the fit ends with the same weights."""
    faithful = replay.recorded

    def off(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
        again = faithful(run, device)
        tape = tapes[-1]
        _, args, _, _ = next(op for op in tape.operations if "_fused_adam" in str(op[0]))
        gradient = args[1][0]

        def replay_and_spoil() -> None:
            again()
            gradient.mul_(1.5)

        return replay_and_spoil

    monkeypatch.setattr(replay, "recorded", off)
    with pytest.warns(
        CaptureWarning, match="not replayed as one CUDA graph: .*a gradient or a buffer is off"
    ):
        both(noisy, structured(43), monkeypatch, num_epochs=4)
    assert len(tapes) == 1


def test_what_cannot_be_recorded_is_said(
    monkeypatch: pytest.MonkeyPatch, tapes: list[Tape]
) -> None:
    def refuses(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
        raise TypeError("lr must be a float")

    monkeypatch.setattr(replay, "recorded", refuses)
    with pytest.warns(
        CaptureWarning, match="not replayed as one CUDA graph: TypeError: lr must be"
    ):
        both(vae, structured(43), monkeypatch)
    assert not tapes


class EverySecond(torch.optim.Adam):
    """What Python decides in a step is not to be recorded."""

    calls = 0

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        return super().step(closure) if self.calls % 2 else None


def with_hook(parameters: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(parameters, lr=1e-2, fused=True)

    def slower(optimizer: Any, args: Any, kwargs: Any) -> None:
        optimizer.param_groups[0]["lr"] *= 0.9

    optimizer.register_step_pre_hook(slower)
    return optimizer


@pytest.mark.parametrize("optimizer", [partial(EverySecond, lr=1e-2, fused=True), with_hook])
def test_optimizers_with_python_in_their_steps_step_by_themselves(
    optimizer: Any, tapes: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    both(vae, structured(43), monkeypatch, optimizer=optimizer)
    assert not any("_fused_adam" in str(func) for func, *_ in tapes[0].operations)


def test_checked_again_and_again(tapes: list[Tape], monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that changes later is found when the recording is held against the step again."""

    class Drifts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.factor = torch.nn.Linear(6, 4), 1.0

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.linear(x)
            return self.factor * out

    network = Drifts()

    class Changes(StepLR):
        def step(self, epoch: Any = None) -> None:
            network.factor = 1.0 if self.last_epoch < 10 else 3.0
            super().step()

    pair = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,), encoder=network)
    with pytest.warns(CaptureWarning, match="on the same noise"):
        pg.fit(pair, structured(80), scheduler=partial(Changes, step_size=100),
               **{**SETTINGS, **QUICK, "num_epochs": 40})  # fmt: skip
    assert tapes


def test_a_broken_epoch_is_repeated_with_a_look(tapes: list[Tape]) -> None:
    pair = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,))
    x = structured(80)
    with pytest.raises(FloatingPointError, match=r"epoch \d+"):
        pg.fit(
            pair,
            x,
            optimizer=partial(torch.optim.Adam, lr=1e30, fused=True),
            **{**SETTINGS, **QUICK},
        )
    assert weights(pair).isfinite().all() and tapes


def test_a_replayed_run_goes_on(tapes: list[Tape], tmp_path: Path) -> None:
    whole, first, second = noisy(), noisy(), noisy()
    settings: Any = {**SETTINGS, **QUICK, "precision": "float64"}
    pg.fit(whole, structured(43), **settings)
    pg.fit(first, structured(43), run_dir=tmp_path, **{**settings, "num_epochs": 11})
    pg.fit(second, structured(43), run_dir=tmp_path, resume=True, **settings)
    assert torch.allclose(weights(second), weights(whole), rtol=1e-5, atol=1e-7)
    assert len(tapes) == 3


@pytest.mark.gpu
@pytest.mark.parametrize("build", [vae, noisy])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_cuda_graphs(name: str, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on a GPU, recorded by CUDA."""
    both(build, structured(43), monkeypatch, device="cuda", objective=pg.ELBO(2, warmup_epochs=4),
         validation=structured(10), **OPTIMIZERS[name])  # fmt: skip


@pytest.mark.gpu
def test_a_fit_on_a_gpu_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.device] = []
    kept = replay.recorded

    def recorded(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
        made.append(device)
        return kept(run, device)

    monkeypatch.setattr(replay, "recorded", recorded)
    pg.fit(vae(), structured(80), **{**SETTINGS, **QUICK, "device": "cuda", "num_epochs": 3})
    assert len(made) == 1
