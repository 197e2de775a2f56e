"""fit(): what it learns, what it accepts, how it ends."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import probgen as pg
from tests import pairs
from tests.pairs import CASES, HandM2, binary, labels

QUICK: Any = {"progress": False, "device": "cpu"}


def vae() -> pg.LatentVariableModel:
    torch.manual_seed(0)
    return CASES["VAE"].build()


def structured(n: int = 64) -> Tensor:
    """Binary rows of two kinds, so that there is something to learn."""
    kinds = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).float()
    return kinds[torch.arange(n) % 2]


def weights(pair: pg.LatentVariableModel) -> Tensor:
    return torch.cat([p.detach().flatten() for p in pair.parameters()])


# ------------------------------------------------------------------ it learns


def test_bound_improves_and_history_is_complete() -> None:
    pair = vae()
    result = pg.fit(pair, structured(), num_epochs=80, batch_size=16, learning_rate=1e-2, **QUICK)
    assert result.elbo[-1] > result.elbo[0] + 1.5
    assert len(result.elbo) == len(result.seconds) == 80
    assert result.stopped == "completed" and result.best_epoch == 80
    assert result.pair is pair and not result.validation_elbo
    assert "completed after 80 epochs" in repr(result)


def test_two_labels_name_the_clusters() -> None:
    """A mixture of two clusters with one label each: every other row gets the right class."""
    torch.manual_seed(0)
    y = torch.arange(64) % 2
    x = 4.0 * y[:, None] - 2.0 + torch.randn(64, 3)
    mixture = pg.declare("p(y) p(x | y)", hidden=(), y=pg.Categorical(2),
                         x=pg.Normal(3, scale="shared"))  # fmt: skip
    mask = torch.arange(64) < 2
    data = pg.Dataset({"x": x, "y": torch.where(mask, y, torch.tensor(-1))}, observed={"y": mask})
    pg.fit(mixture, data, num_epochs=60, batch_size=16, learning_rate=3e-2, **QUICK)
    with torch.no_grad():
        log_p = torch.stack([mixture.p_x(y=torch.full((64,), c)).log_prob(x) for c in range(2)])
    assert (log_p.argmax(0) == y).all()


@pytest.mark.slow
def test_ppca_by_svi_reaches_the_closed_form_on_digits() -> None:
    """Tipping and Bishop's maximum of the likelihood, within 0.01 nats a datum."""
    x = pg.load("digits").train["x"]
    best = pg.models.PPCA(x=pg.Normal(64), z=pg.Normal(8)).double()
    best.set_maximum_likelihood(x)
    exact = best.log_prob(x.double()).mean().item()
    torch.manual_seed(0)
    pair = pg.models.PPCA(x=pg.Normal(64), z=pg.Normal(8))
    epochs = 1200
    decay = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs)
    pg.fit(pair, {"x": x}, num_epochs=epochs, learning_rate=1e-2, scheduler=decay, **QUICK)
    reached = pair.double().log_prob(x.double()).mean().item()
    assert exact - 0.01 < reached <= exact + 1e-9


def test_factor_analysis_beats_ppca_where_noise_differs() -> None:
    torch.manual_seed(0)
    z = torch.randn(500, 1)
    x = z @ torch.ones(1, 4) + torch.randn(500, 4) * torch.tensor([0.1, 0.5, 1.0, 2.0])
    scores = {}
    for kind in (pg.models.PPCA, pg.models.FactorAnalysis):
        pair = kind(x=pg.Normal(4), z=pg.Normal(1))
        pg.fit(pair, x, num_epochs=150, learning_rate=2e-2, **QUICK)
        scores[kind] = pair.log_prob(x).mean().item()
    assert scores[pg.models.FactorAnalysis] > scores[pg.models.PPCA] + 0.3


# ------------------------------------------------------------------ what it accepts


def test_every_kind_of_data_gives_the_same_weights() -> None:
    x = structured(32)
    found = []
    for data in (
        x, x.numpy(), x.double().numpy(), x.bool(), x.long(), {"x": x}, pg.Dataset({"x": x}),
        pg.Dataset({"x": x, "y": labels(32)}),
    ):  # fmt: skip
        pair = vae()
        pg.fit(pair, data, num_epochs=2, batch_size=8, **QUICK)
        found.append(weights(pair))
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_iterables_of_batches() -> None:
    x = structured(32)
    batches = list(x.split(10))
    for data in (
        batches, [{"x": batch} for batch in batches], [batch.numpy() for batch in batches]
    ):  # fmt: skip
        result = pg.fit(vae(), data, num_epochs=3, **QUICK)
        assert len(result.elbo) == 3
        assert result.elbo == pytest.approx(pg.fit(vae(), batches, num_epochs=3, **QUICK).elbo)
    loader = DataLoader(TensorDataset(x), batch_size=10, shuffle=True)
    shuffled = [pg.fit(vae(), loader, num_epochs=3, **QUICK).elbo for _ in range(2)]
    assert len(shuffled[0]) == 3 and shuffled[0] == shuffled[1]


def test_splits_bring_their_validation() -> None:
    splits = pg.Dataset({"x": structured(60)}).split(validation=20, seed=0)
    result = pg.fit(vae(), splits, num_epochs=3, batch_size=8, **QUICK)
    assert len(result.validation_elbo) == 3
    assert not pg.fit(vae(), splits, num_epochs=1, batch_size=8, validation=None,
                      **QUICK).validation_elbo  # fmt: skip


def test_dynamic_binarization_draws_anew() -> None:
    """Every batch is binary, and no two passes see the same bits."""
    seen: list[Tensor] = []

    def spy(pair: Any, data: Any, **settings: Any) -> Tensor:
        seen.append(data["x"].clone())
        return pg.ELBO()(pair, data, **settings)

    grey = torch.full((16, pairs.X), 0.5)
    data = pg.Dataset({"x": grey}).binarized("dynamic")
    pg.fit(vae(), data, num_epochs=2, batch_size=16, objective=spy, **QUICK)
    assert all(((x == 0) | (x == 1)).all() for x in seen)
    assert len(seen) == 2 and not torch.equal(seen[0], seen[1])


def test_every_datum_once_an_epoch_and_the_ragged_batch_too() -> None:
    seen: list[Tensor] = []

    def spy(pair: Any, data: Any, **settings: Any) -> Tensor:
        seen.append(data["x"][:, 0])
        return pg.ELBO()(pair, data, **settings)

    pair = pg.models.PPCA(x=pg.Normal(2), z=pg.Normal(1))
    x = torch.stack([torch.arange(25.0), torch.zeros(25)], 1)
    result = pg.fit(pair, x, num_epochs=2, batch_size=10, objective=spy, **QUICK)
    assert [len(part) for part in seen] == [10, 10, 5] * 2
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert torch.equal(first.sort().values, torch.arange(25.0))
    assert not torch.equal(first, second)
    assert len(result.elbo) == 2


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.SGD,
        partial(torch.optim.RMSprop, lr=1e-3),
        lambda parameters: torch.optim.Adam(parameters, lr=1e-3, amsgrad=True),
    ],
)
def test_any_torch_optimizer(optimizer: Any) -> None:
    pair = vae()
    before = weights(pair)
    pg.fit(pair, structured(), num_epochs=1, batch_size=16, optimizer=optimizer, **QUICK)
    assert not torch.equal(before, weights(pair))


def test_an_optimizer_made_before_and_schedulers() -> None:
    pair = vae()
    optimizer = torch.optim.SGD(pair.parameters(), lr=0.1)
    decay = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    pg.fit(pair, structured(), num_epochs=3, batch_size=16, optimizer=optimizer,
           scheduler=decay, **QUICK)  # fmt: skip
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0)
    pg.fit(pair, structured(), num_epochs=2, batch_size=16, scheduler=plateau, **QUICK)


def test_several_particles_analytic_kl_and_float64() -> None:
    pair = vae()
    goal = pg.ELBO(num_particles=3, analytic_kl=True, warmup_epochs=2)
    result = pg.fit(pair, structured(), num_epochs=3, batch_size=16, objective=goal,
                    precision="float64", **QUICK)  # fmt: skip
    assert next(pair.parameters()).dtype == torch.float64
    assert np.isfinite(result.elbo).all()


def test_warm_up_reaches_the_objective() -> None:
    given: list[float | None] = []

    class Spy(pg.ELBO):
        def __call__(self, *args: Any, kl_weight: Any = None, **settings: Any) -> Tensor:
            given.append(None if kl_weight is None else kl_weight.item())
            return super().__call__(*args, kl_weight=kl_weight, **settings)

    pg.fit(vae(), structured(16), num_epochs=6, batch_size=16,
           objective=Spy(warmup_epochs=4), **QUICK)  # fmt: skip
    assert given == [0.25, 0.5, 0.75, None, None, None]


# ------------------------------------------------------------------ how it ends


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


class _Explodes(torch.nn.Module):
    """A linear map whose output is multiplied by `value` from its call number `start` on."""

    def __init__(self, value: float, start: int) -> None:
        super().__init__()
        self.linear, self.value, self.start, self.calls = torch.nn.Linear(2, 6), value, start, 0

    def forward(self, z: Tensor) -> Tensor:
        self.calls += self.training
        out: Tensor = self.linear(z)
        return out * self.value if self.calls >= self.start else out


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (float("inf"), "")])
def test_non_finite_loss_names_site_and_batch(value: float, kind: str) -> None:
    torch.manual_seed(0)
    # Four batches an epoch: the seventh call in training is the third batch of the second epoch.
    pair = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,),
                         decoder=_Explodes(value, 7))  # fmt: skip
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
    from probgen.inference import svi

    pair, other = vae(), vae()
    plain = pg.fit(pair, structured(), num_epochs=2, batch_size=16, **QUICK)
    kept = svi._Loop.steps
    calls: list[bool] = []

    def steps(self: Any, epoch: int, weight: float, look: bool) -> Any:
        calls.append(look)
        return kept(self, epoch, weight, look=False)

    monkeypatch.setattr(svi._Loop, "steps", steps)
    unread = pg.fit(other, structured(), num_epochs=2, batch_size=16, **QUICK)
    assert calls == [True, True] and plain.elbo == unread.elbo
    assert torch.equal(weights(pair), weights(other))


# ------------------------------------------------------------------ bad input


def bad(value: Any) -> Tensor:
    x = structured(32)
    x[5, 2] = value
    return x


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (
            bad(0.5),
            {},
            r"x has values outside its support \(min 0, max 1; first in row 5\), but x in VAE is Bernoulli\(6\), which takes only 0 and 1\. Binarize",
        ),
        (bad(float("nan")), {}, "NaN or infinite values in 1 of 32 data, the first in row 5"),
        (structured(32)[:, :5], {}, r"x has shape \(32, 5\), but VAE expects \(data, 6\)"),
        (structured(32)[0], {}, "For a single datum add a first dim"),
        (structured(32)[:0], {}, "empty"),
        ({"w": structured(32)}, {}, "no variable w; its variables are x, z"),
        ({"z": torch.zeros(32, 2)}, {}, "VAE needs x, got z"),
        ({}, {}, "dict of arrays"),
        (structured(32), {"batch_size": 33}, "batch_size=33 is larger than the 32 data"),
        (structured(32), {"batch_size": 0}, "batch_size must be an int of at least 1"),
        (structured(32), {"num_epochs": 0}, "num_epochs must be an int of at least 1"),
        (structured(32), {"learning_rate": -1.0}, "learning_rate must be above 0"),
        (structured(32), {"objective": "iwae"}, "objective='iwae' is unknown"),
        (structured(32), {"objective": 3}, "objective must be"),
        (structured(32), {"optimizer": "adam"}, "optimizer must be a torch optimizer"),
        (structured(32), {"validation": "some"}, 'validation must be "auto", None or data'),
        (structured(32), {"patience": 3}, "needs validation data"),
        (DataLoader(TensorDataset(structured(8), labels(8))), {}, "let the loader yield dicts"),
        (structured(32), {"patience": 0}, "patience must be"),
        (structured(32), {"precision": "bf17"}, "precision='bf17'"),
        (structured(32), {"device": "cuda:77"}, "not available"),
        ("digits", {}, "str"),
        (None, {}, "NoneType"),
        ([], {}, "empty"),
        (iter([structured(32)]), {}, "iterator"),
        (np.array([["a"] * 6]), {}, "must hold numbers"),
        (torch.complex(structured(8), structured(8)), {}, "real array"),
    ],
)
def test_bad_input(data: Any, settings: Any, message: str) -> None:
    arguments = {"num_epochs": 1, "batch_size": 8, **QUICK, **settings}
    with pytest.raises((ValueError, TypeError), match=message):
        pg.fit(vae(), data, **arguments)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            labels(32) + 1,
            r"y has values outside its support \(min 1, max 3; first in row 2\).*0\.\.2",
        ),
        (labels(32) - 1, r"min -1"),
        (labels(32) + 0.5, "whole numbers"),
        (labels(31), "same first dim"),
        (labels(32)[:, None], r"y has shape \(32, 1\)"),
    ],
)
def test_bad_labels(y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pg.fit(HandM2(), {"x": binary(32), "y": y}, num_epochs=1, batch_size=8, **QUICK)


def test_labels_given_as_whole_floats_are_classes() -> None:
    a, b = HandM2(), HandM2()
    b.load_state_dict(a.state_dict())
    x = binary(16)
    pg.fit(a, {"x": x, "y": labels(16)}, num_epochs=1, batch_size=8, **QUICK)
    pg.fit(b, {"x": x, "y": labels(16).double()}, num_epochs=1, batch_size=8, **QUICK)
    assert torch.equal(weights(a), weights(b))


def test_an_input_must_be_given() -> None:
    with pytest.raises(ValueError, match="needs y"):
        pg.fit(CASES["CVAE"].build(), {"x": binary(8)}, num_epochs=1, batch_size=8, **QUICK)


def test_two_data_variables_need_names() -> None:
    with pytest.raises(ValueError, match="has the data variables"):
        pg.fit(CASES["CVAE"].build(), binary(8), num_epochs=1, batch_size=8, **QUICK)


def test_not_a_pair() -> None:
    with pytest.raises(TypeError, match="expected a pair"):
        pg.fit(torch.nn.Linear(2, 2), binary(8), num_epochs=1)  # type: ignore[arg-type]


def test_support_is_checked_in_every_batch_of_a_stream() -> None:
    batches = [structured(8), structured(8), bad(2.0)]
    with pytest.raises(ValueError, match="outside its support"):
        pg.fit(vae(), batches, num_epochs=1, **QUICK)


def test_plain_lines_without_a_terminal(monkeypatch: Any, capsys: Any) -> None:
    from probgen import progress

    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    pg.fit(vae(), structured(16), num_epochs=2, batch_size=8, device="cpu")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("fit VAE 1/2  ELBO -") and "data/s" in lines[0]


def test_a_run_that_showed_lines_shows_its_last(capsys: Any) -> None:
    from probgen.progress import Progress

    with Progress("job", 9) as bar:
        bar._last -= 60
        bar.update(3, "a")
        bar.update(9, "b")
    assert capsys.readouterr().err.splitlines() == ["job 3/9  a", "job 9/9  b"]


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
        ({"optimizer": torch.optim.Adam(torch.nn.Linear(2, 2).parameters())}, "none of VAE's parameters"),
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
                         decoder=_Explodes(float("nan"), 1))  # fmt: skip
    with pytest.raises(FloatingPointError, match="epoch 1, batch 1: model site x"):
        pg.fit(pair, structured(16), num_epochs=1, batch_size=8, objective=pg.ELBO(5), **QUICK)
    with pytest.raises(FloatingPointError, match="an objective of your own"):
        pg.fit(vae(), structured(16), num_epochs=1, batch_size=8,
               objective=lambda pair, data, **_: pg.ELBO()(pair, data) * torch.nan, **QUICK)  # fmt: skip
