"""Learning from few labels again and again: the error over draws of the labelled rows."""

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
from probgen.classifier.methods import chosen_method
from probgen.data.dataset import Dataset, Splits
from probgen.inference.queries.classification import calibration_error

OWNER = "few_labels"


@dataclass
class FewLabels:
    """The test errors of a method over draws of the labelled rows.

    Attributes:
        method: the method.
        data: what the data are called.
        labels: labelled training rows, in all.
        num_data: training rows and test rows.
        seeds: of each draw.
        errors: share of wrong test rows, of each draw.
        calibration: expected calibration error on the test rows, of each draw.
        minutes: of training, of each draw, without the VAE of all.
        curves: pairs of an epoch and the share of wrong validation rows, of each draw.
        confusion: counts over all draws, `(classes, classes)`, a row a true class.
        classes: what the classes are called.
        classifier: of the last draw.
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
        """Mean and standard deviation of the error over draws; NaN for one draw."""
        spread = float(np.std(self.errors, ddof=1)) if len(self.errors) > 1 else float("nan")
        return float(np.mean(self.errors)), spread

    def __repr__(self) -> str:
        mean, spread = self.error
        several = len(self.errors) > 1
        about = f" ± {100 * spread:.2f}" if several else ""
        draws = f"{len(self.seeds)} draws of them (± standard deviation)" if several else "one draw"
        rows = [("seed", "test error, %", "calibration error", "minutes")]
        for seed, wrong, off, minutes in zip(
            self.seeds, self.errors, self.calibration, self.minutes, strict=True
        ):
            rows.append((str(seed), f"{100 * wrong:.2f}", f"{off:.3f}", f"{minutes:.1f}"))
        names = [str(name) for name in self.classes]
        table = [("true \\ predicted", *names)]
        table += [
            (name, *map(str, row)) for name, row in zip(names, self.confusion.tolist(), strict=True)
        ]
        return "\n".join([
            f"{self.method} on {self.data}: {100 * mean:.2f}{about} % of {self.num_data[1]:,} test rows "
            f"wrong, with {self.labels} of {self.num_data[0]:,} labels known, {draws}",
            "", *aligned(rows, left=())[0], "",
            "Confusion, all draws:", *aligned(table, left={0})[0],
        ])  # fmt: skip

    def record(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        left = ("classifier", "confusion")
        plain = {name: value for name, value in vars(self).items() if name not in left}
        mean, spread = self.error
        return {
            **plain, "confusion": self.confusion.tolist(), "classes": [str(c) for c in self.classes],
            "mean_error": mean, "standard_deviation": spread if len(self.errors) > 1 else None,
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

    What a VAE learns does not depend on labels, so M1 is trained once, with seed 0.

    Args:
        data: training rows x with labels y, and test rows; validation rows, if any, give the curves.
        method: as `pg.SemiSupervisedClassifier` takes it.
        labels: how many training rows keep their label, as many of each class; by default all that
            have one.
        seeds: how many draws, 0, 1, ..., or which.
        folder: for run directories; a killed call goes on when it is made again.
        progress: show progress bars.
        **settings: of `pg.SemiSupervisedClassifier`.

    Raises:
        ValueError: no labels, no test data, or labels that cannot be shared among the classes.
        KeyboardInterrupt: Ctrl-C; the folder keeps what is trained, and the same call goes on from there.

    Example:
        >>> import probgen as pg
        >>> data = pg.load("digits", transform="none")
        >>> found = pg.few_labels(data, "m2", labels=100, seeds=1, progress=False, num_epochs=2)
        >>> found.confusion.sum()
        np.int64(360)
    """
    if not isinstance(data, Splits):
        raise TypeError(
            f"{OWNER}: data must be Splits, as pg.load gives, got {type(data).__name__}."
        )
    train, test = data.train, data.test
    if "y" not in train.values or test is None:
        lacking = "labels y" if test is not None else "test data"
        raise ValueError(
            f"{OWNER}: the data have no {lacking}. Name the labels' column, and split test data off."
        )
    if "unlabelled" in settings:
        raise ValueError(
            f"{OWNER}: unlabelled= is for rows of your own; data say by a mask what is known."
        )
    several: Any = seeds if np.ndim(seeds) else range(as_count(seeds, "seeds", OWNER))
    draws = [as_seed(seed, OWNER) for seed in several]
    known = known_rows(train)
    kinds = np.unique(train["y"].numpy()[known])
    per_class = None if labels is None else _per_class(labels, kinds)
    x_test, y_test = _labelled(test)
    held = None if data.validation is None else _labelled(data.validation)
    num_labels = int(known.sum()) if labels is None else labels
    result = FewLabels(method, train.name, num_labels, (len(train), len(x_test)))
    x, path = _rows(train), None if folder is None else Path(folder)
    method = chosen_method(method, len(x))
    settings |= {"progress": progress}
    if settings.get("encoder") is None and method in ("m1", "m1+m2"):
        made = SemiSupervisedClassifier(method, random_state=0, run_dir=path, **settings)
        settings["encoder"] = made.train_encoder(x)
    for seed in draws:
        few = train if per_class is None else train.keep_labels(per_class, seed=seed)
        y = np.where(known_rows(few), few["y"].numpy().astype(int), -1)
        made = SemiSupervisedClassifier(
            method, random_state=seed, run_dir=path and path / f"seed-{seed}", **settings
        )
        made.fit(x, y, validation=held)
        probabilities = made.predict_proba(x_test)
        found = made.classes_[probabilities.argmax(1)]
        result.method, result.classifier = made.method_, made
        result.seeds.append(seed)
        result.errors.append(float((found != y_test).mean()))
        codes = np.searchsorted(made.classes_, y_test)
        result.calibration.append(calibration_error(probabilities, codes))
        result.minutes.append(sum(made.seconds_.values()) / 60)
        result.curves.append(made.validation_errors_)
        counts = confusion_matrix(y_test, found, labels=made.classes_)
        result.confusion = counts if not result.confusion.size else result.confusion + counts
        names = train.classes.get("y")
        result.classes = [c if names is None else names[int(c)] for c in made.classes_.tolist()]
    return result


def known_rows(data: Dataset) -> NDArray[np.bool_]:
    """Which rows have a label."""
    mask = (data.observed or {}).get("y")
    return np.ones(len(data), bool) if mask is None else mask.numpy()


def _labelled(data: Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows that have a label, and their labels."""
    known = known_rows(data)
    return _rows(data)[known], data["y"].numpy()[known]


def _rows(data: Dataset) -> NDArray[Any]:
    return data["x"].flatten(1).numpy()


def _per_class(labels: int, kinds: NDArray[Any]) -> int:
    labels = as_count(labels, "labels", OWNER)
    if labels % len(kinds):
        lower = max(1, labels // len(kinds)) * len(kinds)
        raise ValueError(
            f"{OWNER}: labels={labels} cannot be shared among {len(kinds)} classes alike; use {lower} or "
            f"{lower + len(kinds)}."
        )
    return labels // len(kinds)
