"""Few labels again and again: repetitions, the command line, pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_wine

import probgen as pg
from probgen.cli import main as cli
from probgen.plots.classes import analogies, confusion, denoising, errors, reliability
from tests.pairs import CASES

QUICK: Any = {"progress": False, "num_epochs": 3, "device": "cpu"}


@pytest.fixture(scope="module")
def digits() -> pg.Splits:
    return pg.load("digits", transform="none")


@pytest.fixture(scope="module")
def found(digits: pg.Splits) -> pg.FewLabels:
    return pg.few_labels(digits, "m2", labels=50, seeds=2, **QUICK)


def test_counts_and_spread(found: pg.FewLabels, digits: pg.Splits) -> None:
    assert digits.test is not None
    assert found.seeds == [0, 1] and found.labels == 50 and found.num_data == (1257, 360)
    assert found.confusion.sum() == 720
    wrong = 1 - np.trace(found.confusion) / 720
    assert np.mean(found.errors) == pytest.approx(wrong)
    assert np.allclose(found.error, (np.mean(found.errors), np.std(found.errors, ddof=1)))
    kinds = np.bincount(digits.test["y"].numpy())
    assert found.confusion.sum(1).tolist() == (2 * kinds).tolist()
    made = found.classifier
    assert made is not None
    again = made.score(digits.test["x"].numpy(), digits.test["y"].numpy())
    assert again == pytest.approx(1 - found.errors[1])
    text = repr(found)
    assert "with 50 of 1,257 labels known, 2 draws" in text and "Confusion" in text
    assert json.loads(json.dumps(found.record()))["seeds"] == [0, 1]


def test_each_draw_hides_other_labels(digits: pg.Splits) -> None:
    one = pg.few_labels(digits, "m2", labels=50, seeds=[7], **QUICK)
    assert one.seeds == [7] and np.isnan(one.error[1])
    with pytest.raises(
        ValueError, match=r"labels=55 is no multiple of the 10 classes, .* use 50 or 60"
    ):
        pg.few_labels(digits, "m2", labels=55, **QUICK)
    with pytest.raises(ValueError, match="per_class must be from 1 to"):
        pg.few_labels(digits, "m2", labels=5000, **QUICK)
    with pytest.raises(ValueError, match="the data have no test data"):
        pg.few_labels(pg.Splits(digits.train), "m2", **QUICK)
    with pytest.raises(ValueError, match="the data have no labels y"):
        pg.few_labels(pg.Splits(digits.train.only("x"), None, digits.test), "m2", **QUICK)
    with pytest.raises(TypeError, match="data must be Splits"):
        pg.few_labels(digits.train, "m2", **QUICK)  # type: ignore[arg-type]


def test_m1_is_trained_once(digits: pg.Splits) -> None:
    made = pg.few_labels(digits, "m1+m2", labels=50, seeds=2, **{**QUICK, "num_epochs": 1})
    assert made.classifier is not None and list(made.classifier.curves_) == ["m2"]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["probgen", "classify", *words])
    try:
        cli.main()
    except SystemExit as stop:
        if stop.code:
            raise


@pytest.mark.slow
def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every picture, and the same once more from the folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("probgen.reports.two_latents.STEPS", 20)
    words = [
        "--data",
        "digits",
        "--labels",
        "50",
        "--seeds",
        "2",
        "--epochs",
        "4",
        "--method",
        "m2",
    ]
    run(monkeypatch, *words, "--out", "here", "-q")
    text = capsys.readouterr().out
    assert "m2 on digits" in text and "2 draws" in text and "Confusion" in text
    drawn = {path.stem for path in Path("here/figures").glob("*.png")}
    assert drawn == {
        "errors", "confusion", "reliability", "analogies", "styles_of_class_0", "styles_of_class_9",
        "latent_spaces", "denoising",
    }  # fmt: skip
    before = json.loads(Path("here/results.json").read_text())
    run(monkeypatch, *words, "--out", "here", "-q", "--no-figures", "--json")
    record = json.loads(capsys.readouterr().out)
    assert record["errors"] == before["errors"] and record["curves"] == before["curves"]


@pytest.mark.slow
def test_a_table_with_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = load_wine(return_X_y=True)
    names = np.array(["barolo", "grignolino", "barbera"])[y]
    rows = [",".join([*map(str, row), name]) for row, name in zip(x, names, strict=True)]
    Path("wine.csv").write_text("\n".join([",".join([*map(str, range(13)), "kind"]), *rows]) + "\n")
    words = [
        "--data",
        "wine.csv",
        "--labels-column",
        "kind",
        "--epochs",
        "10",
        "--seeds",
        "1",
        "-q",
    ]
    run(monkeypatch, *words, "--labels", "30")
    text = capsys.readouterr().out
    assert "grignolino" in text and "m2 on wine" in text
    assert {p.stem for p in Path("runs").glob("*/figures/*.png")} == {
        "errors",
        "confusion",
        "reliability",
    }
    run(monkeypatch, *words, "--method", "m1", "--no-figures")
    assert "m1 on wine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name the data"),
        (["--data", "digits", "--method", "m3"], "method must be one of"),
        (["--data", "digits", "--labels", "7"], "no multiple of the 10 classes"),
        (["--data", "digits", "--hidden", "a"], "--hidden must be widths"),
        (["--data", "digits", "--class-prior", "a,b"], "--class-prior must be learned"),
        (["--data", "digits", "--class-prior", "even"], "class_prior must be"),
        (["--data", "nothing.csv"], "nothing.csv"),
    ],
)
def test_the_command_refuses(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(monkeypatch, *words, "-q")
    assert message in capsys.readouterr().err


# ------------------------------------------------------------------ pictures


def ax() -> Any:
    return Figure().subplots()


def test_analogies_keep_the_style_and_vary_the_class() -> None:
    torch.manual_seed(0)
    m2 = pg.models.M2(x=pg.Bernoulli(4), y=pg.Categorical(3), z=pg.Normal(2), hidden=(4,))
    x = torch.eye(4)[:2]
    drawn = analogies(m2, x, [0, 2], ax=ax())
    canvas = np.asarray(drawn.images[0].get_array())
    assert canvas.shape == (2 * 3 - 1, 5 * 3 - 1)  # image, gap, three classes
    z = pg.encode(m2, {"x": x, "y": torch.tensor([0, 2])}, device="cpu")["z"]
    grey = pg.Dataset({"x": 0.9 * x, "y": torch.zeros(2).long()}, redrawn=("x",))
    assert analogies(m2, grey, ax=ax()).images  # probabilities of ones are x too
    with torch.no_grad():
        expected = m2.p_x(y=torch.tensor([1]), z=z[1:]).mean[0].reshape(2, 2)
    assert np.allclose(canvas[3:5, 9:11], expected, atol=1e-6)
    assert np.allclose(canvas[0:2, 0:2], x[0].reshape(2, 2))


def test_analogies_of_a_stack_are_means_all_the_way() -> None:
    torch.manual_seed(0)
    z = pg.Normal(2)
    stack = pg.models.M1M2(x=pg.Bernoulli(4), y=pg.Categorical(2), z1=z, z2=z)
    canvases = [
        np.asarray(analogies(stack, torch.eye(4)[:1], [1], seed=0, ax=ax()).images[0].get_array())
        for _ in range(2)
    ]
    assert np.array_equal(canvases[0], canvases[1], equal_nan=True)
    with pytest.raises(
        ValueError,
        match="the style must be a latent whose prior depends on no other variable, such as z2",
    ):
        analogies(stack, torch.eye(4), latent="z1", ax=ax())
    with pytest.raises(ValueError, match="VAE has no scalar class 'y'"):
        analogies(CASES["VAE"].build(), torch.eye(6), ax=ax())


def test_denoising_gives_the_class_to_models_that_know_it() -> None:
    torch.manual_seed(0)
    vae = pg.models.VAE(x=pg.Bernoulli(4), z=pg.Normal(2))
    cvae = pg.models.CVAE(x=pg.Bernoulli(4), y=pg.Categorical(2), z=pg.Normal(2))
    x, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
    noisy = pg.Dataset({"x": 0.9 * x}, redrawn=("x",))
    drawn = denoising({"VAE": vae, "CVAE": cvae}, noisy, x, y, ax=ax())
    assert np.asarray(drawn.images[0].get_array()).shape == (4 * 3 - 1, 4 * 3 - 1)
    words = [label.get_text() for label in drawn.get_yticklabels()]
    means = pg.reconstruct(cvae, {"x": x, "y": y}, device="cpu")["x"]
    assert len(words) == 4 and words[3].startswith("CVAE\nRMSE 0.") and means.shape == (4, 4)


def test_confusion_reliability_and_errors() -> None:
    drawn = confusion([[8, 2], [0, 10]], ["a", "b"], ax=ax())
    assert drawn.get_title() == "10.00 % of 20 wrong"
    assert {text.get_text() for text in drawn.texts} == {"8", "2", "10"}
    with pytest.raises(ValueError, match=r"needs counts \(classes, classes\)"):
        confusion([[1, 2, 3]], ax=ax())
    drawn = reliability([[0.9, 0.1]] * 10, [0] * 9 + [1], ax=ax())
    assert "Calibration error 0.000" in drawn.get_title()
    drawn = errors({"seed 0": [(1, 0.5), (2, 0.25)]}, ax=ax())
    assert drawn.lines[0].get_ydata().tolist() == [50.0, 25.0]  # type: ignore[union-attr]
