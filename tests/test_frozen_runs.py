"""Run directories that version 0.1.0 wrote are read, scored, shown and resumed by this version.

Scores are compared to a relative 1e-4, since another processor may round otherwise.
"""

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
import safetensors.torch
import torch

import probgen as pg
from tests.frozen_runs.make import (
    CASES,
    CSV_COMMAND,
    INTERRUPTED,
    case,
    classifier,
    csv_data,
    digest,
    numbers,
)

FROZEN = Path(__file__).parent / "frozen_runs"
EXPECTED: dict[str, Any] = json.loads((FROZEN / "expected.json").read_text())
FINISHED = [name for name in CASES if name not in INTERRUPTED]


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def copied(name: str, to: Path) -> Path:
    """A run directory that may be written to."""
    return Path(shutil.copytree(FROZEN / name, to / name))


def command(*words: str | Path) -> str:
    """What a command line prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "probgen", *map(str, words)],
        check=False, capture_output=True, text=True, env={**os.environ, "COLUMNS": "1000"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(name: str) -> pg.Run:
    """A frozen run; code is run where the pair is code."""
    return pg.load_run(FROZEN / name, trust_code=name == "user_file")


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_read_and_scores_as_before(name: str) -> None:
    run, expected, made = load(name), EXPECTED["runs"][name], case(name)
    assert run.result.stopped == "completed"
    assert run.result.elbo == expected["elbo"]
    assert run.result.best_epoch == expected["best_epoch"]
    close(numbers(run.pair, made.scored, made.method), expected["log_prob"])


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_resumed_with_nothing_left_to_do(name: str, tmp_path: Path) -> None:
    made = case(name)
    folder = copied(name, tmp_path)
    result = made.fit(folder, resume=True)
    assert result.stopped == "completed" and result.elbo == EXPECTED["runs"][name]["elbo"]
    close(numbers(made.pair, made.scored, made.method), EXPECTED["runs"][name]["log_prob"])


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_trained_anew_to_the_same_weights(name: str, tmp_path: Path) -> None:
    made = case(name)
    close(made.fit(tmp_path / "again").elbo, EXPECTED["runs"][name]["elbo"])
    before, now = load(name).pair.state_dict(), made.pair.state_dict()
    assert before.keys() == now.keys()
    for key, tensor in before.items():
        torch.testing.assert_close(now[key], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupted_run_goes_on_to_the_weights_of_before(name: str, tmp_path: Path) -> None:
    expected = EXPECTED["runs"][name]
    folder = copied(name, tmp_path)
    half = pg.load_run(folder)
    assert half.result.stopped == "interrupted" and len(half.result.elbo) == 2
    made = case(name)
    close(numbers(half.pair, made.scored), expected["before"])
    result = made.fit(folder, resume=True)
    assert result.stopped == "completed"
    close(result.elbo, expected["elbo"])
    finished = safetensors.torch.load_file(FROZEN / f"{name}_finished.safetensors")
    assert digest(finished) == expected["sha256"]
    weights = pg.load_run(folder).pair.state_dict()
    assert weights.keys() == finished.keys()
    for key, tensor in finished.items():  # on the processor of before they are equal to the bit
        torch.testing.assert_close(weights[key], tensor, rtol=1e-4, atol=1e-5)


def test_a_pair_from_a_file_is_given_or_trusted() -> None:
    folder = FROZEN / "user_file"
    with pytest.raises(pg.RunError, match="made by Python code"):
        pg.load_run(folder)
    given = pg.load_run(folder, pair=pg.load_pair(f"{FROZEN / 'own_pair.py'}:build"))
    trusted = load("user_file").pair.state_dict()
    assert all(torch.equal(given.pair.state_dict()[key], t) for key, t in trusted.items())


def test_saved_scores_are_read_and_belong_to_the_weights() -> None:
    for place, mean in EXPECTED["scores"].items():
        run, name = place.split("/")
        close(load(run).scores[name].mean, mean)
    with np.load(FROZEN / "rows.npz") as file:
        x = file["numbers"]
    again = pg.log_marginal_likelihood(
        load("linear").pair, {"x": x}, method="exact", precision="float64"
    )
    saved = load("linear").scores["all-exact"]
    close(again.log_prob, saved.log_prob)
    assert again.data_hash == saved.data_hash and again.measure == saved.measure


def test_the_data_of_a_run_are_found_unchanged() -> None:
    assert len(load("images").load_data().train) == 1257  # raises where a hash differs
    run, data = load("csv"), csv_data()
    close(
        numbers(run.pair, data.parts["test"].only("x").subset(slice(0, 8))),
        EXPECTED["runs"]["csv"]["log_prob"],
    )


def test_the_command_line_lists_and_shows_all_runs() -> None:
    listed = json.loads(command("list", FROZEN, "--json"))["runs"]
    finished = {*FINISHED, "csv", "m1", "m2", "m2-start"}
    assert {Path(row["run"]).name: row["status"] for row in listed} == {
        **dict.fromkeys(finished, "completed"),
        **dict.fromkeys(INTERRUPTED, "unfinished"),
    }
    shown = command("show", FROZEN / "user_file")
    assert "Own" in shown and "not built" in shown
    record = json.loads(command("show", FROZEN / "csv", "--json"))
    assert record["curves"]["elbo"] == EXPECTED["runs"]["csv"]["elbo"]
    close(record["scores"]["test-K50"]["log_prob"], EXPECTED["scores"]["csv/test-K50"])


def test_the_command_line_resumes_and_evaluates_a_run_from_a_table(tmp_path: Path) -> None:
    folder = copied("csv", tmp_path)
    shutil.rmtree(folder / "scores")
    # The table lies elsewhere than it did; a resumed run notes where it is now.
    words = CSV_COMMAND.format(data=FROZEN / "table.csv", folder=folder).split()
    trained = json.loads(command(*words, "--resume", "--json"))
    assert trained["epochs"] == 3 and trained["stopped"] == "completed"
    score = json.loads(
        command("evaluate", folder, "--samples", "50", "-q", "--no-compile", "--json")
    )
    close(score["log_prob"], EXPECTED["scores"]["csv/test-K50"])
    close(pg.load_run(folder).scores["test-K50"].mean, score["log_prob"])


def test_the_command_line_evaluates_a_run_of_bundled_data(tmp_path: Path) -> None:
    folder = copied("images", tmp_path)
    words = ("--samples", "50", "--limit", "40", "-q", "--no-compile", "--json")
    score = json.loads(command("evaluate", folder, *words))
    close(score["log_prob"], EXPECTED["scores"]["images/test-K50-first40"])


def test_the_runs_of_a_classifier_give_the_same_classifier(tmp_path: Path) -> None:
    expected = EXPECTED["runs"]["classifier"]
    folder = copied("classifier", tmp_path)
    made, probabilities = classifier(folder)
    assert made.curves_ == expected["curves"]  # read, not trained again
    assert [list(pair) for pair in made.validation_errors_] == expected["validation_errors"]
    close(probabilities, expected["probabilities"])
    stages = [pg.load_run(folder / stage) for stage in ("m1", "m2-start", "m2")]
    assert [len(run.result.elbo) for run in stages] == [20, 20, 5]


def test_the_last_stage_of_a_classifier_is_trained_again_alike(tmp_path: Path) -> None:
    folder = copied("classifier", tmp_path)
    shutil.rmtree(folder / "m2")
    made, _ = classifier(folder)
    close(made.curves_["m2"], EXPECTED["runs"]["classifier"]["curves"]["m2"])


def test_what_a_run_maximized_is_named_though_it_was_not_recorded() -> None:
    shown = command("list", str(FROZEN), "--json")
    quantities = {Path(run["run"]).name: run["quantity"] for run in json.loads(shown)["runs"]}
    assert quantities["declared"] == quantities["csv"] == "ELBO"
    assert quantities["interrupted_labels"] == quantities["m2"] == "objective"
    assert pg.load_run(FROZEN / "classifier" / "m2").result.quantity == "objective"
