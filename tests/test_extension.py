"""Extension by one file: a model and a family are trained, scored, saved, loaded, listed and drawn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_project import ROOT

FAMILY = '''"""Independent elements with Laplace noise."""

import pyro.distributions as dist
import torch

from probgen.families.base import Variable


class Laplace(Variable):
    """Independent Laplace elements of scale 1; networks return the location."""

    def distribution(self, loc):
        return dist.Laplace(loc, torch.ones_like(loc))
'''

MODEL = '''"""Two latents, one above the other."""

import pyro

from probgen.conditionals import Conditional
from probgen.pair import LatentVariableModel
from probgen.variables import Variable


class TwoLevels(LatentVariableModel):
    """p(z2) p(z1 | z2) p(x | z1), inferred by q(z1 | x) q(z2 | z1)."""

    def __init__(self, x: Variable, z1: Variable, z2: Variable, *, hidden=(20,)):
        super().__init__()
        self.p_z2 = Conditional(z2)
        self.p_z1 = Conditional(z1, {"z2": z2}, hidden=hidden)
        self.p_x = Conditional(x, {"z1": z1}, hidden=hidden)
        self.q_z1 = Conditional(z1.inferred(), {"x": x}, hidden=hidden)
        self.q_z2 = Conditional(z2.inferred(), {"z1": z1}, hidden=hidden)

    def model(self, x=None, z1=None, z2=None):
        with pyro.plate("data", self.batch_size(x=x, z1=z1, z2=z2), dim=-1):
            z2 = pyro.sample("z2", self.p_z2(), obs=z2)
            z1 = pyro.sample("z1", self.p_z1(z2=z2), obs=z1)
            return pyro.sample("x", self.p_x(z1=z1), obs=x)

    def guide(self, x=None, z1=None, z2=None):
        with pyro.plate("data", self.batch_size(x=x, z1=z1, z2=z2), dim=-1):
            if z1 is None:
                z1 = pyro.sample("z1", self.q_z1(x=x))
            if z2 is None:
                pyro.sample("z2", self.q_z2(z1=z1))
'''


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and of the contract test, with two more files in it."""
    folder = tmp_path_factory.mktemp("checkout")
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "probgen", folder / "probgen", ignore=skipped)
    (folder / "tests").mkdir()
    for name in ("__init__.py", "pairs.py", "test_contract.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)
    (folder / "probgen" / "families" / "laplace.py").write_text(FAMILY)
    (folder / "probgen" / "models" / "two_levels.py").write_text(MODEL)
    rows = np.random.default_rng(0).laplace(size=(60, 4)).astype("float32")
    np.save(folder / "rows.npy", rows)
    return folder


def run(checkout: Path, *command: str) -> str:
    """The output of a Python command in a process that imports the copy."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "COLUMNS": "120", "CI": "true"}
    done = subprocess.run(
        [sys.executable, *command], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def probgen(checkout: Path, *words: str) -> str:
    return run(checkout, "-m", "probgen", *words)


TRAIN = ("train", "two-levels", "--data", "rows.npy", "--var", "x=laplace", "--epochs", "2",
         "--no-compile", "-q", "--run-dir", "runs/both")  # fmt: skip


@pytest.mark.slow
def test_a_model_and_a_family_are_one_file_each(checkout: Path) -> None:
    """Found by the help, trained, resumed, scored, listed, shown, sampled from and drawn."""
    text = probgen(checkout, "train", "--help")
    assert "two-levels" in text and "laplace" in text
    trained = probgen(checkout, *TRAIN)
    assert "p(z2) p(z1 | z2) p(x | z1)" in trained and "Laplace(4)" in trained
    probgen(checkout, *TRAIN, "--resume")
    assert "density" in probgen(
        checkout, "evaluate", "runs/both", "--samples", "20", "--part", "train"
    )
    assert "TwoLevels" in probgen(checkout, "list")
    assert "class TwoLevels" in probgen(checkout, "show", "runs/both", "--source")
    assert "x (10, 4)" in probgen(checkout, "sample", "runs/both", "-n", "10")
    written = json.loads(probgen(checkout, "plot", "runs/both", "-q", "--json"))["written"]
    assert written and all((checkout / path).stat().st_size > 0 for path in written.values())
    config = json.loads((checkout / "runs/both/config.json").read_text())
    model = config.get("content", config)["model"]
    assert model["kind"] == "library" and model["class"] == "TwoLevels"
    assert model["arguments"]["x"] == {"variable": "laplace:4"}


@pytest.mark.slow
def test_both_are_public_and_in_the_contract_test(checkout: Path) -> None:
    code = (
        "import probgen as pg\n"
        "z = pg.Normal(2)\n"
        "assert pg.models.TwoLevels(pg.Laplace(4), z, z).sample(3)['x'].shape == (3, 4)\n"
        "pair = pg.declare('p(z) p(x | z)', 'q(z | x)', x=pg.Laplace(4), z=z)\n"
        "assert 'x = pg.Laplace(4)' in pair.source\n"
    )
    run(checkout, "-c", code)
    chosen = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_contract.py")
    found = run(checkout, *chosen, "-k", "two-levels and not label")
    assert " passed" in found, found


OWN = '''
import pyro.distributions as dist
import torch

import probgen as pg


@pg.register_family
class Laplace(pg.Variable):
    """Independent Laplace elements of scale 1; networks return the location."""

    def distribution(self, loc):
        return dist.Laplace(loc, torch.ones_like(loc))


@pg.register_model
class Wide(pg.models.VAE):
    """A VAE with one wide layer."""

    def __init__(self, x, z, *, width=30):
        super().__init__(x, z, hidden=(width,))
'''


def own(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "own.py").write_text(OWN)
    environment: Any = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "CI": "true"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_what_a_user_registers_is_saved_and_loaded(tmp_path: Path) -> None:
    """A process that registered both loads the run; another is told what to do, and imports nothing."""
    code = """
import numpy as np, torch, own, probgen as pg
x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
torch.manual_seed(0)
for name, pair in {
    "model": own.Wide(own.Laplace(3), pg.Normal(2), width=20),
    "declared": pg.declare("p(z) p(x | z)", "q(z | x)", x=own.Laplace(3), z=pg.Normal(2), hidden=(9,)),
}.items():
    pg.fit(pair, x, num_epochs=1, batch_size=20, run_dir=name, compile=False, progress=False)
    means = pg.encode(pair, x, device="cpu")["z"]
    again = pg.load_run(name).pair
    assert type(again).__name__ == type(pair).__name__
    assert torch.equal(pg.encode(again, x, device="cpu")["z"], means)
"""
    done = own(tmp_path, code)
    assert done.returncode == 0, done.stderr
    reading = "import probgen as pg, sys\ntry:\n    pg.load_run({!r})\nexcept pg.RunError as error:\n    print(error)\nassert 'own' not in sys.modules"
    for name, words in (
        ("model", "own.Wide, a model of your own that is not registered in this process"),
        ("declared", "unknown family 'laplace'"),
    ):
        refused = own(tmp_path, reading.format(name))
        assert refused.returncode == 0, refused.stderr
        assert words in refused.stdout and "register" in refused.stdout, refused.stdout
    loaded = own(tmp_path, "import own, probgen as pg\nprint(pg.load_run('model').pair)")
    assert "Laplace(3)" in loaded.stdout, loaded.stderr
