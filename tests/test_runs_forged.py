"""Run directories from anybody: what their files name is not run, not followed, not believed."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import probgen as pg
from probgen import cli
from probgen.files import read_record, write_record
from probgen.recipes import build
from tests.fitting import QUICK, structured, vae, weights

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")

MODEL = """
import pathlib
import probgen as pg

pathlib.Path({sentinel!r}).write_text("run")

def build():
    return pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(8,))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a library model, for every test to copy and to forge."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    pg.fit(vae(), structured(20), num_epochs=1, run_dir=folder, **QUICK)
    return folder


def forged(run: Path, folder: Path, **config: Any) -> Path:
    """A copy whose configuration says something else, under a checksum that fits."""
    shutil.copytree(run, folder)
    write_record(folder / "config.json", {**read_record(folder / "config.json"), **config})
    return folder


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["probgen", *words])
    status = 0
    try:
        cli.main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


# ---------------------------------------------------------------- code


def recipe_of_file(path: str, content: bytes, builder: str = "build") -> dict[str, str]:
    digest = hashlib.sha256(content).hexdigest()
    return {"kind": "file", "path": path, "builder": builder, "sha256": digest}


@pytest.mark.parametrize("place", ["{base}/away/m.py", "{run}/model.py", "{run}/../run/model.py",
                                   "model.py", "/proc/self/cwd/model.py"])  # fmt: skip
@pytest.mark.parametrize("how", ["load_run", "evaluate", "sample", "plot", "show", "list"])
def test_a_file_that_a_run_names_is_not_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, how: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Wherever it lies: its hash is the word of whoever wrote the configuration."""
    sentinel, content = tmp_path / "ran", MODEL.format(sentinel=str(tmp_path / "ran")).encode()
    path = place.format(base=tmp_path, run=tmp_path / "run")
    folder = forged(run, tmp_path / "run", model=recipe_of_file(path, content))
    (tmp_path / "away").mkdir()
    for file in (folder / "model.py", tmp_path / "away" / "m.py"):
        file.write_bytes(content)
    monkeypatch.chdir(folder)
    if how == "load_run":
        with pytest.raises(pg.RunError, match="is run only where you say so") as error:
            pg.load_run(folder)
        message = str(error.value)
    else:
        status, out, err = command(monkeypatch, capsys, how, str(folder))
        assert status == (0 if how in ("show", "list") else 2) and "Traceback" not in err
        message = out + err
    assert not sentinel.exists()
    if how != "list":
        for words in (path, hashlib.sha256(content).hexdigest(), "--trust-code", "--pair"):
            assert words in message
    assert torch.equal(
        weights(pg.load_run(folder, pair=vae()).pair), weights(pg.load_run(run).pair)
    )
    assert not sentinel.exists()
    pg.load_run(folder, trust_code=True)
    assert sentinel.exists()


def test_a_builder_of_the_standard_library_is_not_called(run: Path, tmp_path: Path) -> None:
    import os

    file = Path(os.__file__)
    recipe = recipe_of_file(str(file), file.read_bytes(), "abort")  # would end this process
    folder = forged(run, tmp_path / "run", model=recipe)
    with pytest.raises(pg.RunError, match=r"os\.py:abort \(SHA-256 "):
        pg.load_run(folder)
    for broken in ({"path": "/etc/passwd"}, {"builder": "a.b"}, {"sha256": 3}, {"path": None}):
        folder = forged(run, tmp_path / str(broken), model={**recipe, **broken})
        with pytest.raises(pg.RunError, match="does not say which Python file"):
            pg.load_run(folder, trust_code=True)


def test_what_needs_no_code_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sentinel, file = tmp_path / "ran", tmp_path / "mine.py"
    file.write_text(MODEL.format(sentinel=str(sentinel)))
    pair = pg.load_pair(f"{file}:build")
    pg.fit(pair, structured(20), num_epochs=2, run_dir=tmp_path / "run", **QUICK)
    own = pg.load_run(tmp_path / "run", pair=pair)
    own.save_score(pg.log_marginal_likelihood(own.pair, structured(9), num_samples=30), "few")
    sentinel.unlink()
    for name in [name for name in sys.modules if name.startswith("probgen_user_")]:
        del sys.modules[name]  # or else a file that was run is not run again
    status, out, err = command(monkeypatch, capsys, "show", str(tmp_path / "run"))
    assert status == 0 and not sentinel.exists(), err
    assert "few: log p(x)" in out and "completed after 2 epochs" in out
    assert "VAE, not built" in out and "--trust-code" in out
    status, out, _ = command(monkeypatch, capsys, "show", str(tmp_path / "run"), "--json")
    shown = json.loads(out)
    assert len(shown["curves"]["elbo"]) == 2 and shown["source"] == file.read_text()
    status, out, _ = command(monkeypatch, capsys, "show", str(tmp_path / "run"), "--source")
    assert out == file.read_text() + "\n" and not sentinel.exists()
    # Trusted, the command says what it runs; named by the user, it needs no trust.
    words = ("sample", str(tmp_path / "run"), "-n", "3")
    status, _, err = command(monkeypatch, capsys, *words, "--trust-code")
    assert status == 0 and f"Running {file}:build (SHA-256 " in err
    assert command(monkeypatch, capsys, *words, "--pair", f"{file}:build")[0] == 0
    file.write_text(file.read_text() + "\n")
    status, _, err = command(monkeypatch, capsys, *words, "--pair", f"{file}:build")
    assert status == 2 and "another version of" in err
    assert command(monkeypatch, capsys, *words, "--pair", f"{tmp_path}/run/model.py:build")[0] == 0


def test_trusted_code_takes_no_installed_module_from_beside_the_copy(tmp_path: Path) -> None:
    """A stranger's folder may hold a module under the name of an installed one."""
    file = tmp_path / "mine.py"
    file.write_text("import this_is_not_installed, colorsys\nimport probgen as pg\n"
                    "ready = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(8,))\n")  # fmt: skip
    (tmp_path / "this_is_not_installed.py").write_text("")
    pg.fit(
        pg.load_pair(f"{file}:ready"),
        structured(20),
        num_epochs=1,
        run_dir=tmp_path / "run",
        **QUICK,
    )
    file.unlink()
    (tmp_path / "run" / "this_is_not_installed.py").write_text("")
    (tmp_path / "run" / "colorsys.py").write_text("raise SystemExit('a stranger')\n")
    before = sys.modules.pop("colorsys", None)
    path = list(sys.path)
    try:
        pg.load_run(tmp_path / "run", trust_code=True)
        assert sys.path == path
        assert Path(sys.modules["colorsys"].__file__ or "").parent != tmp_path / "run"
    finally:
        if before is not None:
            sys.modules["colorsys"] = before


# ---------------------------------------------------------------- recipes

DECLARED: dict[str, Any] = {
    "kind": "declared", "p": "p(z) p(x | z)", "q": "q(z | x)", "hidden": [4],
    "variables": {"z": "normal:2", "x": "bernoulli:6"},
    "activation": {"activation": "Tanh"},
    "own": {"p_x": {"network": "MLP", "settings": {"hidden": [3]}},
            "q_z": {"network": "MLP", "settings": {"activation": {"activation": "ReLU"}}}},
}  # fmt: skip
CODE = (
    "__import__('os').system('true')", "x\n    import os", '"""; import os; """', "os.system",
    "z=__import__('os')", "p(x) import os", "x: print(1)", "{__import__('os')}", "lambda", "é",
    "__class__", "Tanh, __import__('os')", "normal:2'); print('", "normal:1:2e3:4", "normal:8:0x10",
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a text stands in a recipe, keys of dicts included."""
    if isinstance(value, dict):
        own = [(*path, ("key", key)) for key in value]
        return own + [found for key, part in value.items() for found in places(part, (*path, key))]
    if isinstance(value, list):
        return [found for index, part in enumerate(value) for found in places(part, (*path, index))]
    return [path]


def put(value: Any, path: tuple[Any, ...], text: Any) -> Any:
    changed = json.loads(json.dumps(value))
    place = changed
    for step in path[:-1]:
        place = place[step]
    last = path[-1]
    if isinstance(last, tuple):
        place[text] = place.pop(last[1])
    else:
        place[last] = text
    return changed


def test_no_text_of_a_recipe_becomes_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code in each place of a recipe: refused, or a source of names and numbers only."""
    module: Any = sys.modules["probgen.declare"]
    compiled: list[str] = []
    compile_source = module._compile

    def watched(source: str) -> Any:
        compiled.append(source)
        return compile_source(source)

    monkeypatch.setattr(module, "_compile", watched)
    build(DECLARED)
    words = set(re.findall(r"[A-Za-z_]\w*", compiled[0])) | {"ReLU", "scale"}
    tried = 0
    for path in places(DECLARED):
        for text in CODE:
            tried += 1
            with suppress(ValueError):
                build(put(DECLARED, path, text))
    assert tried > 200
    for source in compiled:
        assert set(re.findall(r"[A-Za-z_]\w*", source)) <= words, source
        calls = {
            ast.unparse(n.func) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)
        }
        allowed = {"super", "super().__init__", "pg.Normal", "pg.Bernoulli", "pg.Conditional", "pyro.sample",
                   "pyro.plate", "self.batch_size", "self.p_x", "self.p_z", "self.q_z", "z.inferred"}  # fmt: skip
        assert calls <= allowed
