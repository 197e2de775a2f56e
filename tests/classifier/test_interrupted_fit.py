"""Ctrl-C while a classifier is trained: no half-trained one, and the same call goes on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import probgen as pg
from probgen.classifier.validation_errors import ValidationErrors
from probgen.cli import main as cli

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
CODES = np.arange(40) % 2
Y = np.where(np.arange(40) < 20, CODES, -1)
QUICK: Any = {"hidden": (4,), "num_epochs": 3, "device": "cpu"}


def stop() -> None:
    raise KeyboardInterrupt


@contextmanager
def interrupted(
    monkeypatch: pytest.MonkeyPatch, at: int, by: Callable[[], Any] = stop
) -> Iterator[list[int]]:
    """Ctrl-C after so many epochs of models with classes, over all fits."""
    told, before = [0], ValidationErrors.__call__

    def call(self: ValidationErrors, result: Any) -> None:
        told[0] += 1
        if told[0] == at:
            by()
        before(self, result)

    with monkeypatch.context() as patch:
        patch.setattr(ValidationErrors, "__call__", call)
        yield told


@pytest.mark.parametrize("at", [2, 3])  # amid, and after the last epoch
@pytest.mark.parametrize("stored", [True, False])
def test_a_classifier_is_whole_or_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: int, stored: bool
) -> None:
    made = pg.SemiSupervisedClassifier(
        "m2", random_state=0, run_dir=tmp_path if stored else None, **QUICK
    )
    made.fit(X, Y)
    made.set_params(alpha=2.0, run_dir=tmp_path / "b" if stored else None)
    with interrupted(monkeypatch, at), pytest.raises(KeyboardInterrupt):
        made.fit(X, Y)
    assert not [name for name in vars(made) if name.endswith("_")]
    if stored:
        assert len(pg.load_run(tmp_path / "b" / "m2").result.elbo) == at
    with interrupted(monkeypatch, 0) as told:
        made.fit(X, Y)
    assert told == [3 - at if stored else 3]
    whole = pg.SemiSupervisedClassifier("m2", random_state=0, alpha=2.0, **QUICK).fit(X, Y)
    assert np.array_equal(made.predict_proba(X), whole.predict_proba(X))


def test_the_stages_after_do_not_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """M2 with labels spread at its start: the second stage does not begin after a stopped first one."""
    made = pg.SemiSupervisedClassifier(
        "m2", random_state=0, start="spread", run_dir=tmp_path, **QUICK
    )
    with interrupted(monkeypatch, 1) as told, pytest.raises(KeyboardInterrupt):
        made.fit(X, Y)
    assert told == [1] and [p.name for p in tmp_path.iterdir()] == ["m2-start"]


def test_the_draws_after_do_not_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = pg.Splits(
        pg.Dataset({"x": X, "y": CODES}), test=pg.Dataset({"x": X[:8], "y": CODES[:8]})
    )
    given: Any = {"labels": 10, "seeds": 3, "progress": False, **QUICK}
    with interrupted(monkeypatch, 5), pytest.raises(KeyboardInterrupt):  # in the second draw
        pg.few_labels(data, "m2", folder=tmp_path, **given)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["seed-0", "seed-1"]
    with interrupted(monkeypatch, 0) as told:
        found = pg.few_labels(data, "m2", folder=tmp_path, **given)
    assert told == [1 + 3] and found.errors == pg.few_labels(data, "m2", **given).errors


@pytest.mark.parametrize("part", ["training", "pictures"])
def test_the_command_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{a:.4f},{b:.4f},{c:.4f},{y}" for (a, b, c), y in zip(X, CODES, strict=True)]
    Path("few.csv").write_text("\n".join(["a,b,c,kind", *rows]) + "\n")
    words = ["--data", "few.csv", "--labels-column", "kind", "--labels", "10", "--seeds", "2",
             "--epochs", "3", "--hidden", "4", "--method", "m2", "-q"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["probgen", "classify", *words])

    def press() -> None:
        signal.raise_signal(signal.SIGINT)

    if part == "pictures":
        monkeypatch.setattr("probgen.reports.few_labels.save", lambda *_: press())
    with interrupted(monkeypatch, 4 if part == "training" else 0, press), pytest.raises(
        SystemExit
    ) as ended:  # fmt: skip
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 130 and not said.out
    assert "To continue: the same command with --out runs/classify-m2-few-1" in said.err
    assert Path("runs/classify-m2-few-1/results.json").exists() == (part == "pictures")


def test_no_pictures_of_half_trained_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The two small models of the pictures: Ctrl-C in the first leaves the second alone."""
    from probgen.reports import few_labels as pictures
    from probgen.reports import two_latents

    data = pg.load("digits", transform="none")
    found = pg.few_labels(data, "m2", labels=50, seeds=1, progress=False, **QUICK)
    calls: list[str] = []

    def fit(pair: Any, *_: Any, **__: Any) -> Any:
        calls.append(pair.name)
        result = pg.FitResult(pair)
        result.stopped = "interrupted"
        return result

    monkeypatch.setattr(two_latents, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        pictures.few_labels_report(found, data, tmp_path / "figures", progress=False)
    assert calls == ["VAE"] and not list((tmp_path / "figures").iterdir())
