"""fit(): what it learns, what it accepts."""

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
from tests.fitting import QUICK, structured, vae, weights
from tests.pairs import labels


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


@pytest.mark.long
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
        pg.Dataset({"x": x, "y": labels(32)}), (x,), [x], TensorDataset(x).tensors, (x.numpy(),),
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
    assert given == [0.25, 0.5, 0.75, 1, 1, 1]
    given.clear()
    pg.fit(vae(), structured(16), num_epochs=2, batch_size=16,
           objective=Spy(warmup_epochs=1), **QUICK)  # fmt: skip
    assert given == [None, None]  # its weight would be one from the start
