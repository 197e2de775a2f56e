"""The scikit-learn classifier: its contract, labels of all kinds, bad input, and what it learns."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import probgen as pg
from probgen.classifier.method import METHODS as REGISTRY
from tests.classifiers import quick

METHODS = REGISTRY.names()
Classifier = pg.SemiSupervisedClassifier


def failed_checks(made: Classifier) -> set[str]:
    """The names of scikit-learn's own checks that a classifier does not pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(made, on_fail=None, on_skip=None)
    assert len(found) > 40
    return {check["check_name"] for check in found if check["status"] == "failed"}


def test_scikit_learns_own_checks_of_all_but_accuracy() -> None:
    """On four epochs, so that nothing but the accuracy that one of them asks for can be missing."""
    assert failed_checks(Classifier("m2", num_epochs=4, random_state=0)) <= {
        "check_classifiers_train"
    }


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_scikit_learns_own_checks(method: str) -> None:
    epochs = {"m1": 400, "m1+m2": 200}.get(method, 50)
    assert not failed_checks(Classifier(method, num_epochs=epochs, random_state=0))


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_and_says_what_it_is(method: str, fitted: Any, iris: Any) -> None:
    x, y, known = iris
    made = fitted[method]
    assert made.score(x, y) > 0.85
    assert made.score(x, known) == np.mean(made.predict(x[known >= 0]) == y[known >= 0])
    shares = made.predict_proba(x)
    assert shares.shape == (150, 3) and np.allclose(shares.sum(1), 1)
    assert 0 <= made.calibration_error(x, y) < 0.3
    assert made.transform(x).shape == (150, len(made.get_feature_names_out()))
    assert list(made.curves_) == {"m1": ["m1"], "m1+m2": ["m1", "m2"]}.get(method, [method])
    assert isinstance(made.pair_, pg.LatentVariableModel)
    assert hasattr(made, "encoder_") == (method in ("m1", "m1+m2"))


@pytest.mark.parametrize("method", METHODS)
def test_a_row_is_told_whatever_stands_beside_it(method: str, fitted: Any, iris: Any) -> None:
    x, made = iris[0], fitted[method]
    order = np.random.default_rng(0).permutation(150)
    assert np.allclose(made.predict_proba(x)[order], made.predict_proba(x[order]), atol=1e-9)
    one = np.concatenate([made.predict_proba(x[i : i + 1]) for i in range(5)])
    assert np.allclose(made.predict_proba(x)[:5], one, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_draws_are_rows(method: str, fitted: Any, iris: Any) -> None:
    made = fitted[method]
    drawn = made.sample(200, random_state=0)
    assert drawn.shape == (200, 4)
    assert np.array_equal(drawn, made.sample(200, random_state=0))
    # Centimetres, and not standardized.
    assert np.abs(drawn.mean(0) - iris[0].mean(0)).max() < 1
    if method == "m1":
        with pytest.raises(ValueError, match='"m1" has no model of rows given a class'):
            made.sample(2, y=0)
        return
    of_two = made.sample(100, y=[2, 0], means=True, random_state=0)
    assert of_two.shape == (200, 4)
    assert np.mean(made.predict(of_two[:100]) == 2) > 0.6
    assert np.mean(made.predict(of_two[100:]) == 0) > 0.8
    with pytest.raises(ValueError, match=r"sample: no class 7; the classes are \[0, 1, 2\]"):
        made.sample(1, y=7)


def test_seeds(iris: Any) -> None:
    x, _, known = iris
    same = [quick("m1+m2", num_epochs=3).fit(x, known).predict_proba(x) for _ in range(2)]
    assert np.array_equal(same[0], same[1])
    other = quick("m1+m2", num_epochs=3, random_state=1).fit(x, known).predict_proba(x)
    assert not np.array_equal(same[0], other)


def test_pipelines_and_searches(iris: Any) -> None:
    x, y, known = iris
    made = make_pipeline(StandardScaler(), quick())
    assert made.fit(x, known).score(x, y) > 0.8
    search = GridSearchCV(quick(num_epochs=10), {"alpha": [0.1, 10]}, cv=2).fit(x, known)
    assert search.best_params_["alpha"] in (0.1, 10)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(cross_val_score(quick(num_epochs=5), x, known, cv=3)) == 3
    frame = pd.DataFrame(x, columns=list("abcd"))
    out = quick(num_epochs=2).set_output(transform="pandas").fit(frame, known).transform(frame)
    assert out.columns[0] == "semisupervisedclassifier0"


@pytest.mark.parametrize("method", ["m1", "m1+m2"])
def test_a_fresh_process_predicts_the_same(
    method: str, fitted: Any, iris: Any, tmp_path: Path
) -> None:
    import pickle

    made, x = fitted[method], iris[0]
    (tmp_path / "made.pkl").write_bytes(pickle.dumps(made))
    np.save(tmp_path / "x.npy", x)
    code = (
        "import pickle, numpy as np\n"
        "made = pickle.load(open('made.pkl', 'rb'))\n"
        "np.save('out.npy', made.predict_proba(np.load('x.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    assert np.allclose(np.load(tmp_path / "out.npy"), made.predict_proba(x), atol=1e-12)


def test_an_encoder_is_used_again_and_left_alone(fitted: Any, iris: Any) -> None:
    x, _, known = iris
    encoder = fitted["m1"].encoder_
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    made = quick("m1+m2", num_epochs=20, encoder=encoder).fit(x, known)
    assert list(made.curves_) == ["m2"]
    assert np.array_equal(made.transform(x), fitted["m1"].transform(x))
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])
    assert clone(made).encoder is not None


def test_any_classifier_of_features(iris: Any) -> None:
    x, y, known = iris
    made = quick("m1", num_epochs=150, classifier=LogisticRegression()).fit(x, known)
    assert isinstance(made.classifier_, LogisticRegression) and made.score(x, y) > 0.85


def test_a_run_directory_goes_on(iris: Any, tmp_path: Path) -> None:
    x, y, known = iris
    settings = {"num_epochs": 8, "run_dir": tmp_path / "run"}
    whole = quick("m1+m2", num_epochs=8).fit(x, known, validation=(x, y))
    first = quick("m1+m2", **settings).fit(x, known, validation=(x, y))
    again = quick("m1+m2", **settings).fit(x, known, validation=(x, y))
    for made in (first, again):
        assert np.allclose(made.predict_proba(x), whole.predict_proba(x), atol=1e-12)
        assert made.validation_errors_ == whole.validation_errors_
        assert made.curves_ == whole.curves_
    # The M2 begins with spread labels, and goes on by its own objective a quarter as long.
    assert [epoch for epoch, _ in whole.validation_errors_] == list(range(1, 11))
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "m1", "m2", "m2-errors.json", "m2-start", "m2-start-errors.json",
    }  # fmt: skip
    # Other validation rows: their error is that of the weights, and no curve of others.
    other = quick("m1+m2", **settings).fit(x, known, validation=(x[:50], y[:50]))
    assert len(other.validation_errors_) == 2
    assert quick("m1+m2", **settings).fit(x, known).validation_errors_ == []


def test_a_start_by_spread_labels(iris: Any) -> None:
    """What spreads are the labels that are known; rows that have one keep it."""
    from probgen.classifier.label_spreading import spread_labels

    x, y, known = iris
    data = pg.Dataset(
        {"x": x, "y": np.maximum(known, 0)}, observed={"y": torch.from_numpy(known >= 0)}
    )
    spread = spread_labels(data).numpy()
    assert np.array_equal(spread[known >= 0], y[known >= 0]) and np.mean(spread == y) > 0.85
    shifted = pg.Dataset(
        {"x": x, "y": np.where(known >= 0, known, 2)}, observed={"y": torch.from_numpy(known >= 0)}
    )
    assert np.array_equal(spread_labels(shifted).numpy(), spread)  # hidden values are not looked at
    begun = quick("m2", start="spread", num_epochs=60).fit(x, known)
    assert len(begun.curves_["m2"]) == 75 and begun.score(x, y) > 0.8
    assert len(quick("m2", num_epochs=30).fit(x, known).curves_["m2"]) == 30


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", [None, "spread"])
def test_the_last_validation_error_is_that_of_the_classifier(method: str, start: Any) -> None:
    """To the bit, on rows that are hard to tell, where other draws or means tell some otherwise."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 1060)
    x = 0.7 * np.eye(3)[y] + rng.normal(size=(1060, 3))
    known = np.where(np.arange(60) < 30, y[:60], -1)
    made = quick(method, num_epochs=8, start=start, num_samples=32)
    made.fit(x[:60], known, validation=(x[60:], y[60:]))
    assert made.validation_errors_[-1][1] == pytest.approx(
        1 - made.score(x[60:], y[60:]), abs=1e-12
    )
    epochs = [epoch for epoch, _ in made.validation_errors_]
    assert epochs == sorted(set(epochs)) and epochs[-1] == len(made.curves_[list(made.curves_)[-1]])


def test_the_model_takes_what_every_model_takes(fitted: Any, iris: Any) -> None:
    x, made = iris[0], fitted["m1+m2"]
    score = pg.log_marginal_likelihood(made.pair_, made.to_x(x), num_samples=200, device="cpu")
    assert np.isfinite(score.mean)
    rows = made.to_x(x)["x"]
    assert np.allclose(made.from_x(rows), x)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "per_class", "at_most"),
    [(load_wine, 5, 0.09), (load_breast_cancer, 10, 0.10), (load_digits, 10, 0.13)],
    ids=["wine", "cancer", "digits"],
)
def test_defaults_are_good_without_tuning(load: Any, per_class: int, at_most: float) -> None:
    """A tenth or so of the labels. A support vector machine of those has 3, 10 and 14 % wrong."""
    x, y = load(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.3, random_state=0, stratify=y)
    rng, known = np.random.default_rng(0), np.full_like(y, -1)
    for kind in np.unique(y):
        known[rng.choice(np.flatnonzero(y == kind), per_class, replace=False)] = kind
    made = Classifier(random_state=0, device="cpu").fit(x, known)
    assert made.method_ == "m2"
    assert 1 - made.score(x_test, y_test) < at_most


def test_rows_that_no_label_reaches(iris: Any) -> None:
    """A cluster of its own without a label: label spreading has nothing to say there."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 0.1, (60, 4)) + 8 * np.eye(4)[k] for k in range(4)])
    known = np.full(240, -1)
    known[[0, 60, 120]] = [0, 1, 2]
    made = quick("m1", num_epochs=300, learning_rate=1e-3).fit(x, known)
    shares = made.predict_proba(x)
    assert np.isfinite(shares).all() and np.allclose(shares.sum(1), 1)
    assert np.mean(made.predict(x[:180]) == np.repeat([0, 1, 2], 60)) > 0.9


def test_more_labels_do_not_mean_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most rows have a label, an epoch is no pass over the few without one."""
    from probgen.classifier import training
    from probgen.classifier.method import TrainingSettings
    from probgen.classifier.methods.m2 import M2Method

    x = torch.randn(600, 4, generator=torch.Generator().manual_seed(0))
    composed: list[Any] = []

    def objective(**settings: Any) -> pg.SemiSupervised:
        composed.append(settings["labelled_batch"])
        return pg.SemiSupervised(**settings)

    monkeypatch.setattr(training, "SemiSupervised", objective)
    monkeypatch.setattr(training, "NUM_STEPS", 120)
    epochs = []
    for known in (30, 570, 599):
        mask = torch.arange(600) < known
        data = pg.Dataset({"x": x, "y": (x[:, 0] > 0).long()}, observed={"y": mask})
        settings = TrainingSettings(
            batch_size=300, hidden=(4,), device="cpu", class_prior="uniform"
        )
        trained = M2Method().train(pg.Normal(4), pg.Categorical(2), data, settings)
        epochs.append(len(trained.curves["m2"]))
    assert composed == [30, None, None]
    assert epochs == [40, 60, 60]  # of three steps of 270 rows without a label, or two of 300


@pytest.mark.parametrize("method", METHODS)
def test_global_random_states_stay(method: str, iris: Any) -> None:
    x, _, known = iris
    before, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    made = quick(method, num_epochs=1).fit(x, known)
    made.predict(x)
    made.sample(2, random_state=0)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(of_numpy, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_any_pipeline_that_ends_in_a_transductive_classifier_sees_all_rows(iris: Any) -> None:
    from sklearn.semi_supervised import LabelSpreading

    x, _, known = iris
    made = quick("m1", classifier=make_pipeline(StandardScaler(), LabelSpreading("knn"))).fit(
        x, known
    )
    assert len(made.classifier_[-1].transduction_) == 150
