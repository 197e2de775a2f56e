"""Captured steps: the same numbers as eager steps, and what happens if a step cannot be captured."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from torch import Tensor

import probgen as pg
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import quiet_pyro
from probgen.inference.compute import capture
from probgen.inference.compute.capture import Captured, CaptureWarning
from probgen.inference.scoring import importance
from probgen.inference.training import fit as svi
from tests.fitting import QUICK, structured, vae, weights
from tests.pairs import CASES, HandM2, binary, labels

SETTINGS: Any = {"batch_size": 8, "learning_rate": 1e-2, **QUICK}
CPU = torch.device("cpu")
pytestmark = [
    pytest.mark.filterwarnings("error::probgen.CaptureWarning"),
    pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning"),
]


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs run operation by operation, as on a machine without a compiler."""
    monkeypatch.setattr(capture, "has_compiler", lambda device: False)


def step_of(pair: Any, objective: Any, captured: bool, gradients: bool = True) -> Captured:
    def loss(values: Any, masks: Any, further: Any) -> Tensor:
        out: Tensor = -objective(pair, values, observed=masks, **further).mean()
        return out

    return Captured(pair, loss, gradients=gradients, capture=captured, precision="float64",
                    owner="test")  # fmt: skip


def outcome(step: Captured, *parts: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor | None]]:
    """Value and gradients at a fixed noise."""
    with quiet_pyro(), fixed_seed(3, CPU):
        value = step(*parts)
    return value, [None if p.grad is None else p.grad.clone() for p in step.parameters]


def compare(pair: Any, objective: Any, batches: list[tuple[Any, Any, Any]]) -> Captured:
    """Compare a captured step with an eager one, batch by batch."""
    written, captured = (step_of(pair, objective, on) for on in (False, True))
    for parts in batches:
        value, gradients = outcome(written, *parts)
        found, theirs = outcome(captured, *parts)
        assert captured.capture and torch.allclose(value, found, rtol=1e-9)
        for a, b in zip(gradients, theirs, strict=True):
            assert (a is None) == (b is None)
            assert a is None or b is None or torch.allclose(a, b, rtol=1e-7, atol=1e-10)
    return captured


def doubled(data: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: v.double() if v.is_floating_point() else v for n, v in data.items()}


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    "objective",
    [pytest.param(pg.ELBO(), marks=pytest.mark.long), pg.ELBO(3), pg.ELBO(analytic_kl=True)],
)
@pytest.mark.parametrize("name", CASES)
def test_every_pair_is_captured(name: str, objective: Any) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    pair = case.build().double()
    if pair.objective == "reconstruction":  # a point mass has no bound
        objective = pg.Reconstruction()
    batches: list[Any] = [(doubled(case.data(n)), {}, {}) for n in (5, 5, 5, 3)]
    if case.label:
        batches += [
            (v, {case.label: torch.arange(len(v["x"])) % 2 == 0}, {}) for v, _, _ in batches[:3]
        ]
        batches += [({"x": v["x"]}, {}, {}) for v, _, _ in batches[:2] if "y" in pair.summed_names]
    step = compare(pair, objective, batches)
    shapes = {(len(v["x"]), len(v), len(masks)) for v, masks, _ in batches}
    assert len(step._graphs) == len(shapes)  # one a shape and structure, none of them abandoned


@pytest.mark.usefixtures("interpreted")
def test_a_stream_of_ever_new_shapes_is_captured_up_to_a_number() -> None:
    pair = vae().double()
    batches: list[Any] = [({"x": binary(n).double()}, {}, {}) for n in range(1, 13)]
    assert len(compare(pair, pg.ELBO(), batches * 2)._graphs) == capture.MOST_GRAPHS


@pytest.mark.usefixtures("interpreted")
def test_the_weight_of_a_warm_up_goes_in() -> None:
    torch.manual_seed(0)
    pair = vae().double()
    x = binary(5).double()
    heavy: list[Any] = [
        ({"x": x}, {}, {"kl_weight": torch.tensor(w).double()}) for w in (0.1, 0.5, 0.9, 0.1)
    ]
    assert len(compare(pair, pg.ELBO(), heavy)._graphs) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.long) for name in ("VAE", "M2")),  # parts of others
        "convolutional M2", "binary latents", "mixture",
    ],
)  # fmt: skip
def test_compiled_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same through inductor: enumeration, masks, convolutions, score-function terms."""
    monkeypatch.setenv("CI", "true")  # where inductor is stricter
    case = CASES[name]
    torch.manual_seed(0)
    pair = case.build().double()
    masks = {case.label: torch.arange(6) % 2 == 0} if case.label else {}
    compare(pair, pg.ELBO(2), [(doubled(case.data(6)), masks, {}) for _ in range(4)])


class Noisy(torch.nn.Module):
    """Dropout and batch normalization: noise and state outside Pyro."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3),
            torch.nn.Linear(8, 4),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def noisy() -> pg.LatentVariableModel:
    torch.manual_seed(3)
    return pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,), encoder=Noisy())


@pytest.mark.parametrize("compiler", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("build", [vae, noisy])
def test_a_captured_fit_is_the_fit(
    build: Callable[[], Any], compiler: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ragged last batch, warm-up, schedule, buffers, validation: same curves and weights."""
    if not compiler:
        monkeypatch.setattr(capture, "has_compiler", lambda device: False)
    data = pg.Dataset({"x": 0.1 + 0.8 * structured(43)}).binarized("dynamic")
    settings: Any = {
        **SETTINGS, "num_epochs": 25, "objective": pg.ELBO(2, warmup_epochs=4), "precision": "float64",
        "scheduler": partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.7),
        "validation": structured(10),
    }  # fmt: skip
    a, b = build(), build()
    state = torch.get_rng_state()
    one = pg.fit(a, data, compile=False, **settings)
    other = pg.fit(b, data, compile=True, **settings)
    assert torch.equal(torch.get_rng_state(), state)
    assert one.elbo == pytest.approx(other.elbo, rel=1e-9)
    assert one.validation_elbo == pytest.approx(other.validation_elbo, rel=1e-9)
    for name, tensor in a.state_dict().items():
        assert torch.allclose(tensor.double(), b.state_dict()[name].double(), rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures("interpreted")
def test_a_captured_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def run(folder: str | None, epochs: int, compile: Any) -> Tensor:
        where: Any = {} if folder is None else {"run_dir": tmp_path / folder, "resume": True}
        pair = noisy()
        pg.fit(pair, structured(43), num_epochs=epochs, compile=compile, **SETTINGS, **where)
        return weights(pair)

    whole = run(None, 30, True)
    run("a", 11, True)
    assert torch.equal(run("a", 30, "auto"), whole)  # captured, since it was begun so
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["settings"]["captured"] is True and config["settings"]["compile"] == "auto"


def test_which_fits_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svi, "SECONDS_WORTH", 0.012)
    made: list[bool] = []

    class Seen(Captured):
        def __call__(self, *parts: Any) -> Tensor:
            made.append(self.capture)
            return self.run_eagerly(*parts)

    monkeypatch.setattr("probgen.inference.training.players.Captured", Seen)
    for epochs, wanted in ((2, False), (3, True)):
        made.clear()
        pg.fit(vae(), structured(32), num_epochs=epochs, **SETTINGS)
        assert set(made) == {wanted}
    made.clear()
    pg.fit(vae(), [structured(8)] * 4, num_epochs=3, learning_rate=1e-2, **QUICK)
    assert set(made) == {False}  # how many batches a stream has is not known
    with pytest.raises(ValueError, match="compile must be True, False or \"auto\", got 'yes'"):
        pg.fit(vae(), structured(32), num_epochs=1, compile="yes", **SETTINGS)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.build().objective == "elbo"])
def test_scores_are_captured(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    pair, data = case.build(), pg.Dataset(case.data(7))
    if case.label:
        data = pg.Dataset(data.values, observed={case.label: torch.arange(7) % 2 == 0})
    settings: Any = {"num_samples": 90, "precision": "float64"}
    with pytest.MonkeyPatch.context() as patch:
        # Two data a pass, and one at the end.
        patch.setattr(importance, "rows_in_a_pass", lambda *_: 200)
        a, b = (
            pg.log_marginal_likelihood(pair, data, compile=on, **settings) for on in (False, True)
        )
    assert np.allclose(a.log_prob, b.log_prob, rtol=1e-9)
    assert np.allclose(a.ess, b.ess, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [784, 20])
def test_compiled_scores_of_binary_data(size: int) -> None:
    """Where 16 columns are multiplied up before a logarithm and where not, with huge logits too."""
    torch.manual_seed(0)
    pair = pg.models.VAE(x=pg.Bernoulli(size), z=pg.Normal(2), hidden=(8,))
    with torch.no_grad():
        decoder: Any = pair.p_x.network
        decoder.layers[-1].bias.copy_(torch.linspace(-200, 200, size))
    x = torch.bernoulli(torch.linspace(0, 1, size).expand(6, -1))
    settings: Any = {"num_samples": 500, "precision": "float32"}
    a, b = (pg.log_marginal_likelihood(pair, x, compile=on, **settings) for on in (False, True))
    assert np.allclose(a.log_prob, b.log_prob, rtol=1e-5)
    with pytest.raises(ValueError, match='compile must be True, False or "auto", got 3'):
        pg.log_marginal_likelihood(pair, x, compile=3, **settings)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what cannot be captured


class Drifts:
    """An objective whose weight is a Python number, which a schedule changes."""

    def __init__(self, change: Callable[[int], float]) -> None:
        self.weight, self.change = 1.0, change

    def __call__(self, pair: Any, data: Any, **settings: Any) -> Tensor:
        return self.weight * pg.ELBO()(pair, data, **settings)

    def schedule(self, optimizer: torch.optim.Optimizer) -> Any:
        def rate(epoch: int) -> float:
            self.weight = self.change(epoch)
            return 1.0

        return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("changed", "seen"), [(1, 25), (30, 50)])
def test_a_number_that_changes_is_noticed(changed: int, seen: int) -> None:
    """By the next check, after a hundred steps (25 epochs) or as many more; and then all is right."""
    objective = Drifts(lambda epoch: 1.0 if epoch < changed else 2.0)
    with pytest.warns(CaptureWarning, match=r"fit: VAE runs eagerly.* same noise .* off by") as all:
        curve = pg.fit(
            vae(), structured(32), num_epochs=60, objective=objective, compile=True,
            scheduler=objective.schedule, **SETTINGS
        ).elbo  # fmt: skip
    assert len(all) == 1
    assert (
        curve[seen] < 1.5 * curve[seen - 1]
    )  # from the epoch of the check on it has its new weight


@pytest.mark.usefixtures("interpreted")
def test_a_number_that_changes_in_every_call_is_noticed_at_once() -> None:
    calls: list[int] = []

    def objective(pair: Any, data: Any, **settings: Any) -> Tensor:
        calls.append(1)
        return pg.ELBO()(pair, data, **settings) * (1 + 0.1 * len(calls))

    with pytest.warns(CaptureWarning, match="changing value that is not a tensor"):
        pg.fit(vae(), structured(32), num_epochs=1, objective=objective, compile=True, **SETTINGS)


class Reads(torch.nn.Module):
    """A network that looks at its input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 4) + (x.mean() if x.sum() > 3 else x.sum())


@pytest.mark.usefixtures("interpreted")
def test_a_step_that_reads_tensors_runs_eagerly() -> None:
    def build() -> pg.LatentVariableModel:
        torch.manual_seed(3)
        return pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,), encoder=Reads())

    a, b = build(), build()
    pg.fit(a, structured(32), num_epochs=2, **SETTINGS)
    with pytest.warns(CaptureWarning, match="VAE runs eagerly, without a captured graph") as caught:
        pg.fit(b, structured(32), num_epochs=2, compile=True, **SETTINGS)
    assert len(caught) == 1 and torch.equal(weights(a), weights(b))


def test_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise OSError("the compiler is out to lunch")

    monkeypatch.setattr(capture, "compiled", broken)
    a, b = vae(), vae()
    pg.fit(a, structured(32), num_epochs=1, **SETTINGS)
    with pytest.warns(
        CaptureWarning, match=r"OSError: the compiler is out to lunch\. Only the speed"
    ):
        pg.fit(b, structured(32), num_epochs=1, compile=True, **SETTINGS)
    assert torch.equal(weights(a), weights(b))


@pytest.mark.usefixtures("interpreted")
def test_a_loss_that_breaks_is_explained_as_without_capture() -> None:
    x = structured(32)

    def objective(pair: Any, data: Any, **settings: Any) -> Tensor:
        return pg.ELBO()(pair, data, **settings) / (data["x"][:, 0] + data["x"][:, 3] - 1)

    with pytest.raises(FloatingPointError, match="the loss is not finite in epoch 1, batch 1"):
        pg.fit(vae(), x, num_epochs=2, objective=objective, compile=True, **SETTINGS)


@pytest.mark.slow
def test_nothing_of_the_process_is_changed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch._inductor import config

    def state() -> Any:
        return (
            torch.distributions.Distribution._validate_args, pyro.settings.get("validate_infer"),
            torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
            config.fallback_random, config.compile_threads, torch.get_rng_state().sum().item(),
            warnings.filters[:],
        )  # fmt: skip

    pair, data = HandM2(), {"x": binary(16), "y": labels(16)}
    before = state()
    pg.fit(pair, data, num_epochs=1, compile=True, **SETTINGS)
    assert state() == before


# ---------------------------------------------------------------- bfloat16


def test_matrix_products_in_bfloat16() -> None:
    torch.manual_seed(0)
    x = structured(256)
    results = [
        pg.fit(vae(), x, num_epochs=10, precision=p, batch_size=16, **QUICK)
        for p in ("float32", "bf16-forced")
    ]
    coarse = results[1].pair
    assert {p.dtype for p in coarse.parameters()} == {torch.float32}
    assert results[0].elbo != results[1].elbo
    assert results[0].elbo[-1] == pytest.approx(results[1].elbo[-1], abs=0.05)


def test_log_probabilities_are_never_summed_in_bfloat16() -> None:
    class Coarse(pg.LatentVariableModel):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = torch.nn.Linear(6, 2), torch.nn.Linear(2, 6)

        def model(self, x: Any = None, z: Any = None) -> None:
            with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
                z = pyro.sample(
                    "z", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1), obs=z
                )
                pyro.sample("x", pyro.distributions.Normal(self.outer(z), 1.0).to_event(1), obs=x)

        def guide(self, x: Any = None, z: Any = None) -> None:
            with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
                pyro.sample("z", pyro.distributions.Normal(self.inner(x), 1.0).to_event(1))

    pair = Coarse()
    pg.fit(pair, torch.randn(32, 6), num_epochs=1, **SETTINGS)
    with pytest.raises(ValueError, match=r"log-probability of \w is torch.bfloat16.*out.float\(\)"):
        pg.fit(pair, torch.randn(32, 6), num_epochs=1, precision="bf16-forced", **SETTINGS)
