"""The project itself: its layout, what importing does, and that the README's code runs."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source distribution holds no links")
def test_links_at_the_top_lead_into_the_package() -> None:
    for name in ("models", "inference"):
        link = ROOT / name
        assert link.is_symlink() and not link.readlink().is_absolute()
        assert link.resolve() == ROOT / "probgen" / name


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="there is nothing to compare with")
def test_the_source_distribution_holds_what_its_tests_need(tmp_path: Path) -> None:
    """Every tracked file, the links at the top and what only the repository needs aside."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    tracked = {name for name in listed.splitlines() if (ROOT / name).is_file()}
    tracked -= {".gitignore", ".ci/run"}
    for name in tracked:  # a copy, since building writes into the folder
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    build = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, check=True)
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as whole:
        held = {name.partition("/")[2] for name in whole.getnames()}
    assert tracked <= held, sorted(tracked - held)


def test_importing_changes_no_setting_and_stays_light() -> None:
    code = """
import sys, torch, pyro
def settings():
    return (pyro.settings.get(), torch.distributions.Distribution._validate_args,
            torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state().tolist())
before = settings()
import probgen, probgen.plots
for package in (probgen, probgen.plots):
    for name in package.__all__:
        if "ewLabels" not in name and name not in ("few_labels", "SemiSupervisedClassifier"):
            getattr(package, name)  # scikit-learn's classifier needs scikit-learn
assert settings() == before
heavy = {"matplotlib", "arviz", "sklearn", "rich", "pooch", "xarray", "pandas"} & set(sys.modules)
assert not heavy, heavy
assert not dict(pyro.get_param_store().items())
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_documented() -> None:
    import probgen as pg

    for name in pg.__all__:
        assert (getattr(pg, name).__doc__ or "").strip(), name


@pytest.mark.parametrize("package", ["probgen", "probgen.models", "probgen.plots"])
def test_every_public_name_has_an_example(package: str) -> None:
    """Doctest runs the examples. Packages among the names are cases of their own."""
    module = importlib.import_module(package)
    public = {name: getattr(module, name) for name in module.__all__}
    documented = {
        name: part
        for name, part in public.items()
        if not inspect.ismodule(part) and part.__module__.startswith("probgen.")
    }  # without models that other tests register
    missing = [name for name, part in documented.items() if ">>>" not in own_docstring(part)]
    assert documented and not missing, missing


def own_docstring(part: Any) -> str:
    """The docstring of a function, or of a class itself and not of the class above it."""
    text = vars(part).get("__doc__") if inspect.isclass(part) else part.__doc__
    return text or ""


def blocks(file: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("file", ["README.md"])
def test_python_in_the_readme_runs(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks(file)
    assert found
    for block in found:
        # The same code on a budget of two epochs and few samples.
        quick = re.sub(r"num_epochs=\d+", "num_epochs=2", block)
        quick = quick.replace("random_state=0)", "random_state=0, num_epochs=2)")
        quick = re.sub(r"num_samples=\d+", "num_samples=30", quick)
        code = "import warnings\nwarnings.simplefilter('ignore')\n" + quick
        exec(compile(code, file, "exec"), {"__name__": "readme"})


def test_the_digits_experiment_writes_what_it_says(tmp_path: Path) -> None:
    """The main job on a budget of three epochs: exit status, table, figures."""
    command = [sys.executable, "-m", "experiments.digits", "--out", str(tmp_path)]
    command += ["--epochs", "3", "--samples", "50"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    written = done.stdout.split("Written:")[1].split()
    assert len(written) == 7
    for path in written:
        assert Path(path).stat().st_size > 0, path
    table = (tmp_path / "table.txt").read_text()
    for row in ("VAE", "PPCA", "Gaussian mixture", "density of x", "log-Jacobian"):
        assert row in table


def test_corrections_are_held_by_tests_that_exist() -> None:
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", (ROOT / "docs" / "corrections.md").read_text())
    assert len(named) >= 60
    for file, test in named:
        (path,) = (ROOT / "tests").rglob(file)
        assert f"def {test}(" in path.read_text(), (file, test)


@pytest.mark.parametrize(("name", "pictures"), [("autoencoders", 1), ("gan", 4)])
def test_experiments_write_what_they_say(name: str, pictures: int, tmp_path: Path) -> None:
    """On a budget of two epochs: exit status, table, pictures."""
    command = [sys.executable, "-m", f"experiments.{name}", "--out", str(tmp_path), "--epochs", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    written = done.stdout.split("Written:")[1].split()
    assert len(written) == pictures
    for path in written:
        assert Path(path).stat().st_size > 0, path
    if name == "autoencoders":
        assert "there is no ELBO" in done.stdout and "Squared error per pixel" in done.stdout
    else:
        assert "D(G(z))" in done.stdout and "PointMass(Bernoulli(64))" in done.stdout
