"""Run directories from anybody: what their files name is not run, not followed, not believed."""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import probgen as pg
from probgen.basics.progress import Progress
from probgen.cli import main as cli
from probgen.inference.training.recorder import Recorder
from probgen.storage.files import read_record, read_tensors, write_record, write_tensors
from probgen.storage.pair_json import pair_from_json
from tests.fitting import QUICK, structured, vae, weights
from tests.forging import (
    CODE,
    DECLARED,
    ESCAPE,
    HUGE,
    MODEL,
    alarm,
    forged,
    places,
    put,
    recipe_of_file,
)

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a library model, for every test to copy and to forge."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    pg.fit(vae(), structured(20), num_epochs=1, run_dir=folder, **QUICK)
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
        with pytest.raises(pg.RunError, match="is run only if you allow it") as error:
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
        with pytest.raises(pg.RunError, match="does not state which Python file"):
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


def test_no_text_of_a_recipe_becomes_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code in each place of a recipe: refused, or a source of names and numbers only."""
    module: Any = sys.modules["probgen.declare"]
    compiled: list[str] = []
    compile_source = module._compile

    def watched(source: str) -> Any:
        compiled.append(source)
        return compile_source(source)

    monkeypatch.setattr(module, "_compile", watched)
    pair_from_json(DECLARED)
    words = set(re.findall(r"[A-Za-z_]\w*", compiled[0])) | {"ReLU", "scale"}
    tried = 0
    for path in places(DECLARED):
        for text in CODE:
            tried += 1
            with suppress(ValueError):
                pair_from_json(put(DECLARED, path, text))
    assert tried > 200
    for source in compiled:
        assert set(re.findall(r"[A-Za-z_]\w*", source)) <= words, source
        calls = {
            ast.unparse(n.func) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)
        }
        allowed = {"super", "super().__init__", "pg.Normal", "pg.Bernoulli", "pg.Conditional", "pyro.sample",
                   "pyro.plate", "self.batch_size", "self.p_x", "self.p_z", "self.q_z", "z.inferred"}  # fmt: skip
        assert calls <= allowed


# ---------------------------------------------------------------- links, pipes, sizes


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder and its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_text(errors="replace")
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_nothing_is_written_through_a_link(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files are replaced and folders refused; what a link led to is as it was."""
    shutil.copytree(run, tmp_path / "run")
    folder, victim = tmp_path / "run", tmp_path / "victim"
    victim.mkdir()
    for name in (".lock", "metrics.csv", "samples.npz", "weights.safetensors", "config.json"):
        (victim / name).write_bytes(b"dear")
        if (folder / name).exists() and name != "metrics.csv":
            shutil.copy(folder / name, victim / name)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(victim / name)
    (folder / "metrics.csv").unlink()
    for name in ("scores", "figures"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (victim / name).mkdir()
        (folder / name).symlink_to(victim / name)
    before = tree(victim)
    read = pg.load_run(folder)  # reading follows links
    score = pg.log_marginal_likelihood(read.pair, structured(9), num_samples=30)
    with pytest.raises(pg.RunError, match="scores is a link"):
        read.save_score(score, "few")
    words = {"sample": 0, "plot": 2, "show": 0, "list": 0}
    for word, expected in words.items():
        status, _, err = command(monkeypatch, capsys, word, str(folder))
        assert status == expected, err
    with pytest.raises(pg.RunError, match="figures is a link"):
        pg.fit(vae(), structured(20), num_epochs=2, run_dir=folder, resume=True, **QUICK)
    assert tree(victim) == before
    assert len(pg.load_run(folder).result.elbo) == 2  # the training itself was kept
    assert not (folder / "config.json").is_symlink()


def test_deleting_a_file_does_not_let_a_second_process_in(tmp_path: Path) -> None:
    first = Recorder(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(pg.RunError, match="another process trains in it"):
        Recorder(tmp_path)
    first.close()
    Recorder(tmp_path).close()


def test_a_file_system_that_cannot_lock_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS: the file in it is locked, not emptied, and not followed."""
    fcntl = pytest.importorskip("fcntl")
    real = fcntl.flock

    def flock(handle: int, how: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / ".lock").write_text("kept")
    first = Recorder(tmp_path)
    with pytest.raises(pg.RunError, match="another process trains in it"):
        Recorder(tmp_path)
    first.close()
    assert (tmp_path / ".lock").read_text() == "kept"
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    Recorder(tmp_path).close()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize(
    "name", ["config.json", "weights.safetensors", "checkpoint.safetensors", "metrics.csv",
             "scores/few.safetensors", "model.py"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device", "huge", "folder"])
def test_odd_files_neither_hang_nor_end_the_list(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str, kind: str,
) -> None:  # fmt: skip
    shutil.copytree(run, tmp_path / "runs" / "a")
    shutil.copytree(run, tmp_path / "runs" / "b")
    path = tmp_path / "runs" / "a" / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        path.touch()
        os.truncate(path, 2**42)
    else:
        path.mkdir()
    with alarm(20):
        status, out, err = command(monkeypatch, capsys, "list", str(tmp_path / "runs"))
        assert status == 0 and f"{tmp_path / 'runs' / 'b'} " in out, err
        if name == "config.json":
            assert "cannot be read" in out or "are read" in out
        status, out, err = command(monkeypatch, capsys, "show", str(tmp_path / "runs" / "a"))
        assert status in (0, 2) and "Traceback" not in err
        if name == "scores/few.safetensors":
            assert status == 0 and "score     few: cannot be read: " in out


def test_a_list_goes_on_over_what_cannot_be_read(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong types, too many digits, too deep: each a line with its reason."""
    whole = read_record(run / "config.json")
    odd: dict[str, Any] = {
        "digits": b'{"run": ' + b"9" * 5000 + b"}",
        "deep": b'{"run":' + b"[" * 100_000,
        "name": {**whole, "name": 3},
        "data": {**whole, "data": {"train": [], "source": None}},
        "versions": {**whole, "versions": {"probgen": {"a": []}}},
        "settings": {**whole, "settings": []},
        "resumed": {**whole, "resumed": True},
        "size": {**whole, "data": {**whole["data"], "train": {"name": "x", "size": "1", "hash": "0"}}},
    }  # fmt: skip
    for name, content in odd.items():
        shutil.copytree(run, tmp_path / name)
        if isinstance(content, bytes):
            (tmp_path / name / "config.json").write_bytes(content)
        else:
            write_record(tmp_path / name / "config.json", content)
    progress: dict[str, dict[str, Any]] = {"best": {"best_epoch": 7}, "curve": {"elbo": ["a"]}, "none": {"elbo": None},
                         "stopped": {"stopped": "x"}, "device": {"device": 3}}  # fmt: skip
    for name, change in progress.items():
        odd[name] = change
        shutil.copytree(run, tmp_path / name)
        path = tmp_path / name / "weights.safetensors"
        tensors, record = read_tensors(path)
        write_tensors(path, tensors, {**record, "progress": {**record["progress"], **change}})
    status, out, err = command(monkeypatch, capsys, "list", str(tmp_path))
    assert status == 0 and out.count("  damaged: ") == len(odd), out + err
    for name in odd:
        status, _, err = command(monkeypatch, capsys, "show", str(tmp_path / name))
        assert status == 2 and "Traceback" not in err and len(err) < 1000
        with pytest.raises(pg.RunError):
            pg.load_run(tmp_path / name)


def test_names_are_printed_and_not_obeyed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = read_record(run / "config.json")
    data = {**whole["data"], "train": {**whole["data"]["train"], "name": ESCAPE,
                                       "transformations": {"x": ESCAPE}}}  # fmt: skip
    folder = forged(run, tmp_path / "runs" / "a\x1b[31m", name=ESCAPE, command=ESCAPE, data=data,
                    settings={**whole["settings"], ESCAPE: ESCAPE})  # fmt: skip
    for words in (("list", str(tmp_path)), ("show", str(folder)), ("evaluate", str(folder)),
                  ("show", str(tmp_path / ESCAPE)), ("sample", str(folder), "--out", f"{tmp_path}/{ESCAPE}.npz")):  # fmt: skip
        _, out, err = command(monkeypatch, capsys, *words)
        assert r"\x1b[31m" in out + err
        assert not set("\x1b\x07\x9b\r\u202e") & set(out + err), words
        if words in (("list", str(tmp_path)), ("show", str(folder))):
            assert not any(line.startswith("b  done") for line in out.splitlines())
    assert "\x1b" not in repr(pg.load_run(folder))


def test_a_progress_bar_takes_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    import io

    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    title = "fit [red]a[/red] [link=http://x]b[/link] [/nothing] \x1b]0;t\x07"
    with Progress(title, 3, console=console) as bar:
        bar.update(1, "[bold]c")
    written = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert r"fit [red]a[/red] [link=http://x]b[/link] [/nothing] \x1b]0;t\x07" in written
    assert "[bold]c" in written and "\x1b]8;" not in stream.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space")
def test_sizes_are_compared_before_memory_is_taken(run: Path, tmp_path: Path) -> None:
    """Each refused with words, in a process that may take half a gigabyte more than it has."""
    for name, changes in HUGE.items():
        forged(run, tmp_path / name, model={**DECLARED, "hidden": [8], "own": {}, **changes})
    code = """
import pathlib, resource, sys
import probgen as pg
import probgen.runs.reading, probgen.declare
now = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2**29, now + 2**29))
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        pg.load_run(path)
    except pg.RunError as error:
        print(path.name, len(str(error)))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert found.keys() == HUGE.keys()
    assert all(15 < int(length) < 3000 for length in found.values()), found
