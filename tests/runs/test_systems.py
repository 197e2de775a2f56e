"""An autoencoder and a GAN as complete systems: run directory, resume, graphs, pictures, commands."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import probgen as pg
from probgen.reports.run import report
from probgen.storage.pair_json import pair_from_json, pair_to_json
from tests.fitting import QUICK

ROOT = Path(__file__).parent.parent.parent
SETTINGS: Any = {"batch_size": 16, "learning_rate": 1e-3, **QUICK}


def pixels(n: int = 64) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def autoencoder() -> Any:
    torch.manual_seed(0)
    return pg.models.Autoencoder(
        x=pg.Normal((1, 4, 4), scale=1.0), z=pg.Normal(2), hidden=(8,), encoder=pg.ConvEncoder
    )


def gan() -> Any:
    torch.manual_seed(0)
    return pg.models.GAN(x=pg.Bernoulli((1, 4, 4)), z=pg.Normal(2), hidden=(8,), activation=nn.ELU)


SYSTEMS: dict[str, Any] = {"autoencoder": autoencoder, "gan": gan}
EACH = pytest.mark.parametrize("build", SYSTEMS.values(), ids=SYSTEMS.keys())


def state(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(u, v) for u, v in zip(a, b, strict=True))


@EACH
def test_a_run_goes_on_to_the_bit_and_is_read_back(build: Any, tmp_path: Path) -> None:
    whole, parts, x = build(), build(), pixels()
    result = pg.fit(whole, x, num_epochs=5, run_dir=tmp_path / "whole", **SETTINGS)
    pg.fit(parts, x, num_epochs=2, run_dir=tmp_path / "parts", **SETTINGS)
    parts = build()
    again = pg.fit(parts, x, num_epochs=5, run_dir=tmp_path / "parts", resume=True, **SETTINGS)
    assert equal(state(whole), state(parts))
    assert again.elbo == result.elbo and again.metrics == result.metrics
    run = pg.load_run(tmp_path / "parts")
    assert equal(state(run.pair), state(parts)) and repr(run.pair) == repr(parts)
    assert run.result.metrics == result.metrics and run.result.quantity == result.quantity
    with open(tmp_path / "parts" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    for name, curve in result.metrics.items():
        assert [float(row[name]) for row in rows] == pytest.approx(curve)


@EACH
def test_graphs_give_the_same_weights(build: Any) -> None:
    written, captured, x = build(), build(), pixels().double()
    for model, compile in ((written, False), (captured, True)):
        pg.fit(model, x, num_epochs=3, compile=compile, precision="float64", **SETTINGS)
    for a, b in zip(state(written), state(captured), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-12)


@EACH
def test_recipes_build_the_model_again(build: Any) -> None:
    model = build()
    description = pair_to_json(model)
    assert description["kind"] == "library"
    assert repr(pair_from_json(description)) == repr(model)


def test_pictures_of_an_autoencoder_are_of_codes_and_reconstructions(tmp_path: Path) -> None:
    data = pg.Dataset({"x": pixels(), "y": torch.arange(64) % 2}).split(test=16)
    pg.fit(autoencoder(), data, num_epochs=2, run_dir=tmp_path / "run", **SETTINGS)
    made = report(pg.load_run(tmp_path / "run"), data=data)
    assert set(made.written) == {"learning_curve", "reconstructions", "latent_scatter"}
    assert all(path.stat().st_size for path in made.written.values())
    assert "not distributed like the prior" in made.skipped["samples"]
    assert "without a density" in made.skipped["importance_weights"]


def test_pictures_of_a_gan_are_samples_and_curves(tmp_path: Path) -> None:
    data = pg.Dataset({"x": pixels()}).split(test=16)
    pg.fit(gan(), data, num_epochs=2, run_dir=tmp_path / "run", **SETTINGS)
    made = report(pg.load_run(tmp_path / "run"), data=data)
    assert set(made.written) == {"learning_curve", "metrics", "samples"}
    assert "no density" in made.skipped["importance_weights"]


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
import probgen as pg
from tests.runs.test_systems import SETTINGS, gan, pixels
calls = 0
class Game(pg.Adversarial):
    def generator_value(self, *args, **named):
        global calls
        calls += 1
        if calls == {at}:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generator_value(*args, **named)
Game.__name__ = "Adversarial"
pg.fit(gan(), pixels(), num_epochs=4, objective=Game(), run_dir={folder!r}, resume=True, **SETTINGS)
"""


def test_a_gan_that_was_killed_between_its_players_goes_on_to_the_bit(tmp_path: Path) -> None:
    """SIGKILL after the critic's update of a batch and before the generator's."""
    whole = gan()
    pg.fit(whole, pixels(), num_epochs=4, objective=pg.Adversarial(), **SETTINGS)
    code = KILLED.format(root=str(ROOT), at=11, folder=str(tmp_path / "run"))
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    model = gan()
    result = pg.fit(
        model, pixels(), num_epochs=4, objective=pg.Adversarial(), run_dir=tmp_path / "run",
        resume=True, **SETTINGS,
    )  # fmt: skip
    assert len(result.elbo) == 4 and equal(state(model), state(whole))
