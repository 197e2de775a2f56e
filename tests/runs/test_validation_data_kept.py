"""The validation part of a run, loaded again, is what it was, or that is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import probgen as pg
from probgen.cli import main as cli
from probgen.storage.files import read_record, write_record

X = np.random.default_rng(0).normal(size=(40, 2))
HELD = np.random.default_rng(0).permutation(40)[8:12]
"""Rows of the validation part, where four are for it and eight for the test."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", x=X, y=np.arange(40) % 2)
    return tmp_path / "x.npz"


def trained(file: Path, **settings: Any) -> pg.Run:
    folder = file.parent / "run"
    pair = pg.models.FactorAnalysis(x=pg.Normal(2), z=pg.Normal(1))
    data = pg.load(file, split=(4, 8))
    pg.fit(pair, data, num_epochs=1, run_dir=folder, progress=False, device="cpu", **settings)
    return pg.load_run(folder)


def change(file: Path, rows: Any) -> None:
    x = X.copy()
    x[rows] += 100
    np.savez(file, x=x, y=np.arange(40) % 2)


@pytest.mark.parametrize("validation", ["auto", None, "other"])
def test_changed_validation_data_are_noticed(file: Path, validation: Any) -> None:
    given = {"x": torch.ones(5, 2)} if validation == "other" else validation
    run = trained(file, validation=given)
    held = run.load_data().parts["validation"]
    assert torch.equal(held["x"].sort(0).values, torch.from_numpy(X[HELD]).sort(0).values)
    assert run.config["data"].get("validation", {}).get("given", False) == (validation == "other")
    assert run.data.keys() == {"train", "test"} | ({"validation"} if validation else set())
    change(file, HELD[:1])
    with pytest.raises(
        pg.RunError, match=r"x\.npz has changed since .* the validation data have another hash"
    ):
        run.load_data()
    answer = CliRunner().invoke(cli.app, [
        "evaluate", str(run.path), "--part", "validation", "--method", "exact", "--device", "cpu", "--quiet",
    ])  # fmt: skip
    assert isinstance(answer.exception, pg.RunError)
    assert not (run.path / "scores").exists()


def test_an_older_run_warns(file: Path) -> None:
    """Runs from before tell what they validated on, but not where it came from."""
    run = trained(file)
    config = read_record(run.path / "config.json")
    del config["data"]["loaded"]
    write_record(run.path / "config.json", config)
    run = pg.load_run(run.path)
    run.load_data()
    change(file, HELD[:1])
    with pytest.warns(UserWarning, match="validated on other data than the validation part"):
        run.load_data()
    change(file, np.random.default_rng(0).permutation(40)[:1])
    with pytest.raises(pg.RunError, match="the test data have another hash"):
        run.load_data()
