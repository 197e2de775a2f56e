"""The error of learning from few labels, over several draws of the labelled rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from probgen.basics.checks import as_count, as_seed
from probgen.basics.text import aligned
from probgen.classifier.estimator import SemiSupervisedClassifier
from probgen.classifier.method import METHODS, chosen_method
from probgen.data.dataset import Dataset, Splits
from probgen.inference.queries.classification import calibration_error

OWNER = "few_labels"


@dataclass
class FewLabels:
    """The test errors of a method over several draws of the labelled rows, as `pg.few_labels` returns.

    Attributes:
        method: the name of the method.
        data: the name of the data.
        labels: number of labelled training rows.
        num_data: number of training rows and of test rows.
        seeds: the seed of each draw.
        errors: the share of misclassified test rows, for each draw.
        calibration: the expected calibration error on the test rows, for each draw.
        minutes: training time of each draw, without that of the VAE which all draws share.
        curves: pairs of an epoch and the share of misclassified validation rows, for each draw.
        confusion: counts over all draws, shape `(classes, classes)`, one row for each true class.
        classes: the names of the classes.
        classifier: the classifier of the last draw.

    Example:
        >>> import probgen as pg
        >>> result = pg.FewLabels("m2", "digits", 100, (1257, 360), seeds=[0, 1], errors=[0.2, 0.3])
        >>> mean, standard_deviation = result.error
        >>> round(mean, 3), round(standard_deviation, 3)
        (0.25, 0.071)
    """

    method: str
    data: str
    labels: int
    num_data: tuple[int, int]
    seeds: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    calibration: list[float] = field(default_factory=list)
    minutes: list[float] = field(default_factory=list)
    curves: list[list[tuple[int, float]]] = field(default_factory=list)
    confusion: NDArray[Any] = field(default_factory=lambda: np.zeros((0, 0), int))
    classes: list[Any] = field(default_factory=list)
    classifier: SemiSupervisedClassifier | None = None

    @property
    def error(self) -> tuple[float, float]:
        """Mean and standard deviation of the error over draws; the latter is NaN for one draw."""
        several = len(self.errors) > 1
        deviation = float(np.std(self.errors, ddof=1)) if several else float("nan")
        return float(np.mean(self.errors)), deviation

    def __repr__(self) -> str:
        mean, deviation = self.error
        several = len(self.errors) > 1
        interval = f" ± {100 * deviation:.2f}" if several else ""
        num_draws = len(self.seeds)
        draws = f"{num_draws} draws of them (± standard deviation)" if several else "one draw"
        errors = [("seed", "test error, %", "calibration error", "minutes")]
        for seed, error, calibration, minutes in zip(
            self.seeds, self.errors, self.calibration, self.minutes, strict=True
        ):
            errors.append((str(seed), f"{100 * error:.2f}", f"{calibration:.3f}", f"{minutes:.1f}"))
        names = [str(name) for name in self.classes]
        confusion = [("true \\ predicted", *names)]
        confusion += [
            (name, *map(str, row)) for name, row in zip(names, self.confusion.tolist(), strict=True)
        ]
        return "\n".join([
            f"{self.method} on {self.data}: {100 * mean:.2f}{interval} % of {self.num_data[1]:,} test rows "
            f"misclassified, with {self.labels} of {self.num_data[0]:,} labels known, {draws}",
            "", *aligned(errors, left=())[0], "",
            "Confusion matrix, sum over all draws:", *aligned(confusion, left={0})[0],
        ])  # fmt: skip

    def record(self) -> dict[str, Any]:
        """All numbers as plain lists, for JSON."""
        plain = {
            name: value
            for name, value in vars(self).items()
            if name not in ("classifier", "confusion")
        }
        mean, deviation = self.error
        return {
            **plain, "confusion": self.confusion.tolist(), "classes": [str(c) for c in self.classes],
            "mean_error": mean, "standard_deviation": deviation if len(self.errors) > 1 else None,
        }  # fmt: skip


def few_labels(
    data: Splits,
    method: str = "auto",
    *,
    labels: int | None = None,
    seeds: int | Sequence[int] = 5,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **settings: Any,
) -> FewLabels:
    """Train a classifier for each of several draws of the labelled rows, and test it.

    A VAE learns without labels, so M1 is trained once for all draws, with seed 0.

    Args:
        data: training rows x with labels y, and test rows; validation rows, if any, give the curves.
        method: as `pg.SemiSupervisedClassifier` takes it.
        labels: number of training rows that keep their label, the same number of each class; by
            default all that have one.
        seeds: number of draws, which then have the seeds 0, 1, ..., or the seeds themselves.
        folder: for run directories; a call that was killed resumes when it is made again.
        progress: show progress bars.
        **settings: of `pg.SemiSupervisedClassifier`.

    Returns:
        Errors, calibration errors and confusion counts on the test rows.

    Raises:
        TypeError: the data are no Splits.
        ValueError: no labels, no test data, or a number of labels that is no multiple of the number of
            classes.
        KeyboardInterrupt: Ctrl-C; the folder keeps what has been trained, and the same call resumes.

    Example:
        >>> import probgen as pg
        >>> data = pg.load("digits", transform="none")
        >>> result = pg.few_labels(data, "m2", labels=100, seeds=1, progress=False, num_epochs=2)
        >>> int(result.confusion.sum())
        360
    """
    train, test = _train_and_test(data)
    if "unlabelled" in settings:
        raise ValueError(
            f"{OWNER}: unlabelled= is for labels in an array; a Dataset says by its mask which labels "
            "are known. Leave it out."
        )
    draws: Any = seeds if np.ndim(seeds) else range(as_count(seeds, "seeds", OWNER))
    draws = [as_seed(seed, OWNER) for seed in draws]
    known = known_rows(train)
    per_class = None
    if labels is not None:
        per_class = _labels_per_class(labels, np.unique(train["y"].numpy()[known]))
    x_test, y_test = _labelled(test)
    validation = None if data.validation is None else _labelled(data.validation)
    num_labels = int(known.sum()) if labels is None else labels
    result = FewLabels(method, train.name, num_labels, (len(train), len(x_test)))
    x, path = _rows(train), None if folder is None else Path(folder)
    method = chosen_method(method, len(x))
    settings |= {"progress": progress}
    shares_encoder = method in METHODS and METHODS.get(method).takes_encoder
    if settings.get("encoder") is None and shares_encoder:
        classifier = SemiSupervisedClassifier(method, random_state=0, run_dir=path, **settings)
        settings["encoder"] = classifier.train_encoder(x)
    for seed in draws:
        few = train if per_class is None else train.keep_labels(per_class, seed=seed)
        y = np.where(known_rows(few), few["y"].numpy().astype(int), -1)
        classifier = SemiSupervisedClassifier(
            method, random_state=seed, run_dir=path and path / f"seed-{seed}", **settings
        )
        classifier.fit(x, y, validation=validation)
        result.seeds.append(seed)
        _add_draw(result, classifier, x_test, y_test)
    names = train.classes.get("y")
    if result.classifier is not None:
        codes = result.classifier.classes_.tolist()
        result.classes = codes if names is None else [names[int(code)] for code in codes]
    return result


def _train_and_test(data: Splits) -> tuple[Dataset, Dataset]:
    if not isinstance(data, Splits):
        raise TypeError(
            f"{OWNER}: data must be Splits, as pg.load returns, got {type(data).__name__}."
        )
    if "y" not in data.train.values or data.test is None:
        lacking = "labels y" if data.test is not None else "test data"
        raise ValueError(
            f"{OWNER}: the data have no {lacking}. Name the column of the labels, and split off test data."
        )
    return data.train, data.test


def _add_draw(
    result: FewLabels, classifier: SemiSupervisedClassifier, x: NDArray[Any], y: NDArray[Any]
) -> None:
    """Add the test errors of one draw's classifier."""
    probabilities = classifier.predict_proba(x)
    predicted = classifier.classes_[probabilities.argmax(1)]
    result.method, result.classifier = classifier.method_, classifier
    result.errors.append(float((predicted != y).mean()))
    codes = np.searchsorted(classifier.classes_, y)
    result.calibration.append(calibration_error(probabilities, codes))
    result.minutes.append(sum(classifier.seconds_.values()) / 60)
    result.curves.append(classifier.validation_errors_)
    counts = confusion_matrix(y, predicted, labels=classifier.classes_)
    result.confusion = counts if not result.confusion.size else result.confusion + counts


def known_rows(data: Dataset) -> NDArray[np.bool_]:
    """Which rows have a label, shape `(rows,)`."""
    known: NDArray[np.bool_] = data.fields["y"].known.numpy()
    return known


def _labelled(data: Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows that have a label, and their labels."""
    known = known_rows(data)
    return _rows(data)[known], data["y"].numpy()[known]


def _rows(data: Dataset) -> NDArray[Any]:
    return data["x"].flatten(1).numpy()


def _labels_per_class(labels: int, classes: NDArray[Any]) -> int:
    labels = as_count(labels, "labels", OWNER)
    if labels % len(classes):
        lower = max(1, labels // len(classes)) * len(classes)
        raise ValueError(
            f"{OWNER}: labels={labels} is no multiple of the {len(classes)} classes, which all get the "
            f"same number of labels; use {lower} or {lower + len(classes)}."
        )
    return labels // len(classes)
