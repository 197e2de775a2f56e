"""The share of the data that is labelled: in validation, in streams, among several processes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import probgen as pg
from probgen.inference.compute.processes import Group
from probgen.inference.training import feed as feeding
from probgen.inference.training.batches import Resident, Stratified
from probgen.inference.training.epochs import Training
from probgen.inference.training.feed import Feed
from probgen.inference.training.module import TrainingModule
from probgen.inference.training.settings import Settings
from tests.pairs import HandM2

CPU = torch.device("cpu")
QUICK: Any = {"progress": False, "device": "cpu", "precision": "float64", "num_epochs": 1}


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No noise: every Gaussian is at its mean, so that sums by hand see what the guide drew."""
    monkeypatch.setattr(
        torch.distributions.normal, "_standard_normal",
        lambda shape, dtype, device: torch.zeros(shape, dtype=dtype, device=device),
    )  # fmt: skip


def m2() -> HandM2:
    torch.manual_seed(0)
    pair = HandM2().double()
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.mul_(3)
    return pair


def rows(n: int, labelled: int) -> pg.Dataset:
    """The labelled data first, and different from the others."""
    torch.manual_seed(1)
    known = torch.arange(n) < labelled
    x = torch.bernoulli(torch.where(known, 0.8, 0.3)[:, None].expand(n, 6)).double()
    return pg.Dataset({"x": x, "y": torch.arange(n) % 3}, observed={"y": known})


def documented(pair: HandM2, data: pg.Dataset, alpha: float) -> Tensor:
    """N_l / N mean L(x, y) + N_u / N mean U(x) + α mean log q(y | x), over all rows at once."""
    x, y, n = data["x"].double(), data["y"], len(data)
    known = (data.observed or {})["y"]
    log_q = torch.stack([pair.q_y(x=x).log_prob(torch.full((n,), c)) for c in range(3)])
    parts = []
    for c in range(3):
        label = torch.full((n,), c)
        q = pair.q_z(x=x, y=label)
        log_p = pair.p_y().log_prob(label) + pair.p_z().log_prob(q.mean)
        log_p = log_p + pair.p_x(y=label, z=q.mean).log_prob(x)
        parts.append(log_p - q.log_prob(q.mean))
    each = torch.stack(parts)
    bound = torch.where(known, each[y, torch.arange(n)], (log_q.exp() * (each - log_q)).sum(0))
    value = bound.mean()
    if bool(known.any()):
        value = value + alpha * log_q[y, torch.arange(n)][known].mean()
    return value.detach()


# ------------------------------------------------------------------ validation


@pytest.mark.parametrize("block", [1, 3, 5, 1000])
@pytest.mark.parametrize("labelled_batch", [None, 2])
def test_validation_is_the_objective_of_all_rows(
    block: int, labelled_batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order and in blocks of any size, with however many labelled, to the last digits."""
    monkeypatch.setattr(feeding, "VALIDATION_ROWS", block)
    goal = pg.SemiSupervised(alpha=2.5, labelled_batch=labelled_batch)
    for order, labelled in ((0, 3), (1, 3), (2, 12), (3, 1)):
        held = rows(12, labelled)
        torch.manual_seed(order)
        held = held.subset(torch.randperm(12) if order else torch.arange(12))
        pair = m2()
        result = pg.fit(
            pair, rows(16, 4), objective=goal, batch_size=8, validation=held, **QUICK
        )  # fmt: skip
        expected = float(documented(pair, held, 2.5))
        assert result.validation_elbo[0] == pytest.approx(expected, rel=1e-12)


def test_validation_data_without_a_label_have_the_bound_alone() -> None:
    pair, held = m2(), rows(12, 0)
    goal = pg.SemiSupervised(alpha=2.5, labelled_batch=2)
    with pytest.warns(
        UserWarning, match="none of the validation data, so their value is the bound"
    ):
        result = pg.fit(
            pair, rows(16, 4), objective=goal, batch_size=8, validation=held, **QUICK
        )  # fmt: skip
    assert result.validation_elbo[0] == pytest.approx(float(documented(pair, held, 0)), rel=1e-12)


def group(rank: int, size: int) -> Group:
    """One of several processes, whose sums are its own."""
    made = object.__new__(Group)
    made.rank, made.size = rank, size
    made.sums = lambda *numbers: list(numbers)  # type: ignore[method-assign]
    return made


def test_processes_share_all_validation_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a last block with fewer rows than processes."""
    pair, held, size = m2(), rows(13, 4), 3
    found = torch.zeros(2, dtype=torch.float64)
    for rank in range(size):
        member = group(rank, size)
        goal = pg.SemiSupervised(alpha=2.5, labelled_batch=2)
        judge = goal.for_validation()
        feed = Feed(
            Resident(rows(16, 4), 8), Resident(held, 2, group=member), judge, {},
            dict(judge.constants(held)), member,
        )  # fmt: skip
        module = TrainingModule(pair, goal, 0, CPU, torch.float64)
        training = Training(module, feed, goal, Settings(1, CPU, precision="float64"))
        sums: list[float] = []
        monkeypatch.setattr(member, "sums", lambda *own, to=sums: to.extend(own) or [1.0, 1.0])
        training.validate()
        found += torch.tensor(sums, dtype=torch.float64)
    assert found[1] == 13
    assert float(found[0] / 13) == pytest.approx(float(documented(pair, held, 2.5)), rel=1e-12)


@pytest.mark.parametrize("unlabelled", [14, 18, 19])
def test_processes_with_composed_batches_are_one_with_a_batch_as_large(unlabelled: int) -> None:
    """Averages over what each has, weighed by their numbers, are those over all rows of a step."""
    pair, data = m2(), rows(5 + unlabelled, 5)
    goal = pg.SemiSupervised(alpha=2.5, labelled_batch=3)
    share = torch.tensor(5 / len(data)).double()

    def value(piece: Tensor) -> Tensor:
        values, masks = data.batch(piece)
        return goal(pair, values, observed=masks, labelled_share=share).mean()

    shares = []
    for rank in range(2):
        torch.manual_seed(3)
        shares.append(list(Stratified(data, 10, "y", 3, group(rank, 2)).pieces(shuffle=True)))
    assert len(shares[0]) == len(shares[1])
    for parts in zip(*shares, strict=True):
        each = torch.stack([len(part) * value(part) for part in parts])
        assert torch.allclose(
            each.sum() / sum(map(len, parts)), value(torch.cat(parts)), rtol=1e-12
        )


# ------------------------------------------------------------------ streams


def batches(data: pg.Dataset, size: int) -> list[pg.Dataset]:
    return [data.subset(slice(start, start + size)) for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_with_the_share_given_the_expectation_over_batches_is_the_objective(size: int) -> None:
    """Over every batch of a size, of which many are without a label."""
    pair, data = m2(), rows(8, 2)
    goal = pg.SemiSupervised(alpha=2.5, labelled_share=2 / 8)
    values = []
    for some in itertools.combinations(range(8), size):
        value, masks = data.batch(torch.tensor(some))
        values.append(goal(pair, value, observed=masks).mean().detach())
    expected = documented(pair, data, 2.5)
    assert torch.stack(values).mean().item() == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("compile", [False, True])
def test_a_stream_trains_the_documented_objective(
    compile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that do not move show the objective: batches of an epoch are all the data."""
    monkeypatch.setattr("probgen.inference.compute.capture.has_compiler", lambda device: False)
    pair, data = m2(), rows(12, 2)
    goal = pg.SemiSupervised(alpha=20, labelled_share=1 / 6)
    result = pg.fit(
        pair, batches(data, 4), objective=goal, learning_rate=1e-30, compile=compile, **QUICK
    )  # fmt: skip
    assert result.elbo[0] == pytest.approx(float(documented(pair, data, 20)), rel=1e-9)
    whole = pg.fit(
        m2(), data, objective=pg.SemiSupervised(alpha=20), learning_rate=1e-30, batch_size=4, **QUICK
    )  # fmt: skip
    assert whole.elbo[0] == pytest.approx(result.elbo[0], rel=1e-9)


def test_a_stream_must_be_told_its_share() -> None:
    stream = batches(rows(12, 2), 4)
    with pytest.raises(
        ValueError, match=r"give it, for example SemiSupervised\(labelled_share=0\.01\)"
    ):
        pg.fit(m2(), stream, objective=pg.SemiSupervised(), **QUICK)
    pair = m2()
    result = pg.fit(
        pair, stream, objective=pg.SemiSupervised(alpha=0), learning_rate=1e-30, **QUICK
    )  # fmt: skip
    assert result.elbo[0] == pytest.approx(float(documented(pair, rows(12, 2), 0)), rel=1e-9)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, True, "half", float("nan")])
def test_a_share_is_a_share(share: Any) -> None:
    with pytest.raises(ValueError, match="labelled_share must be a share of the data"):
        pg.SemiSupervised(labelled_share=share)


def test_a_run_keeps_the_share(tmp_path: Any) -> None:
    goal = pg.SemiSupervised(labelled_share=1 / 6)
    pg.fit(m2(), batches(rows(12, 2), 4), objective=goal, run_dir=tmp_path, **QUICK)
    settings = pg.load_run(tmp_path, pair=m2()).config["settings"]
    assert f"labelled_share={1 / 6!r}" in settings["objective"]
    assert "labelled_share" not in repr(pg.SemiSupervised())


def test_a_share_given_takes_the_place_of_counting() -> None:
    data = rows(12, 2)
    assert pg.SemiSupervised().constants(data) == {"labelled_share": 2 / 12}
    assert pg.SemiSupervised(labelled_share=0.01).constants(data) == {"labelled_share": 0.01}
