"""Several processes: one gradient, the same weights, and what happens when one of them dies."""

from __future__ import annotations

import copy
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import probgen as pg
from probgen.inference.compute.processes import Group, current_group
from probgen.inference.compute.spawn import Outcome, launch
from probgen.inference.objectives.elbo import elbo
from probgen.inference.scoring import marginal_likelihood
from probgen.inference.scoring.base import estimate_share
from probgen.inference.sobol import GivenNoise
from probgen.inference.traces import trace_pair
from probgen.inference.training.fit import fit_share
from probgen.inference.training.settings import Settings
from tests.fitting import structured, vae, weights
from tests.pairs import labels, m2

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")
SETTINGS: Any = {"batch_size": 8, "learning_rate": 1e-2, "progress": False, "device": "cpu"}


class NoiseOfData:
    """The ELBO with noise that belongs to the datum, so that it is the same wherever the datum goes."""

    def __init__(self, dies_in_epoch: int | None = None) -> None:
        self.dies_in_epoch, self.calls = dies_in_epoch, 0

    def __repr__(self) -> str:
        return "NoiseOfData()"

    def __call__(
        self, pair: Any, data: Any, *, observed: Any = None, kl_weight: Any = None
    ) -> Tensor:
        group = current_group()
        self.calls += torch.is_grad_enabled()
        # At the second of three steps: by the first the other process has stored the epoch before.
        epochs = (self.calls - 2) // 3
        if group is not None and group.rank == 1 and epochs + 1 == self.dies_in_epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        noise = GivenNoise({"z": data["x"][:, :2] - data["x"][:, 2:4]})
        return elbo(trace_pair(pair, data, observed=observed, noise=noise))


def fit_and_compare(
    group: Group, device: torch.device, *, pair: Any, data: Any, **arguments: Any
) -> Outcome:
    """What every process runs: a fit as written and one compiled, and a look at whether all have the
    same weights."""
    outcome: tuple[dict[str, Tensor], dict[str, Any]] = ({}, {})
    for compile in (False, True):
        same = copy.deepcopy(pair)
        settings = Settings(device=device, compile=compile, **arguments)
        tensors, record = fit_share(group, device, pair=same, data=data, settings=settings)
        for name, tensor in tensors.items():
            if not torch.equal(group.from_first(tensor), tensor):
                raise AssertionError(f"{name} differs between processes, with compile={compile}")
            outcome[0][f"{compile} {name}"] = tensor
        outcome[1][str(compile)] = {**record, "processes": len(group.gather(group.rank))}
    return outcome


@pytest.mark.slow
def test_two_processes_are_one_with_a_doubled_batch() -> None:
    """Equal noise, a last batch that is not full, validation shared out: equal weights and curves, as
    written and compiled."""
    x = structured(43) * 0.9 + 0.05 * torch.arange(6)
    real = pg.models.VAE(x=pg.Normal(6), z=pg.Normal(2), hidden=(8,))
    other = copy.deepcopy(real)
    settings: Any = {
        "num_epochs": 4, "learning_rate": 1e-2, "objective": NoiseOfData(), "precision": "float64",
        "validation": {"x": x[:9]}, "progress": False,
    }  # fmt: skip
    one = pg.fit(other, x, batch_size=16, device="cpu", **settings)
    arguments = {"pair": real, "data": x, "batch_size": 8, **settings}
    environment = dict(os.environ)
    tensors, records = launch(
        fit_and_compare, arguments, 2, torch.device("cpu"), owner="test", advice=""
    )
    assert dict(os.environ) == environment and records.keys() == {"False", "True"}
    for compile, record in records.items():
        assert record["processes"] == 2
        assert record["elbo"] == pytest.approx(one.elbo, rel=1e-9)
        assert record["validation_elbo"] == pytest.approx(one.validation_elbo, rel=1e-9)
        assert record["best_epoch"] == one.best_epoch
        for name, tensor in other.state_dict().items():
            assert torch.allclose(tensors[f"{compile} {name}"], tensor, rtol=1e-8, atol=1e-10)


def estimate_both(group: Group, device: torch.device, *, draws: str, **arguments: Any) -> Outcome:
    """What every process runs: its share of a score by independent draws, and of one by Sobol points."""
    outcome: tuple[dict[str, Tensor], dict[str, Any]] = ({}, {})
    for kind in ("iid", "rqmc"):
        columns, outcome[1][kind] = estimate_share(group, device, draws=kind, **arguments)
        outcome[0].update({f"{kind} {name}": column for name, column in columns.items()})
    return outcome


@pytest.fixture(scope="module")
def score_launch() -> Any:
    """`launch` for scores of one pair and data, which starts processes once for both kinds of draws."""
    made: list[Outcome] = []

    def once(work: Any, arguments: Any, *where: Any, **words: Any) -> Outcome:
        assert work is estimate_share
        if not made:
            made.append(launch(estimate_both, arguments, *where, **words))
        (tensors, records), kind = made[0], arguments["draws"]
        kept = {n.removeprefix(f"{kind} "): t for n, t in tensors.items() if n.startswith(kind)}
        return kept, records[kind]

    return once


@pytest.mark.slow
@pytest.mark.parametrize("draws", ["iid", "rqmc"])
def test_scores_are_shared_out(
    draws: Any, score_launch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marginal_likelihood, "launch", score_launch)
    torch.manual_seed(0)
    pair, y = m2(), labels(7)
    data = pg.Dataset({"x": structured(7), "y": y}, observed={"y": torch.arange(7) % 3 == 0})
    settings: Any = {"num_samples": 2048, "draws": draws, "device": "cpu", "precision": "float64"}
    one = pg.log_marginal_likelihood(pair, data, **settings)
    two = pg.log_marginal_likelihood(pair, data, devices=2, **settings)
    if draws == "rqmc":  # the points are the same wherever the datum goes
        assert np.allclose(one.log_prob, two.log_prob, rtol=1e-10)
        assert one.replicates is not None and two.replicates is not None
        assert np.allclose(one.replicates, two.replicates, rtol=1e-8)
    assert np.allclose(one.log_prob[:4], two.log_prob[:4], rtol=1e-10)  # the first one's share
    assert (np.abs(one.log_prob - two.log_prob) < 6 * one.standard_error + 1e-9).all()
    assert two.data_hash == one.data_hash and two.num_samples == one.num_samples


@pytest.mark.slow
def test_processes_have_noise_of_their_own_and_partly_known_labels() -> None:
    torch.manual_seed(0)
    pair, y = m2(), labels(48)
    data = pg.Dataset({"x": structured(48), "y": y}, observed={"y": torch.arange(48) % 3 == 0})
    before = weights(pair).clone()
    result = pg.fit(pair, data, num_epochs=2, devices=2, **SETTINGS)
    assert len(result.elbo) == 2 and result.observed == ("x", "y (where known)")
    assert not torch.equal(weights(pair), before) and result.device == "cpu"


@pytest.mark.slow
def test_a_process_that_dies_leaves_the_last_epoch(tmp_path: Path) -> None:
    def settings(folder: str, objective: NoiseOfData, **more: Any) -> Any:
        return {**SETTINGS, "num_epochs": 5, "devices": 2, "run_dir": tmp_path / folder,
                "objective": objective, **more}  # fmt: skip

    x = structured(48)
    with pytest.raises(
        RuntimeError, match=r"a process died.*SIGKILL.*continue it with resume=True"
    ):
        pg.fit(vae(), x, **settings("a", NoiseOfData(dies_in_epoch=3)))
    run = pg.load_run(tmp_path / "a")
    assert len(run.result.elbo) == 2 and run.result.stopped == "interrupted"
    assert run.config["command"] == shlex.join(sys.orig_argv)
    resumed = pg.fit(vae(), x, **settings("a", NoiseOfData(), resume=True))
    whole = pg.fit(vae(), x, **settings("b", NoiseOfData()))
    assert torch.equal(weights(resumed.pair), weights(whole.pair)) and resumed.elbo == whole.elbo
    with pytest.raises(ValueError, match=r"begun with devices 2, but now it is 1"):
        pg.fit(vae(), x, **{**settings("b", NoiseOfData(), resume=True), "devices": 1})


@pytest.mark.slow
def test_errors_come_as_they_are() -> None:
    with pytest.raises(ValueError, match=r"^fit: x has values outside its support \(min 0, max 2"):
        pg.fit(vae(), 2 * structured(32), num_epochs=1, devices=2, **SETTINGS)


def test_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="devices must be an int of at least 1, got 0"):
        pg.fit(vae(), structured(32), num_epochs=1, devices=0, **SETTINGS)
    with pytest.raises(ValueError, match="several devices cannot share an iterable of batches"):
        pg.fit(vae(), [structured(8)] * 2, num_epochs=1, devices=2, learning_rate=1e-2)
    with pytest.raises(TypeError, match="devices=2 sends objective to other processes"):
        pg.fit(vae(), structured(32), num_epochs=1, devices=2, **SETTINGS,
               objective=lambda *a, **k: pg.ELBO()(*a, **k))  # fmt: skip
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(
        ImportError, match=r"needs lightning-fabric: pip install 'probgen\[devices\]'"
    ):
        pg.fit(vae(), structured(32), num_epochs=1, devices=2, **SETTINGS)


@pytest.mark.slow
def test_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "probgen", "train", "vae", "--data", "digits", "--var",
               "z=normal:2", "--hidden", "8", "--epochs", "2", "--devices", "2", "--device", "cpu",
               "--run-dir", str(tmp_path / "run")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Written to" in done.stdout and "lightning" not in done.stderr.lower()
    config = pg.load_run(tmp_path / "run").config
    assert config["settings"]["devices"] == 2 and "--devices 2" in config["command"]
