"""A run that is killed, and a run directory whose bytes flip."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import probgen as pg
from probgen.storage.files import RunError
from tests.attacks import kills
from tests.fitting import QUICK, structured

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")

KILLS = 6
FLIPS = 20


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_kills_at_random_leave_no_trace() -> None:
    """Killed at random moments and resumed each time: the weights of the run left alone."""
    found = kills.attack(KILLS, seed=0)
    assert found.count == KILLS and not found.wrong


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every kind of file: weights, checkpoint, metrics, a score, pictures, code."""
    base = tmp_path_factory.mktemp("flip")
    file = base / "my_model.py"
    file.write_text("import probgen as pg\n\ndef build():\n    return pg.models.VAE("
                    "x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,))\n")  # fmt: skip
    np.save(base / "data.npy", structured(60).numpy())
    data = pg.load(base / "data.npy")
    pg.fit(pg.load_pair(f"{file}:build"), data, num_epochs=2, run_dir=base / "run", **QUICK)
    run = pg.load_run(base / "run", trust_code=True)
    assert data.test is not None
    run.save_score(pg.log_marginal_likelihood(run.pair, data.test, num_samples=30), "test-K30")
    pg.plots.report(run)
    return base / "run"


def _observe(folder: Path) -> dict[str, Any]:
    """All that a reader learns from a run directory."""
    run = pg.load_run(folder, trust_code=True)
    scores = {
        name: (repr(s), s.log_prob.tolist(), s.khat.tolist(), s.ess.tolist())
        for name, s in run.scores.items()
    }
    weights = {name: tensor.tolist() for name, tensor in run.pair.state_dict().items()}
    progress = {k: v for k, v in vars(run.result).items() if k != "pair"}
    return {"weights": weights, "scores": scores, "config": run.config, "progress": progress}


def _resume(folder: Path) -> dict[str, Any]:
    """What going on for one epoch learns."""
    pair = pg.load_pair(f"{folder.parent / 'my_model.py'}:build")
    result = pg.fit(pair, pg.load(folder.parent / "data.npy"), num_epochs=3, run_dir=folder,
                    resume=True, **QUICK)  # fmt: skip
    weights = {name: tensor.tolist() for name, tensor in pair.state_dict().items()}
    return {"weights": weights, "elbo": result.elbo}


def _flips(path: Path, seed: int) -> Iterator[bytes]:
    content, rng = path.read_bytes(), random.Random(seed)
    for _ in range(FLIPS):
        changed = bytearray(content)
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        yield bytes(changed)


FILES = (
    "config.json", "weights.safetensors", "checkpoint.safetensors", "metrics.csv", "model.py",
    "scores/test-K30.safetensors", "figures/learning_curve.png", "figures/importance_weights.png",
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_flipped_bytes_are_refused_or_harmless(whole: Path, tmp_path: Path, name: str) -> None:
    """Never a wrong number, never code executed: each outcome is a reason or the same answer."""
    base = tmp_path / "base"
    shutil.copytree(whole.parent, base)
    # The original file is where the configuration says: in the fixture's folder.
    looks: list[Callable[[Path], dict[str, Any]]] = [_observe]
    if name == "checkpoint.safetensors":
        looks.append(_resume)
    refused = 0
    for look in looks:
        reference = tmp_path / "reference"
        shutil.copytree(base, reference)
        expected = look(reference / "run")
        shutil.rmtree(reference)
        for content in _flips(base / "run" / name, seed=len(name)):
            trial = tmp_path / "trial"
            shutil.copytree(base, trial)
            (trial / "run" / name).write_bytes(content)
            try:
                assert look(trial / "run") == expected, name
            except RunError as error:
                assert str(trial / "run") in str(error)
                refused += 1
            shutil.rmtree(trial)
    if name.endswith((".safetensors", ".json", ".csv")) and name != "checkpoint.safetensors":
        assert refused == FLIPS
    if name == "checkpoint.safetensors":
        assert refused == FLIPS  # by resuming; reading takes the weights' own file


def test_the_copy_of_the_code_is_run_only_if_it_is_the_copy(whole: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(whole.parent, base)
    original = whole.parent / "my_model.py"
    hidden = original.with_suffix(".away")
    original.rename(hidden)
    try:
        assert _observe(base / "run")
        for content in _flips(base / "run" / "model.py", seed=1):
            (base / "run" / "model.py").write_bytes(content)
            with pytest.raises(RunError, match="does not match either"):
                pg.load_run(base / "run", trust_code=True)
    finally:
        hidden.rename(original)


def test_half_written_files(whole: Path, tmp_path: Path) -> None:
    """What a crash without atomic writes would have left: every file cut short at any place."""
    rng = random.Random(0)
    for name in FILES[:4]:
        for _ in range(5):
            trial = tmp_path / "trial"
            shutil.copytree(whole.parent, trial)
            content = (trial / "run" / name).read_bytes()
            (trial / "run" / name).write_bytes(content[: rng.randrange(len(content))])
            try:
                assert _observe(trial / "run") == _observe(whole)
            except RunError as error:
                assert name in str(error)
            shutil.rmtree(trial)
