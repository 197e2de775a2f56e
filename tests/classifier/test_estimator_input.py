"""Labels and rows of all kinds for the classifier, and those that it refuses."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import probgen as pg
from probgen.classifier.scaling import Scaling
from tests.classifiers import quick

Classifier = pg.SemiSupervisedClassifier


@pytest.mark.parametrize(
    ("names", "marker"),
    [
        (["a", "b", "c"], "?"),
        (["a", "b", "c"], None),
        (["a", "b", "c"], float("nan")),
        ([10.0, 20.0, 30.0], float("nan")),
        ([-1, 0, 5], 99),
        ([True, False, True], None),
    ],
)
def test_labels_of_all_kinds(names: list[Any], marker: Any, iris: Any) -> None:
    x, y, known = iris
    numbers = [0, 1, 2] if len(set(names)) == 3 else [0, 1, 0]
    reference = quick(num_epochs=5).fit(x, np.where(known < 0, -1, np.take(numbers, known)))
    labels: Any = [marker if code < 0 else names[code] for code in known]
    for given in (labels, np.array(labels, dtype=object), pd.Series(labels)):
        made = quick(num_epochs=5, unlabelled=marker).fit(x, given)
        assert made.classes_.tolist() == sorted(set(names))
        told = made.predict(x)
        assert np.array_equal(
            np.searchsorted(made.classes_, told),
            np.searchsorted(reference.classes_, reference.predict(x)) if len(set(names)) == 3
            else [0 if value is np.False_ or not value else 1 for value in told.tolist()],
        )  # fmt: skip
        assert made.score(x, given) == made.score(x[known >= 0], np.array(names)[y[known >= 0]])


def test_a_number_among_texts_is_not_a_text(iris: Any) -> None:
    x, _, known = iris
    texts = [["a", "b", "c"][code] if code >= 0 else "-1" for code in known]
    with pytest.raises(ValueError, match=r"text, '-1' among them, but unlabelled=-1 is a number"):
        quick().fit(x, texts)
    mixed: Any = [["a", "b", "c"][code] if code >= 0 else -1 for code in known]
    assert quick(num_epochs=1).fit(x, mixed).classes_.tolist() == ["a", "b", "c"]


def test_minus_one_and_one_are_two_classes_and_say_so(iris: Any) -> None:
    x, y, _ = iris
    signs = np.where(y == 0, -1, 1)
    with pytest.warns(UserWarning, match="read as two classes, all known"):
        made = quick().fit(x, signs)
    assert made.classes_.tolist() == [-1, 1] and made.score(x, signs) > 0.93


def test_bad_input(iris: Any) -> None:
    x, y, known = iris
    cases: list[tuple[dict[str, Any], Any, Any, str]] = [
        ({}, x, np.full(150, -1), "none of the 150 rows has a label"),
        ({}, x, np.where(known == 1, 1, -1) * 3 + 0, "all labelled rows are of one class, 3"),
        ({"classes": [0, 1]}, x, known, r"labels beyond the declared classes: 2; classes=\[0, 1\]"),
        ({"classes": [0, 1, 2, 3]}, x, known, "no row is labelled: 3"),
        ({"batch_size": 151}, x, known, "batch_size=151 is larger than the 150 data"),
        ({}, np.where(x == x[7, 2], np.nan, x), known, "NaN"),
        ({}, np.where(x == x[7, 2], np.inf, x), known, "infinity"),
        ({}, x[:, 0], known, "Expected 2D array"),
        ({}, x[:5], known, "inconsistent numbers of samples"),
        ({}, np.ones((150, 3)), known, "no column varies over the 150 rows"),
        ({"likelihood": "bernoulli"}, x - 9, known, "values of at least 0, got -8.9"),
        ({"likelihood": "poisson"}, x, known, 'must be "auto", "bernoulli" or "normal"'),
        ({"method": "m3"}, x, known, 'method must be one of "auto", "adgm", "m1", .* got \'m3\''),
        ({"alpha": -1}, x, known, "alpha must be a finite number"),
        ({"num_epochs": 0}, x, known, "num_epochs must be an int of at least 1"),
        ({"learning_rate": 0}, x, known, "learning_rate must be finite and above 0"),
        ({"start": "first"}, x, known, 'start must be "auto", "spread" or None'),
        ({"num_samples": 0}, x, known, "num_samples must be an int of at least 1"),
        (
            {"classifier": LogisticRegression()},
            x,
            known,
            "classifier is for method m1, but the method is 'm2'",
        ),
        ({}, x, y + 0.5, "Unknown label type"),
    ]
    for settings, rows, labels, message in cases:
        with pytest.raises(ValueError, match=message):
            quick(**{"num_epochs": 1, **settings}).fit(rows, _pairs(labels, message))


def _pairs(labels: Any, message: str) -> Any:
    return np.where(labels == -3, -1, labels) if "one class" in message else labels


def test_bad_input_at_predict(fitted: Any, iris: Any) -> None:
    x, y, _ = iris
    made = fitted["m2"]
    with pytest.raises(ValueError, match="X has 3 features, but SemiSupervisedClassifier"):
        made.predict(x[:, :3])
    with pytest.raises(ValueError, match="NaN"):
        made.predict_proba(np.where(x == x[7, 2], np.nan, x))
    with pytest.raises(ValueError, match="none of the 150 rows has a label"):
        made.score(x, np.full(150, -1))
    with pytest.raises(ValueError, match=r"calibration_error: no class 7"):
        made.calibration_error(x, y + 7)
    with pytest.raises(ValueError, match="not fitted"):
        Classifier().predict(x)


def test_all_labelled_is_supervised_and_says_so(iris: Any) -> None:
    x, y, _ = iris
    with pytest.warns(UserWarning, match="every row has a label, so this is supervised learning"):
        made = quick(num_epochs=100).fit(x, y)
    assert made.score(x, y) > 0.93


def test_few_rows_lack_a_label(iris: Any) -> None:
    """Fewer than a batch would take."""
    x, y, _ = iris
    known = np.where(np.arange(150) < 3, -1, y)
    assert quick(num_epochs=2).fit(x, known).score(x, known) >= 0


def test_scaling() -> None:
    def of(values: Any, likelihood: Any = "auto") -> Scaling:
        return Scaling.of(np.asarray(values, dtype=float), likelihood, "test")

    drawings = np.random.default_rng(0).choice([0, 0, 0, 255, 120], (50, 9), p=[.3, .3, .1, .2, .1])  # fmt: skip
    assert of(drawings).likelihood == "bernoulli"
    assert float(of(drawings)(drawings.astype(float)).max()) == 1
    assert of(drawings)(np.full((1, 9), 300.0)).max() == 1  # beyond what was seen
    digits = load_digits().data
    assert of(digits).likelihood == "normal"
    table = np.column_stack([np.arange(10.0), np.full(10, 7.0), np.arange(10.0) ** 2])
    made = of(table)
    assert made.likelihood == "normal" and made.varying.tolist() == [True, False, True]
    x = made(table)
    assert torch.allclose(x.mean(0), torch.zeros(2).double(), atol=1e-12)
    assert np.allclose(made.inverse(x), table)


def test_a_fit_that_fails_leaves_nothing_half(iris: Any) -> None:
    x, _, known = iris
    made = quick("m1", num_epochs=2).fit(x, known)
    made.set_params(method="m2", classifier=None, batch_size=1000)
    with pytest.raises(ValueError, match="batch_size=1000"):
        made.fit(10 * x, np.where(known < 0, -1, known + 10))
    with pytest.raises(ValueError, match="not fitted"):
        made.predict(x)
    made.set_params(batch_size=None).fit(x, known)
    assert not hasattr(made, "encoder_") and not hasattr(made, "classifier_")


def test_signs_with_a_marker_of_their_own(iris: Any) -> None:
    x, y, _ = iris
    signs = np.where(np.arange(150) % 3 == 0, 0, np.where(y == 0, -1, 1))
    made = quick(unlabelled=0).fit(x, signs)
    assert made.classes_.tolist() == [-1, 1]
    assert made.score(x, signs) == made.score(x[signs != 0], signs[signs != 0]) > 0.95
    assert 0 <= made.calibration_error(x, signs) <= 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said by hand, so nothing is guessed
        declared = quick(num_epochs=2, classes=[-1, 1]).fit(x, np.where(y == 0, -1, 1))
    assert declared.classes_.tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("labels", "marker", "message"),
    [
        (["a", None, "b", "c"], -1, "10 missing values .* use unlabelled=None"),
        ([0.0, np.nan, 1.0, 2.0], -1, "10 missing values .* use unlabelled=None"),
        ([0, 1, 2, -1], "?", "labels are numbers such as 0, but unlabelled='\\?' is text"),
        ([1, "b", "c", -1], -1, "mix text and numbers, such as 'b' and 1"),
        (np.array([0, 1, 2, 255], dtype=np.uint8), -1, "uint8, which cannot hold unlabelled=-1, and has 255"),
    ],
)  # fmt: skip
def test_markers_that_cannot_be_meant(labels: Any, marker: Any, message: str, iris: Any) -> None:
    given = np.asarray(labels, dtype=object) if isinstance(labels, list) else labels
    with pytest.raises(ValueError, match=message):
        quick(unlabelled=marker).fit(iris[0][:40], np.tile(given, 10))


@pytest.mark.parametrize("kind", ["category", "string", "Int64", "object"])
def test_pandas_labels(kind: str, iris: Any) -> None:
    x, _, known = iris
    if kind == "Int64":
        labels = pd.Series(known, dtype="Int64").mask(known < 0)
    else:
        labels = pd.Series(pd.Categorical.from_codes(known, list("abc"))).astype(kind)
    made = quick(num_epochs=5, unlabelled=None).fit(x, labels)
    assert made.classes_.tolist() == ([0, 1, 2] if kind == "Int64" else ["a", "b", "c"])
    assert np.isfinite(made.score(x, labels))


def test_numpy_numbers_and_lengths(iris: Any) -> None:
    x, y, known = iris
    made = quick(
        num_epochs=np.int64(2), alpha=np.int64(1), latents=np.int64(2), unlabelled=np.int64(-1)
    )
    made.fit(x, known)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        made.score(x, y[:100])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        made.score(x, y, sample_weight=np.ones(200))
    with pytest.raises(ValueError, match="fit, validation: none of the 150 rows has a label"):
        quick(num_epochs=1).fit(x, known, validation=(x, np.full(150, -1)))
    with pytest.raises(ValueError, match="hidden must be widths such as"):
        quick(hidden=5).fit(x, known)


def test_parts_that_do_not_belong(iris: Any, fitted: Any) -> None:
    x, _, known = iris
    encoder = fitted["m1"].encoder_
    with pytest.raises(ValueError, match="classifier is for method m1, but the method is 'm2'"):
        quick("auto", classifier=LogisticRegression()).fit(x, known)
    with pytest.raises(ValueError, match=r"encoder must be a pg\.models\.VAE"):
        quick("m1", encoder="vae").fit(x, known)
    with pytest.raises(ValueError, match="encoder= was trained on other rows"):
        quick("m1", encoder=encoder).fit(x[:, :3], known)
    own = pg.models.VAE(x=pg.Bernoulli(4), z=pg.Normal(2))
    with pytest.raises(ValueError, match="encoder= was trained on other rows"):
        quick("m1", encoder=own).fit(x, known)
    with pytest.raises(ValueError, match="random_state must be an int, got None"):
        quick(random_state=None, run_dir="nowhere").fit(x, known)
    assert not Path("nowhere").exists()
    # Rows of another scale are scaled as the encoder's were.
    made = quick("m1", encoder=encoder).fit(2 * x, known)
    assert np.allclose(made.transform(x)[:, 0], fitted["m1"].transform(x)[:, 0])


def test_huge_and_tiny_columns() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3)) * np.array([1e-200, 1, 1e300])
    made = Scaling.of(x, "auto", "test")
    assert made.varying.all() and torch.isfinite(made(x)).all()
    assert torch.allclose(made(x).std(0, correction=0), torch.ones(3).double())
