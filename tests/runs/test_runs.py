"""Run directories: what is in them, resuming, and reading them back."""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import Tensor

import probgen as pg
from probgen.pair import is_summable
from tests.fitting import QUICK, structured, vae, weights
from tests.pairs import CASES, HandM2, binary, labels

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")

SETTINGS: Any = {"batch_size": 8, "learning_rate": 1e-2, **QUICK}


def curves(result: pg.FitResult) -> dict[str, Any]:
    return {k: v for k, v in vars(result).items() if k not in ("pair", "seconds")}


class Stops(torch.nn.Module):
    """A network with dropout that is interrupted at its call number `at` in training."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 8),
            torch.nn.BatchNorm1d(8),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(8, 4),
        )
        self.calls, self.at = 0, at

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        if self.training and self.calls == self.at:
            raise KeyboardInterrupt
        out: Tensor = self.layers(x)
        return out


def stopping(at: int | None) -> pg.LatentVariableModel:
    torch.manual_seed(3)
    return pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,), encoder=Stops(at))


SETUPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "validation and patience": {"validation": structured(24), "patience": 20},
    "warm-up": {"objective": pg.ELBO(2, warmup_epochs=5)},
    "cosine": {"scheduler": partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=9)},
    "plateau": {"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau, "validation": structured(16)},
    "momentum": {"optimizer": partial(torch.optim.SGD, lr=1e-2, momentum=0.9)},
    "float64": {"precision": "float64"},
    "redrawn": {"data": pg.Dataset({"x": 0.1 + 0.8 * structured(40)}).binarized("dynamic")},
}  # fmt: skip


@pytest.mark.parametrize("name", SETUPS)
def test_an_interrupted_run_goes_on_to_the_same_weights(name: str, tmp_path: Path) -> None:
    setup = {"data": structured(40), **SETTINGS, **SETUPS[name]}
    data = setup.pop("data")
    alone = stopping(None)
    whole = pg.fit(alone, data, num_epochs=9, **setup)
    cut = pg.fit(stopping(18), data, num_epochs=9, run_dir=tmp_path, **setup)  # in epoch 4
    assert cut.stopped == "interrupted" and len(cut.elbo) == 3
    again = stopping(None)
    result = pg.fit(again, data, num_epochs=9, run_dir=tmp_path, resume=True, **setup)
    assert result.stopped == "completed" and curves(result) == curves(whole)
    assert all(torch.equal(again.state_dict()[n], t) for n, t in alone.state_dict().items())
    read = pg.load_run(tmp_path, pair=stopping(None))
    assert all(torch.equal(read.pair.state_dict()[n], t) for n, t in alone.state_dict().items())
    assert curves(read.result) == curves(whole) and not read.pair.training


def test_what_a_run_directory_holds(tmp_path: Path) -> None:
    pair, folder = vae(), tmp_path / "deep" / "run"
    result = pg.fit(pair, structured(40), num_epochs=4, validation=structured(8), run_dir=folder,
                    seed=5, **SETTINGS)  # fmt: skip
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names == {
        "config.json", "checkpoint.safetensors", "weights.safetensors", "metrics.csv",
        "figures/learning_curve.png",
    }  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["seed"] == 5 and config["settings"]["learning_rate"] == 1e-2
    assert config["versions"]["torch"] == torch.__version__
    assert config["command"] == shlex.join(sys.orig_argv)
    assert len(config["data"]["train"]["hash"]) == 12
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [float(row["elbo"]) for row in rows] == result.elbo
    assert [float(row["validation_elbo"]) for row in rows] == result.validation_elbo
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert {float(row["learning_rate"]) for row in rows} == {1e-2}
    for path in folder.glob("*.safetensors"):
        assert safetensors.numpy.load_file(path)  # numbers and nothing else


@pytest.mark.parametrize("name", CASES)
def test_every_pair_is_read_back(name: str, tmp_path: Path) -> None:
    """Declared and library pairs, in a state dict that fits to the bit."""
    case = CASES[name]
    torch.manual_seed(1)
    pair, data = case.build(), case.data(12)
    pg.fit(pair, data, num_epochs=1, run_dir=tmp_path, **QUICK)
    run = pg.load_run(tmp_path)
    assert repr(run.pair) == repr(pair)
    now = {n: t for n, t in pair.state_dict().items()}
    assert all(torch.equal(run.pair.state_dict()[n], t) for n, t in now.items())
    if pair.objective == "elbo":
        a, b = (pg.log_marginal_likelihood(p, data, num_samples=30) for p in (pair, run.pair))
        assert np.array_equal(a.log_prob, b.log_prob)
    else:  # a point mass has no weights
        codes = [pg.encode(p, data)["z"] for p in (pair, run.pair)]
        assert torch.equal(codes[0], codes[1])
    assert pair.name in repr(run)


def test_another_process_reads_a_run(tmp_path: Path) -> None:
    data = pg.load("digits", transform="static")
    torch.manual_seed(0)
    pair = pg.declare("p(z) p(x | z)", "q(z | x)", z=pg.Normal(2), x=pg.Bernoulli(64), hidden=(8,))
    pg.fit(pair, data, num_epochs=2, run_dir=tmp_path / "run", progress=False)
    assert data.test is not None
    score = pg.log_marginal_likelihood(pair, data.test, num_samples=40, seed=1)
    pg.load_run(tmp_path / "run").save_score(score, "test-K40")
    code = """
import sys, warnings
warnings.simplefilter("ignore")
import probgen as pg
from probgen.pair import is_summable
run = pg.load_run(sys.argv[1])
score = pg.log_marginal_likelihood(run.pair, run.load_data().test, num_samples=40, seed=1)
saved = run.scores["test-K40"]
assert (score.log_prob == saved.log_prob).all() and (score.khat == saved.khat).all()
assert repr(score) == repr(saved) and run.data["test"]["size"] == 360
print(repr(score.mean))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) == score.mean


USER_FILE = """
import probgen as pg
from probgen.pair import is_summable
from helper import SIZE

def build():
    return pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(SIZE), hidden=(4,), encoder=pg.MLP([(6,)], (2, SIZE), ()))
"""


def user_run(tmp_path: Path) -> tuple[Path, pg.LatentVariableModel, Path]:
    (tmp_path / "code").mkdir()
    file = tmp_path / "code" / "my_model.py"
    file.write_text(USER_FILE)
    (tmp_path / "code" / "helper.py").write_text("SIZE = 2\n")
    before = list(sys.path)
    pair = pg.load_pair(f"{file}:build")
    assert sys.path == before
    pg.fit(pair, structured(16), num_epochs=1, run_dir=tmp_path / "run", **QUICK)
    return tmp_path / "run", pair, file


def test_pairs_from_a_users_file(tmp_path: Path) -> None:
    folder, pair, file = user_run(tmp_path)
    trusting = partial(pg.load_run, folder, trust_code=True)
    assert torch.equal(weights(trusting().pair), weights(pair))
    assert torch.equal(weights(pg.load_run(folder, pair=pair).pair), weights(pair))
    assert (folder / "model.py").read_text() == USER_FILE
    file.write_text(USER_FILE + "raise SystemExit('run')\n")
    with pytest.raises(pg.RunError, match=r"cannot be built|No module named 'helper'"):
        trusting()  # the copy, whose helper lies elsewhere
    (folder / "helper.py").write_text("SIZE = 2\n")
    assert torch.equal(weights(trusting().pair), weights(pair))
    (folder / "model.py").write_text(USER_FILE + "raise SystemExit('run')\n")
    with pytest.raises(pg.RunError, match=r"has changed since.*does not match either.*--pair"):
        trusting()
    file.unlink()
    with pytest.raises(pg.RunError, match=r"does not exist any more.*does not match either"):
        trusting()
    assert torch.equal(weights(pg.load_run(folder, pair=pair).pair), weights(pair))


def test_a_pair_written_by_hand_is_given(tmp_path: Path) -> None:
    data = {"x": binary(12), "y": labels(12)}
    pair = HandM2()
    pg.fit(pair, data, num_epochs=1, run_dir=tmp_path, **QUICK)
    with pytest.raises(pg.RunError, match=r"HandM2, which only its author's code can build.*pair="):
        pg.load_run(tmp_path)
    assert torch.equal(weights(pg.load_run(tmp_path, pair=HandM2()).pair), weights(pair))
    with pytest.raises(pg.RunError, match=r"HandM2.* was trained, .*VAE.* was given"):
        pg.load_run(tmp_path, pair=vae())


def test_a_pair_whose_parts_were_exchanged_is_not_built_wrongly(tmp_path: Path) -> None:
    """The recipe would build tanh where the pair has ReLU, with weights that fit."""
    pair = vae()
    pair.q_z = pg.Conditional(
        pg.Normal(2), {"x": pg.Bernoulli(6)}, hidden=(8,), activation=torch.nn.ReLU
    )
    pg.fit(pair, structured(16), num_epochs=1, run_dir=tmp_path, **QUICK)
    with pytest.raises(pg.RunError, match="only its author's code can build"):
        pg.load_run(tmp_path)


def test_a_subclass_of_a_library_model_is_not_the_library_model(tmp_path: Path) -> None:
    class Mine(pg.models.VAE):
        pass

    pair = Mine(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,))
    pg.fit(pair, structured(16), num_epochs=1, run_dir=tmp_path, **QUICK)
    with pytest.raises(pg.RunError, match="Mine, which only"):
        pg.load_run(tmp_path)


def test_more_epochs_and_early_stops(tmp_path: Path) -> None:
    def make(folder: str | None, epochs: int, **settings: Any) -> pg.FitResult:
        more: dict[str, Any] = (
            {} if folder is None else {"run_dir": tmp_path / folder, "resume": True}
        )
        return pg.fit(vae(), structured(40), num_epochs=epochs, **SETTINGS, **settings, **more)

    whole = make(None, 7)
    assert len(make("a", 3).elbo) == 3  # resume begins a run where there is none
    longer = make("a", 7)
    assert curves(longer) == curves(whole)
    assert torch.equal(weights(longer.pair), weights(whole.pair))
    assert len(pg.load_run(tmp_path / "a").config["resumed"]) == 1
    assert curves(make("a", 7)) == curves(whole)  # nothing left to do

    held = {"validation": structured(8), "patience": 2}
    never: Any = {**held, "learning_rate": 1e-9}
    first = pg.fit(vae(), structured(40), num_epochs=50, run_dir=tmp_path / "b", batch_size=8,
                   **never, **QUICK)  # fmt: skip
    assert first.stopped == "early"
    read = pg.load_run(tmp_path / "b")
    assert read.result.stopped == "early" and "early" in repr(read)
    again = pg.fit(vae(), structured(40), num_epochs=50, run_dir=tmp_path / "b", batch_size=8,
                   resume=True, **never, **QUICK)  # fmt: skip
    assert again.stopped == "early" and curves(again) == curves(first)


def test_a_run_can_be_read_while_it_goes_on(tmp_path: Path) -> None:
    seen: list[int] = []

    def objective(pair: Any, data: Any, **settings: Any) -> Tensor:
        if torch.is_grad_enabled() and not seen and (tmp_path / "metrics.csv").exists():
            run = pg.load_run(tmp_path)
            if len(run.result.elbo) == 2:
                seen.append(run.result.best_epoch)
                with pytest.raises(pg.RunError, match="another process trains in it"):
                    pg.fit(
                        vae(),
                        structured(40),
                        num_epochs=2,
                        run_dir=tmp_path,
                        resume=True,
                        **SETTINGS,
                    )
        return pg.ELBO()(pair, data, **settings)

    pg.fit(vae(), structured(40), num_epochs=4, run_dir=tmp_path, objective=objective, **SETTINGS)
    assert seen == [2]


def test_scores_belong_to_the_weights_that_they_score(tmp_path: Path) -> None:
    pair = vae()
    pg.fit(pair, structured(40), num_epochs=1, run_dir=tmp_path, **SETTINGS)
    run = pg.load_run(tmp_path)
    score = pg.log_marginal_likelihood(run.pair, structured(9), num_samples=50)
    run.save_score(score, "few")
    assert np.array_equal(pg.load_run(tmp_path).scores["few"].ess, score.ess)
    assert "few: log p(x)" in repr(pg.load_run(tmp_path))
    with pytest.raises(ValueError, match="not a plain file name"):
        run.save_score(score, "../few")
    pg.fit(vae(), structured(40), num_epochs=2, run_dir=tmp_path, resume=True, **SETTINGS)
    assert not pg.load_run(tmp_path).scores


@pytest.mark.gpu
def test_a_run_on_a_gpu_goes_on_there_and_on_a_cpu(tmp_path: Path) -> None:
    def make(folder: str | None, epochs: int, device: str) -> Tensor:
        more: dict[str, Any] = (
            {} if folder is None else {"run_dir": tmp_path / folder, "resume": True}
        )
        pair = vae()
        pg.fit(pair, structured(40), num_epochs=epochs, batch_size=8, learning_rate=1e-2,
               device=device, progress=False, **more)  # fmt: skip
        return weights(pair).cpu()

    whole = make(None, 6, "cuda")
    make("a", 3, "cuda")
    assert torch.allclose(make("a", 6, "cuda"), whole, rtol=1e-4, atol=1e-5)
    assert torch.equal(weights(pg.load_run(tmp_path / "a").pair), make("a", 6, "cuda"))
    make("b", 3, "cuda")
    assert torch.isfinite(make("b", 6, "cpu")).all()


@pytest.mark.parametrize("family", [pg.Categorical(3), pg.Bernoulli(())])
def test_a_mixture_is_read_by_a_process_that_has_built_none(
    family: pg.Variable, tmp_path: Path
) -> None:
    pair = pg.declare("p(y) p(x | y)", hidden=(), y=family, x=pg.Bernoulli(4))
    x = (torch.rand(12, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    pg.fit(pair, x, num_epochs=1, run_dir=tmp_path / "run", progress=False)
    is_summable.cache_clear()  # as in a new process
    again = pg.load_run(tmp_path / "run").pair
    for name, value in pair.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    is_summable.cache_clear()
    with torch.device("meta"):
        assert is_summable(family) and not is_summable(pg.Normal(()))
