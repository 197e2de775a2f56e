"""Run directories that something happens to: files put in another's place, folders moved or removed."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import probgen as pg
from probgen.cli import main as cli
from probgen.storage.files import read_tensors
from tests.fitting import QUICK, structured, vae, weights

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")

SCORES = ("scores/a.safetensors", "scores/b.safetensors")
FILES = ("weights.safetensors", "checkpoint.safetensors", *SCORES)


def fit(folder: Path, epochs: int, **settings: Any) -> pg.FitResult:
    return pg.fit(
        vae(), structured(20), num_epochs=epochs, run_dir=folder, batch_size=8, **QUICK, **settings
    )


def probgen(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit status of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["probgen", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    fit(folder, 2)
    read = pg.load_run(folder)
    for name, count in (("a", 30), ("b", 40)):
        read.save_score(
            pg.log_marginal_likelihood(read.pair, structured(9), num_samples=count), name
        )
    return folder


@pytest.mark.parametrize("place", FILES)
@pytest.mark.parametrize("name", FILES)
def test_a_file_in_the_place_of_another(
    run: Path, tmp_path: Path, name: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is whole and of this run, and still not what its name says."""
    if name == place:
        return
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    shutil.copy(folder / name, folder / place)
    words = "under another name" if name in SCORES and place in SCORES else "another file of the"
    if place == "checkpoint.safetensors":
        before = (folder / "weights.safetensors").read_bytes()
        with pytest.raises(pg.RunError, match=words):
            fit(folder, 3, resume=True)
        assert (folder / "weights.safetensors").read_bytes() == before
        assert torch.equal(weights(pg.load_run(folder).pair), weights(pg.load_run(run).pair))
        return
    with pytest.raises(pg.RunError, match=words):
        _ = pg.load_run(folder).scores
    if place in SCORES:  # the rest can still be shown
        assert f"score     {Path(place).stem}: cannot be read" in repr(pg.load_run(folder))
        assert probgen(monkeypatch, "show", str(folder), "--json") == 0


def test_a_state_of_another_optimizer(run: Path, tmp_path: Path) -> None:
    from probgen.storage.files import write_tensors

    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.safetensors"
    tensors, record = read_tensors(path)
    odd: list[Any] = [{}, 3, None, {"dict": 3}, {"tensor": "no"}, {"dict": [[1]]}, {"list": [1]}]
    for state in odd:
        write_tensors(path, tensors, {**record, "optimizer": state})
        with pytest.raises(pg.RunError, match="does not hold the state of this training"):
            fit(tmp_path / "run", 3, resume=True)


# ---------------------------------------------------------------- folders


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix", reason="permissions")
@pytest.mark.parametrize("epochs", [2, 3])
def test_a_folder_that_cannot_be_written(run: Path, open_folder: Path, epochs: int) -> None:
    folder = open_folder / "run"
    shutil.copytree(run, folder)
    folder.chmod(0o555)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    am_root = os.geteuid() == 0
    if am_root:  # who may write anywhere
        os.seteuid(65534)
    try:
        with pytest.raises(
            OSError, match=r"cannot be written \(Permission denied\)\. Choose a folder"
        ):
            fit(folder, epochs, resume=True)
        assert len(pg.load_run(folder).result.elbo) == 2  # reading needs no permission to write
    finally:
        if am_root:
            os.seteuid(0)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps it")
def test_a_working_folder_that_was_deleted(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = fit(tmp_path / "run", 2)  # nothing in it needs the working folder
    read = pg.load_run(tmp_path / "run")
    assert read.config["folder"] is None and torch.equal(weights(read.pair), weights(result.pair))
    assert "begun" in repr(read)
    for attempt in (lambda: fit(Path("here"), 1), lambda: pg.load_pair("my_model.py:build")):
        with pytest.raises(
            FileNotFoundError, match=r"working folder was deleted\. Change to a folder"
        ):
            attempt()
    for words in (["show", str(run)], ["sample", str(run), "--out", str(tmp_path / "s.npz")]):
        assert probgen(monkeypatch, *words) == 0
    assert (tmp_path / "s.npz").exists()
    assert probgen(monkeypatch, "train", "vae", "--data", "digits", "--epochs", "1") == 2
    assert "working folder was deleted" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["removed", "moved", "replaced"])
@pytest.mark.parametrize("when", [1, 3])
def test_a_folder_that_goes_while_its_run_trains(tmp_path: Path, what: str, when: int) -> None:
    """Nothing is written into what took its place, and what was trained is kept."""
    folder, other = tmp_path / "run", tmp_path / "other"
    whole = fit(tmp_path / "alone", 3)
    fit(other, 1, seed=1)
    theirs = {path.name: path.read_bytes() for path in other.iterdir() if path.is_file()}
    pair = vae()

    def disturb(result: pg.FitResult) -> None:
        if len(result.elbo) == when:
            if what == "removed":
                shutil.rmtree(folder)
            else:
                folder.rename(tmp_path / "moved")
            if what == "replaced":
                other.rename(folder)

    with pytest.raises(pg.RunError, match=r"was removed or moved while the run trains.*--resume"):
        pg.fit(
            pair,
            structured(20),
            num_epochs=3,
            run_dir=folder,
            batch_size=8,
            callback=disturb,
            **QUICK,
        )
    if when == 3:  # the pair in hand is trained to the end
        assert torch.equal(weights(pair), weights(whole.pair))
    if what == "replaced":
        assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == theirs
    else:
        assert not folder.exists()
    if what != "removed":
        assert len(pg.load_run(tmp_path / "moved").result.elbo) == when
        again = fit(tmp_path / "moved", 3, resume=True)
        assert torch.equal(weights(again.pair), weights(whole.pair))


def test_a_process_that_changes_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative run directory stays where it was."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    fit(Path("run"), 2, callback=lambda result: os.chdir(tmp_path / "b"))
    assert len(pg.load_run(tmp_path / "run").result.elbo) == 2 and not list(
        (tmp_path / "b").iterdir()
    )
