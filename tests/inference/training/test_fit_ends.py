"""fit(): how it ends, and what it leaves as it was."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import probgen as pg
from tests.fitting import QUICK, Explodes, bad, structured, vae, weights
from tests.pairs import CASES, HandM2, binary, labels


def test_early_stopping_keeps_the_best_weights() -> None:
    """A learning rate that destroys: the weights kept are those of the best epoch."""
    torch.manual_seed(0)
    pair = vae()
    held = structured(20)
    growing = lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda e: 3.0**e)  # noqa: E731
    result = pg.fit(pair, structured(), num_epochs=200, batch_size=16, validation=held,
                    patience=3, scheduler=growing, **QUICK)  # fmt: skip
    assert result.stopped == "early"
    assert len(result.elbo) == result.best_epoch + 3
    best = max(result.validation_elbo)
    assert result.validation_elbo[result.best_epoch - 1] == best
    again = pg.fit(pair, structured(), num_epochs=1, batch_size=16, validation=held,
                   learning_rate=1e-12, **QUICK)  # fmt: skip
    assert again.validation_elbo[0] == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("validate", [False, True])
def test_interrupt_returns_what_was_learned(validate: bool) -> None:
    calls = 0

    def interrupt(pair: Any, data: Any, **settings: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        return pg.ELBO()(pair, data, **settings)

    pair = vae()
    before = weights(pair)
    held = structured(8) if validate else None
    result = pg.fit(pair, structured(), num_epochs=100, batch_size=16, objective=interrupt,
                    validation=held, **QUICK)  # fmt: skip
    assert result.stopped == "interrupted" and "interrupted" in repr(result)
    assert 1 <= len(result.elbo) < 100
    assert not torch.equal(before, weights(pair)) and weights(pair).isfinite().all()


def test_interrupt_in_the_first_epoch() -> None:
    def interrupt(*_: Any, **__: Any) -> Tensor:
        raise KeyboardInterrupt

    result = pg.fit(vae(), structured(), num_epochs=2, batch_size=16, objective=interrupt, **QUICK)
    assert result.stopped == "interrupted" and result.elbo == []
    assert "before the end of the first epoch" in repr(result)


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (float("inf"), "")])
def test_non_finite_loss_names_site_and_batch(value: float, kind: str) -> None:
    torch.manual_seed(0)
    # Four batches an epoch: the seventh call in training is the third batch of the second epoch.
    pair = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,),
                         decoder=Explodes(value, 7))  # fmt: skip
    with pytest.raises(FloatingPointError) as error:
        pg.fit(pair, structured(), num_epochs=5, batch_size=16, **QUICK)
    text = str(error.value)
    assert "epoch 2, batch 3" in text and "model site x" in text and kind in text
    assert weights(pair).isfinite().all()


def test_exploding_weights_are_named_and_put_back() -> None:
    torch.manual_seed(0)
    pair = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
    with pytest.raises(FloatingPointError, match=r"epoch \d+, batch \d+: (the parameter|.*site)"):
        pg.fit(pair, 100 * torch.randn(64, 3), num_epochs=50, batch_size=16,
               optimizer=partial(torch.optim.SGD, lr=1e6), **QUICK)  # fmt: skip
    assert weights(pair).isfinite().all()


@pytest.mark.gpu
def test_gpu_agrees_with_the_cpu() -> None:
    """The same model learns the same on a GPU, within Monte Carlo error, and stays there."""
    pair = vae()
    result = pg.fit(pair, structured(), num_epochs=80, batch_size=16, learning_rate=1e-2,
                    device="cuda", progress=False)  # fmt: skip
    assert next(pair.parameters()).is_cuda and result.elbo[-1] > -3
    on_gpu = pg.log_marginal_likelihood(pair, structured(), num_samples=500, device="cuda")
    on_cpu = pg.log_marginal_likelihood(pair, structured(), num_samples=500, device="cpu")
    error = np.hypot(on_gpu.monte_carlo_error, on_cpu.monte_carlo_error)
    assert abs(on_gpu.mean - on_cpu.mean) < 5 * error + 1e-4


@pytest.mark.gpu
def test_non_finite_loss_on_a_gpu_is_found_by_repeating_the_epoch() -> None:
    pair = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
    with pytest.raises(FloatingPointError, match=r"epoch \d+, batch \d+"):
        pg.fit(pair, 100 * torch.randn(64, 3), num_epochs=50, batch_size=16, device="cuda",
               optimizer=partial(torch.optim.SGD, lr=1e6), progress=False)  # fmt: skip
    assert weights(pair).isfinite().all()


@pytest.mark.gpu
def test_nothing_waits_for_the_gpu_within_an_epoch() -> None:
    """torch raises where a step would synchronize."""

    def strict(pair: Any, data: Any, **settings: Any) -> Tensor:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return pg.ELBO(num_particles=2)(pair, data, **settings)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    for name in ("VAE", "M2", "mixture", "hierarchical"):
        pair, data = CASES[name].build(), CASES[name].data(20)
        x = {"x": data["x"]}
        pg.fit(pair, x, num_epochs=2, batch_size=8, objective=strict, device="cuda", progress=False)


def test_a_run_is_repeatable_to_the_bit() -> None:
    results = []
    for noise in (1, 2):
        pair = vae()
        torch.manual_seed(noise)
        result = pg.fit(pair, structured(), num_epochs=3, batch_size=16, validation=structured(8),
                        seed=4, **QUICK)  # fmt: skip
        results.append((result.elbo, result.validation_elbo, weights(pair)))
    assert results[0][:2] == results[1][:2] and torch.equal(results[0][2], results[1][2])
    other = vae()
    pg.fit(other, structured(), num_epochs=3, batch_size=16, seed=5, **QUICK)
    assert not torch.equal(weights(other), results[0][2])


def test_repeating_an_epoch_unread_gives_the_same_numbers(monkeypatch: Any) -> None:
    """The path for GPUs, which reads no loss within an epoch, on the CPU."""
    from probgen.inference.training import epochs as loop

    pair, other = vae(), vae()
    plain = pg.fit(pair, structured(), num_epochs=2, batch_size=16, **QUICK)
    kept = loop.Training.steps
    calls: list[bool] = []

    def steps(self: Any, epoch: int, weight: float, look: bool) -> Any:
        calls.append(look)
        return kept(self, epoch, weight, look=False)

    monkeypatch.setattr(loop.Training, "steps", steps)
    unread = pg.fit(other, structured(), num_epochs=2, batch_size=16, **QUICK)
    assert calls == [True, True] and plain.elbo == unread.elbo
    assert torch.equal(weights(pair), weights(other))


# ------------------------------------------------------------------ leaving things as they were


class _BadGradient(torch.autograd.Function):
    """Nothing happens forwards; backwards the gradient is NaN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * torch.nan


@pytest.mark.parametrize(("epochs", "start"), [(1, 1), (3, 2), (3, 3)])
def test_a_gradient_that_is_not_finite_leaves_finite_weights(epochs: int, start: int) -> None:
    """One batch an epoch: the loss is finite where the damage is done."""
    calls = 0

    def objective(pair: Any, data: Any, **settings: Any) -> Tensor:
        nonlocal calls
        calls += 1
        bound = pg.ELBO()(pair, data, **settings)
        return _BadGradient.apply(bound) if calls >= start else bound

    pair = vae()
    with pytest.raises(FloatingPointError, match=f"end of epoch {start} the parameter .* is NaN"):
        pg.fit(pair, structured(16), num_epochs=epochs, batch_size=16, objective=objective, **QUICK)
    assert weights(pair).isfinite().all()


def test_a_validation_bound_that_is_not_finite_is_never_the_best() -> None:
    calls = 0

    def objective(pair: Any, data: Any, **settings: Any) -> Tensor:
        nonlocal calls
        calls += not torch.is_grad_enabled()
        bound = pg.ELBO()(pair, data, **settings)
        return bound * torch.nan if calls == 1 and not torch.is_grad_enabled() else bound

    result = pg.fit(vae(), structured(16), num_epochs=4, batch_size=8, objective=objective,
                    validation=structured(8), **QUICK)  # fmt: skip
    assert np.isnan(result.validation_elbo[0]) and result.best_epoch > 1


def test_interrupt_during_validation_leaves_whole_curves() -> None:
    calls = 0

    def objective(pair: Any, data: Any, **settings: Any) -> Tensor:
        nonlocal calls
        calls += not torch.is_grad_enabled()
        if calls == 3:
            raise KeyboardInterrupt
        return pg.ELBO()(pair, data, **settings)

    pair = vae()
    result = pg.fit(pair, structured(16), num_epochs=9, batch_size=8, objective=objective,
                    validation=structured(8), **QUICK)  # fmt: skip
    assert len(result.elbo) == len(result.validation_elbo) == len(result.seconds) == 2
    pg.plots.learning_curve(result)
    assert pair.training


def test_modes_of_submodules_are_kept() -> None:
    """A part that the user froze in eval mode stays so, also its running statistics."""
    frozen = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4)).eval()
    pair = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,), encoder=frozen)
    pg.fit(pair, structured(32), num_epochs=1, batch_size=8, **QUICK)
    assert not frozen.training and pair.training
    assert torch.equal(frozen[1].running_mean, torch.zeros(4))  # type: ignore[arg-type]
    pair.eval()
    pg.fit(pair, structured(32), num_epochs=1, batch_size=8, **QUICK)
    assert not pair.training and not torch.equal(frozen[1].running_mean, torch.zeros(4))


def test_sampling_leaves_running_statistics_alone() -> None:
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.BatchNorm1d(6))
    pair = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,), decoder=decoder)
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    assert pair.sample(1)["x"].shape == (1, 6) and pair.sample(5)["x"].shape == (5, 6)
    assert all(torch.equal(value, before[name]) for name, value in pair.state_dict().items())


def test_a_refused_fit_leaves_the_precision_alone() -> None:
    pair = vae()
    with pytest.raises(ValueError, match="outside its support"):
        pg.fit(pair, bad(2.0), num_epochs=1, batch_size=8, precision="float64", **QUICK)
    assert next(pair.parameters()).dtype == torch.float32


def test_a_cpu_run_does_not_reseed_a_gpu(monkeypatch: Any) -> None:
    pair, called = vae(), []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda *a: called.append(a))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda *a: called.append(a))
    pg.fit(pair, structured(16), num_epochs=1, batch_size=8, **QUICK)
    pair.sample(2, seed=0)
    pg.encode(pair, structured(16), device="cpu")
    assert not called


def test_fit_learns_inside_no_grad() -> None:
    pair = vae()
    before = weights(pair)
    with torch.no_grad():
        pg.fit(pair, structured(16), num_epochs=1, batch_size=8, **QUICK)
        assert not torch.is_grad_enabled()
    assert not torch.equal(before, weights(pair))


def test_plateau_waits_for_the_end_of_the_warm_up() -> None:
    seen: list[float] = []

    class Plateau(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics: Any, epoch: Any = None) -> None:  # type: ignore[override]
            seen.append(float(metrics))

    result = pg.fit(vae(), structured(16), num_epochs=6, batch_size=8, scheduler=Plateau,
                    objective=pg.ELBO(warmup_epochs=4), **QUICK)  # fmt: skip
    assert seen == [-value for value in result.elbo[3:]]


def test_few_data_are_one_batch_and_the_result_names_what_was_given() -> None:
    result = pg.fit(vae(), structured(20), num_epochs=2, **QUICK)
    assert result.observed == ("x",) and "observed x)" in repr(result)
    mask = torch.arange(20) < 5
    partly = pg.Dataset({"x": binary(20), "y": labels(20)}, observed={"y": mask})
    assert pg.fit(HandM2(), partly, num_epochs=1, **QUICK).observed == ("x", "y (where known)")


def test_numpys_numbers_are_numbers() -> None:
    result = pg.fit(vae(), structured(16), num_epochs=np.int64(2), batch_size=np.int32(8),  # type: ignore[arg-type]
                    learning_rate=np.float32(1e-3), seed=np.int64(3), **QUICK)  # type: ignore[arg-type]  # fmt: skip
    assert len(result.elbo) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": torch.optim.Adam(torch.nn.Linear(2, 2).parameters())}, "none of the parameters of VAE"),
        ({"optimizer": torch.optim.LBFGS}, "without a closure"),
        ({"scheduler": torch.optim.lr_scheduler.StepLR(
            torch.optim.Adam(torch.nn.Linear(2, 2).parameters()), 1)}, "scheduler must be a callable"),
        ({"scheduler": lambda optimizer: None}, "scheduler must be a callable"),
        ({"learning_rate": True}, "learning_rate must be"),
        ({"objective": pg.ELBO}, "objective must be"),
    ],
)  # fmt: skip
def test_more_bad_settings(settings: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        pg.fit(vae(), structured(16), num_epochs=1, batch_size=8, **settings, **QUICK)


def test_a_broken_site_is_found_with_many_particles() -> None:
    """Repeating the step takes as many particles as the step had."""
    torch.manual_seed(0)
    pair = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,),
                         decoder=Explodes(float("nan"), 1))  # fmt: skip
    with pytest.raises(FloatingPointError, match="epoch 1, batch 1: model site x"):
        pg.fit(pair, structured(16), num_epochs=1, batch_size=8, objective=pg.ELBO(5), **QUICK)
    with pytest.raises(FloatingPointError, match=r"the objective .* returned NaN for 8 of 8 data"):
        pg.fit(vae(), structured(16), num_epochs=1, batch_size=8,
               objective=lambda pair, data, **_: pg.ELBO()(pair, data) * torch.nan, **QUICK)  # fmt: skip


def test_a_callback_sees_every_epoch_and_changes_nothing() -> None:
    seen = []

    def look(result: pg.FitResult) -> None:
        torch.rand(3)
        pg.encode(result.pair, structured(4), device="cpu")
        seen.append((len(result.elbo), result.pair.training))

    found = []
    for callback in (None, look):
        pair = vae()
        pg.fit(pair, structured(), num_epochs=3, callback=callback, **QUICK)
        found.append(weights(pair))
    assert torch.equal(*found) and seen == [(1, True), (2, True), (3, True)]
    with pytest.raises(ValueError, match="callback= is for one device"):
        pg.fit(vae(), structured(), num_epochs=1, callback=look, devices=2, **QUICK)
