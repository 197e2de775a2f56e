"""Files and folders that cannot be used: one message with the way out, status 2, nothing lost."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import probgen as pg
import probgen.reports.few_labels  # before permissions are given up, which modules need too
from probgen.cli import main as cli
from probgen.plots import report
from tests.forging import forged

TRAIN = ("train", "vae", "--epochs", "1", "--hidden", "4", "-q", "--data")
CLASSIFY = ("classify", "--data", "digits", "--labels", "10", "--seeds", "1", "--epochs", "1",
            "--hidden", "4", "--method", "m2", "-q", "--out")  # fmt: skip


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that anybody may enter, with data, a run, and what may not be read or written."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    x = np.random.default_rng(0).random((40, 3)).round(3)
    for name in ("open", "closed"):
        np.save(made / f"{name}.npy", x)
        np.savez(made / f"{name}.npz", x=x)
        np.savetxt(made / f"{name}.csv", x, delimiter=",")
    (made / "folder.csv").mkdir()
    vae = pg.models.VAE(x=pg.Normal(3), z=pg.Normal(1), hidden=(4,))
    pg.fit(vae, pg.load(made / "open.npy"), num_epochs=1, run_dir=made / "run", progress=False)
    shutil.copytree(made / "run", made / "hidden")
    report(pg.load_run(made / "run"), folder=made / "figures", progress=False)
    for path in (*made.glob("closed.*"), made / "hidden"):
        path.chmod(0)
    (made / "kept").mkdir(mode=0o555)
    yield made
    (made / "hidden").chmod(0o755)
    shutil.rmtree(made)


@contextmanager
def without_rights() -> Iterator[None]:
    am_root = os.name == "posix" and os.geteuid() == 0
    if am_root:  # who may do anything
        os.seteuid(65534)
    try:
        yield
    finally:
        if am_root:
            os.seteuid(0)


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    """What a command says that ends with status 2."""
    monkeypatch.setattr(sys, "argv", ["probgen", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and not out and len(err.splitlines()) <= 2, err
    assert err.startswith("Error: ") and "Errno" not in err
    return err


@pytest.mark.skipif(os.name != "posix", reason="permissions")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*TRAIN, "closed.npy"), "closed.npy cannot be read (Permission denied). Change its"),
        ((*TRAIN, "closed.npz"), "closed.npz cannot be read (Permission denied). Change its"),
        ((*TRAIN, "closed.csv"), "closed.csv cannot be read (Permission denied). Change its"),
        ((*TRAIN, "hidden/x.npy"), "hidden/x.npy cannot be read (Permission denied). Change its"),
        ((*TRAIN, "folder.csv"), "folder.csv is a folder. Name a file in it"),
        ((*TRAIN, "run"), "run is a folder. Name a file in it that ends in .npy"),
        ((*TRAIN, "open.npy", "--run-dir", "kept/r"), "kept/r cannot be written (Permission denied)"),
        ((*CLASSIFY, "kept/r"), "seed-0/m2-start cannot be written (Permission denied). Choose a folder"),
        (("sample", "run", "--out", "kept/a.npz"), "kept/a.npz cannot be written (Permission"),
        (("plot", "run", "-q", "--out", "kept/f"), "kept/f cannot be written (Permission denied)"),
        (("show", "hidden"), "hidden cannot be read (Permission denied). Change its permissions"),
        (("evaluate", "hidden"), "hidden cannot be read (Permission denied). Change its"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_one_has_no_right_to(
    folder: Path, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    with without_rights():
        said = refusal(monkeypatch, capsys, *words)
    assert message in said and not list((folder / "kept").iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "run", "--out", "draws.csv"),
        ("plot", "run", "-q", "--out", "pictures"),
        ("evaluate", "run", "--samples", "4", "-q"),
    ],
    ids=lambda words: str(words[0]),
)
def test_a_full_disk(
    folder: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    Path("draws.csv").write_text("before")
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "replace", full)
        said = refusal(disk, capsys, *words)
    assert "cannot be written (No space left on device). The disk is full: free some space" in said
    assert Path("draws.csv").read_text() == "before"
    after = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    assert after == before and not list(folder.rglob("*.part"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "a.txt: No space left on device. Free some space"),
        (errno.EIO, "a.txt: Input/output error. Check that it exists"),
    ],
)
def test_an_error_of_the_system_names_the_file(
    code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: Path) -> None:
        raise OSError(code, os.strerror(code), "a.txt")

    monkeypatch.setattr("probgen.cli.run_commands.list_runs", fails)
    assert message in refusal(monkeypatch, capsys, "list")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shuffle": True}, "has 'shuffle', which load does not take"),
        ({"seed": "first"}, "cannot be used"),
        ({"split": 3}, "cannot be used"),
        ({"columns": 3, "name": "{folder}/open.csv"}, "cannot be used"),
    ],
)
def test_a_source_of_other_arguments(
    folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    whole = pg.load_run(folder / "run").config["data"]
    change = {k: str(v).format(folder=folder) if k == "name" else v for k, v in change.items()}
    data = {**whole, "source": {**whole["source"], **change}}
    run = pg.load_run(forged(folder / "run", tmp_path / "r", data=data))
    with pytest.raises(pg.RunError, match="was not written by this version") as error:
        run.load_data()
    assert message in str(error.value)
