"""Several players: who learns what, captured, in two processes, killed and resumed."""

from __future__ import annotations

import copy
import csv
import signal
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import probgen as pg
from probgen.inference.compute.processes import Group
from probgen.inference.compute.spawn import Outcome, launch
from probgen.inference.training.fit import fit_share
from probgen.inference.training.settings import Settings
from tests.fitting import structured, vae, weights
from tests.inference.training.adversaries import Adversaries, Moments

CPU = torch.device("cpu")
SETTINGS: Any = {
    "num_epochs": 4, "batch_size": 16, "precision": "float64", "progress": False, "device": "cpu",
}  # fmt: skip


def test_captured_players_are_the_players_as_written() -> None:
    """Ragged last batch, buffers of the critic, several updates per batch."""
    pairs = vae(), vae()
    results = []
    for pair, compile in zip(pairs, (False, True), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("error", pg.CaptureWarning)
            objective = Adversaries(draws="shared", steps=2)
            results.append(
                pg.fit(pair, structured(43), objective=objective, compile=compile, **SETTINGS)
            )
    assert torch.allclose(weights(pairs[0]), weights(pairs[1]), rtol=1e-9, atol=1e-12)
    assert results[0].objective == pytest.approx(results[1].objective, rel=1e-9)
    assert results[0].metrics.keys() == {"D(x)", "generator"} == results[1].metrics.keys()
    for name, curve in results[0].metrics.items():
        assert len(curve) == 4 and curve == pytest.approx(results[1].metrics[name], rel=1e-9)


def test_an_update_is_that_of_gradients_by_hand() -> None:
    """The first critic and generator update, taken apart with autograd."""
    pair, objective = vae(), Adversaries(noise_of_data=True, normalized=False)
    by_hand, x = copy.deepcopy(pair).double(), structured(16).double()
    other = Adversaries(noise_of_data=True, normalized=False)
    torch.manual_seed(0)  # that of the fit, from which the critic's weights are
    critic = other.networks(by_hand).double()
    encoder = [p.clone() for p in pair.q_z.parameters()]
    settings = {**SETTINGS, "num_epochs": 1, "optimizer": partial(torch.optim.SGD, lr=0.5)}
    pg.fit(pair, x, objective=objective, **settings)
    first, second = other.players(by_hand, critic)
    adam = torch.optim.Adam(first.parameters, lr=2e-3)
    values: Any = first.value(by_hand, {"x": x})
    loss = -values[0].mean()
    for parameter, grad in zip(
        first.parameters, torch.autograd.grad(loss, first.parameters), strict=True
    ):
        parameter.grad = grad
    adam.step()
    value: Any = second.value(by_hand, {"x": x})
    grads = torch.autograd.grad(-value.mean(), second.parameters)
    for parameter, grad in zip(second.parameters, grads, strict=True):
        parameter.data -= 0.5 * grad
    assert torch.allclose(weights(pair), weights(by_hand), rtol=1e-10, atol=1e-13)
    assert all(
        torch.equal(a.double(), b) for a, b in zip(encoder, pair.q_z.parameters(), strict=True)
    )


@pytest.mark.parametrize("compile", [False, True])
def test_an_update_leaves_the_gradients_of_others_alone(compile: bool) -> None:
    seen: list[bool] = []

    class Looks(Adversaries):
        def players(self, pair: Any, networks: Any) -> Any:
            players = super().players(pair, networks)
            grads: dict[int, Tensor | None] = {}

            class Noted(torch.optim.SGD):
                def step(self, closure: Any = None) -> Any:
                    own = {id(p) for group in self.param_groups for p in group["params"]}
                    everything = [p for player in players for p in player.parameters]
                    others = [p for p in everything if id(p) not in own]
                    seen.append(all(grads.get(id(p)) is p.grad for p in others))
                    seen.append(all(p.requires_grad for p in others))
                    out = super().step(closure)
                    grads.update({id(p): p.grad for p in everything})
                    return out

            make = partial(Noted, lr=0.01)
            return [
                pg.Player(p.name, p.parameters, p.value, optimizer=make, draws=p.draws)
                for p in players
            ]

    pg.fit(vae(), structured(32), objective=Looks(), compile=compile, **SETTINGS)
    assert len(seen) == 2 * 2 * 2 * 4 and all(seen)


@pytest.mark.parametrize(("draws", "same"), [("shared", True), ("fresh", False)])
def test_draws_are_shared_or_fresh(draws: str, same: bool) -> None:
    objective = Adversaries(draws=draws)
    pg.fit(vae(), structured(32), objective=objective, **SETTINGS)
    names = [name for name, _ in objective.seen]
    assert names == ["critic", "generator"] * 8
    drawn = [z for _, z in objective.seen]
    assert all(torch.equal(a, b) is same for a, b in zip(drawn[::2], drawn[1::2], strict=True))
    assert not torch.equal(drawn[0], drawn[2])  # the next batch has noise of its own


def test_several_updates_per_batch_have_noise_of_their_own() -> None:
    objective = Adversaries(draws="shared", steps=3)
    pg.fit(vae(), structured(16), objective=objective, **{**SETTINGS, "num_epochs": 1})
    assert [name for name, _ in objective.seen] == ["critic"] * 3 + ["generator"]
    first, second, third, generator = (z for _, z in objective.seen)
    assert not torch.equal(first, second) and not torch.equal(second, third)
    assert torch.equal(first, generator)


KILLED = """
import sys
import probgen as pg
from tests.fitting import structured, vae
from tests.inference.training.adversaries import Adversaries
from tests.inference.training.test_players import SETTINGS
pg.fit(vae(), structured(43), objective=Adversaries(draws="shared", dies_in_epoch=3),
       run_dir=sys.argv[1], compile=False, **SETTINGS)
"""


def test_killed_and_resumed_to_the_bit(tmp_path: Path) -> None:
    straight, again = vae(), vae()
    settings: Any = {**SETTINGS, "compile": False}
    whole = pg.fit(straight, structured(43), objective=Adversaries(draws="shared"), **settings)
    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert ended.returncode == -signal.SIGKILL
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert 0 < len(rows) < 4 and {"D(x)", "generator", "elbo"} <= rows[0].keys()
    resumed = pg.fit(
        again, structured(43), objective=Adversaries(draws="shared"), run_dir=tmp_path, resume=True,
        **settings,
    )  # fmt: skip
    assert torch.equal(weights(again), weights(straight))
    assert resumed.metrics == whole.metrics and resumed.elbo == whole.elbo
    run = pg.load_run(tmp_path)
    assert run.result.metrics == whole.metrics and run.result.quantity == "V(D, G)"
    assert torch.equal(weights(run.pair), weights(straight))
    assert (tmp_path / "figures" / "learning_curve.png").exists()


def test_a_captured_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    straight, first, second = vae(), vae(), vae()
    settings: Any = {**SETTINGS, "compile": True, "objective": Adversaries(draws="shared")}
    pg.fit(straight, structured(43), **settings)
    pg.fit(first, structured(43), run_dir=tmp_path, **{**settings, "num_epochs": 2})
    pg.fit(second, structured(43), run_dir=tmp_path, resume=True, **settings)
    assert torch.equal(weights(second), weights(straight))


def both(group: Group, device: torch.device, *, pair: Any, data: Any, settings: Any) -> Outcome:
    """What each of two processes runs: a fit of each kind, and whether all have the same weights."""
    outcome: Outcome = ({}, {})
    for name, one in settings.items():
        tensors, record = fit_share(group, device, copy.deepcopy(pair), data, one)
        for part, tensor in tensors.items():
            if not torch.equal(group.from_first(tensor), tensor):
                raise AssertionError(f"{part} differs between processes")
            outcome[0][f"{name} {part}"] = tensor
        outcome[1][name] = record
    return outcome


@pytest.mark.slow
def test_two_processes_are_one_with_a_doubled_batch(tmp_path: Path) -> None:
    """Two players of a value per datum; and a value of a batch, which is taken of each part."""
    x = structured(44) * 0.9 + 0.05 * torch.arange(6)
    pair = pg.models.VAE(x=pg.Normal(6), z=pg.Normal(2), hidden=(8,))
    alone: dict[str, Any] = {}
    settings: dict[str, Settings] = {}
    for name, (goal, own_goal) in {
        "players": (Adversaries(noise_of_data=True, normalized=False),) * 2,
        "captured": (Adversaries(noise_of_data=True, normalized=False),) * 2,
        "buffers": (Adversaries(),) * 2,
        "batch": (Moments(1), Moments(2)),
    }.items():
        compile = name == "captured"
        settings[name] = Settings(
            3,
            CPU,
            batch_size=11,
            objective=goal,
            precision="float64",
            compile=compile,
            progress=False,
        )
        same = copy.deepcopy(pair)
        result = pg.fit(same, x, objective=own_goal, compile=compile,
                        **{**SETTINGS, "num_epochs": 3, "batch_size": 22})  # fmt: skip
        alone[name] = (same, result)
    arguments = {"pair": pair, "data": x, "settings": settings}
    tensors, records = launch(both, arguments, 2, CPU, owner="test", advice="")
    for name in ("players", "captured", "batch"):
        same, result = alone[name]
        assert records[name]["elbo"] == pytest.approx(result.elbo, rel=1e-8)
        assert records[name]["metrics"].keys() == result.metrics.keys()
        for metric, curve in result.metrics.items():
            assert records[name]["metrics"][metric] == pytest.approx(curve, rel=1e-8)
        for part, tensor in same.state_dict().items():
            assert torch.allclose(tensors[f"{name} {part}"], tensor, rtol=1e-8, atol=1e-10)


# ------------------------------------------------------------------ refusals


def refused(objective: Any, **settings: Any) -> str:
    with pytest.raises((ValueError, TypeError)) as error:
        pg.fit(vae(), structured(32), objective=objective, **{**SETTINGS, **settings})
    return str(error.value)


def with_players(make: Any) -> Any:
    class Mine(Adversaries):
        def players(self, pair: Any, networks: Any) -> Any:
            return make(super().players(pair, networks))

    return Mine()


def changed(player: pg.Player, **parts: Any) -> pg.Player:
    return pg.Player(**{**vars(player), **parts})


def test_what_players_cannot_be() -> None:
    assert "have a parameter in common" in refused(
        with_players(lambda two: [two[0], changed(two[1], parameters=two[0].parameters)])
    )
    assert "players with different names" in refused(
        with_players(lambda two: [two[0], changed(two[1], name="critic")])
    )
    foreign = torch.nn.Linear(2, 2)
    assert "Return them from networks()" in refused(
        with_players(lambda two: [two[0], changed(two[1], parameters=foreign.parameters())])
    )
    assert "one or more" in refused(with_players(lambda two: []))
    assert "return pg.Player records" in refused(with_players(lambda two: [two]))
    assert "has no learnable parameters" in refused(
        with_players(lambda two: [two[0], changed(two[1], parameters=())])
    )
    assert "must return a scalar" in refused(
        with_players(lambda two: [changed(two[0], unit="batch"), two[1]])
    )
    assert "two players return a metric 'D(x)'" in refused(
        with_players(lambda two: [two[0], changed(two[1], name="D(x)")])
    )
    assert "cannot be called 'seconds'" in refused(
        with_players(lambda two: [two[0], changed(two[1], name="seconds")])
    )
    pair = vae()
    instance = torch.optim.SGD(pair.parameters(), lr=0.1)
    assert "has several players" in refused(Adversaries(), optimizer=instance)
    for wrong, words in (
        ({"steps": 0}, "steps"), ({"draws": "new"}, "draws"), ({"unit": "epoch"}, "unit"),
        ({"value": 3}, "callable"),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=words):
            pg.Player("critic", (), **{"value": lambda: None, **wrong})  # type: ignore[arg-type]


def test_an_objective_without_validation_says_so() -> None:
    x = structured(64)
    assert "has no value of validation data" in refused(Adversaries(), validation={"x": x})
    assert "use patience=None" in refused(Adversaries(), patience=2)
    splits = pg.Dataset({"x": x}).split(validation=16)
    result = pg.fit(vae(), splits, objective=Adversaries(), **SETTINGS)
    assert result.validation_elbo == [] and result.best_epoch == 4


# ------------------------------------------------------------------ what an objective may say


class Scored(pg.Objective):
    """The ELBO, whose best epoch is kept, with a metric and remarks."""

    quantity, keeps = "score", "best"

    def __call__(self, pair: Any, data: Any, *, observed: Any = None) -> Any:
        values = pg.ELBO()(pair, data, observed=observed)
        return values, {"spread": values.std()}

    def remarks(self, result: Any) -> Any:
        yield "The score is watched."
        if len(result.elbo) > 2:
            yield f"After {3} epochs the spread was {result.metrics['spread'][2]:.9f}."


def test_metrics_remarks_and_the_best_epoch(tmp_path: Path) -> None:
    pair = vae()
    kept: list[Tensor] = []
    with pytest.warns(UserWarning, match="watched|After 3") as said:
        result = pg.fit(pair, structured(32), objective=Scored(), run_dir=tmp_path, learning_rate=0.3,
                        callback=lambda result: kept.append(weights(result.pair)),
                        **{**SETTINGS, "num_epochs": 8})  # fmt: skip
    assert len([w for w in said if "watched" in str(w.message)]) == 1
    assert len([w for w in said if "After 3" in str(w.message)]) == 1
    best = max(range(8), key=lambda epoch: result.elbo[epoch])
    assert result.best_epoch == best + 1 and torch.equal(weights(pair), kept[best])
    assert result.quantity == "score" and "training score" in repr(result)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["spread"]) for row in rows] == result.metrics["spread"]


def test_objectives_by_name(tmp_path: Path) -> None:
    @pg.register_objective("two-draws-of-a-test")
    def two_draws() -> pg.Objective:
        return pg.ELBO(2)

    pairs = [vae() for _ in range(3)]
    for pair, objective in zip(pairs, ("two-draws-of-a-test", pg.ELBO(2), "auto"), strict=True):
        pg.fit(pair, structured(32), objective=objective, **SETTINGS)
    assert torch.equal(weights(pairs[0]), weights(pairs[1]))
    assert not torch.equal(weights(pairs[0]), weights(pairs[2]))
    with pytest.raises(ValueError, match="is registered already"):
        pg.register_objective("elbo", two_draws)
    with pytest.raises(TypeError, match="must be a class or a function"):
        pg.register_objective("none", 3)  # type: ignore[call-overload]
    assert '"analytic-kl", "elbo"' in refused("evidence")


def test_a_model_names_its_objective(tmp_path: Path) -> None:
    class Closed(pg.models.VAE):
        objective = "analytic-kl"

    def build(kind: Any) -> Any:
        torch.manual_seed(0)
        return kind(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,))

    named, plain = build(Closed), build(pg.models.VAE)
    pg.fit(named, structured(32), run_dir=tmp_path, **SETTINGS)
    pg.fit(plain, structured(32), objective="analytic-kl", **SETTINGS)
    assert torch.equal(weights(named), weights(plain))
    assert '"objective": "analytic-kl"' in (tmp_path / "config.json").read_text()
