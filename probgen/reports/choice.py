"""The pictures that a run's model and data allow, and the reasons why others are left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from probgen.data.dataset import Dataset, Splits
from probgen.data.support import is_class
from probgen.implicit import ImplicitModel
from probgen.inference.inputs import known_part
from probgen.inference.queries.prior_quantiles import prior_quantiles
from probgen.inference.scoring.marginal_likelihood import log_marginal_likelihood
from probgen.inference.scoring.scores import provenance
from probgen.inference.traces import NoDensityError
from probgen.pair import LatentVariableModel
from probgen.plots.curves import learning_curve
from probgen.plots.diagnostics import importance_weights
from probgen.plots.images import reconstructions, samples
from probgen.plots.latents import latent_scatter
from probgen.plots.metrics import metric_curves
from probgen.plots.tables import draws, elements
from probgen.plots.variation import manifold, traversals
from probgen.point_mass import point_masses
from probgen.runs.run import Run

QUICK_DATA, QUICK_SAMPLES = 500, 500
"""Number of data and of importance samples for the diagnostics if no score was saved."""

MOST_POINTS, MOST_IMAGES, MOST_CLASSES = 2000, 40, 50
"""Data in a picture of points, images in one of reconstructions, and classes with own colours."""

ALL_PICTURES = (
    "learning_curve", "metrics", "reconstructions", "samples", "latent_scatter", "manifold",
    "traversals", "importance_weights",
)  # fmt: skip


@dataclass
class PictureChoice:
    """The pictures of a run.

    Attributes:
        run: the run.
        test: the test data; or the validation or the training data, if there are none.
        column_names: names of a table's columns, if it has names.
        progress: show a progress bar while importance weights are drawn.
        pictures: functions that draw on the axes `ax=`, by the picture's name.
        skipped: why a picture is not drawn, by its name.
    """

    run: Run
    test: Dataset
    column_names: list[str] | None
    progress: bool
    pictures: dict[str, Callable[..., Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run, splits: Splits, progress: bool = False) -> PictureChoice:
        """Choose the pictures of a run for some data."""
        test = next(reversed(splits.parts.values())).stored()
        choice = cls(run, test, _column_names(splits), progress)
        choice._add_curves()
        pair = choice.pair
        name = next((n for n in pair.data_names if n in test.values and n != "y"), None)
        if name is None or not pair.factors("p"):
            choice._skip("the pair has no conditionals that name its data", *ALL_PICTURES)
            choice._add_weights("x", False)
            if not run.result.metrics:
                choice.skipped.pop("metrics", None)
        else:
            is_images = test.fields[name].is_images
            choice._add_data(name, is_images)
            choice._add_latents(name, is_images)
            choice._add_weights(name, is_images)
            if point_masses(pair.factors("q")):
                reason = "the codes of an autoencoder are not distributed like the prior"
                for picture in ("samples", "manifold", "traversals"):
                    choice.pictures.pop(picture, None)
                    choice.skipped[picture] = reason
        choice.skipped = {n: r for n, r in choice.skipped.items() if n not in choice.pictures}
        return choice

    @property
    def pair(self) -> LatentVariableModel:
        """The pair of the run."""
        return self.run.pair

    @property
    def known(self) -> Dataset:
        """The variables of the test data that the pair knows."""
        return known_part(self.pair, self.test)

    def _skip(self, reason: str, *names: str) -> None:
        for name in names:
            self.skipped.setdefault(name, reason)

    def _add_curves(self) -> None:
        result = self.run.result
        if result.elbo:
            self.pictures["learning_curve"] = partial(learning_curve, result)
        else:
            self._skip("the run ended before its first epoch", "learning_curve")
        if result.metrics:
            self.pictures["metrics"] = partial(metric_curves, result)

    def _add_data(self, name: str, is_images: bool) -> None:
        """Reconstructions of the data, and samples."""
        pair, known = self.pair, self.known
        if is_class(pair.variables[name]):
            reason = f"{name} consists of classes, which have no mean"
            self._skip(reason, "reconstructions", "samples", "manifold", "traversals")
            return
        points = _first(known, MOST_POINTS)
        if isinstance(pair, ImplicitModel):
            self._skip("an implicit model infers nothing from data", "reconstructions")
        elif not pair.factors("q") or _needs_class(pair, known):
            self._skip("the guide infers no latent without the class", "reconstructions")
        elif is_images:
            first_images = _first(known, MOST_IMAGES)
            self.pictures["reconstructions"] = partial(
                reconstructions, pair, first_images, name=name
            )
        else:
            self.pictures["reconstructions"] = partial(
                elements, pair, points, name=name, labels=self.column_names
            )
        given: dict[str, Any] = {n: _all_classes(pair, n) for n in pair.input_names}
        if any(value is None for value in given.values()) or (given and not is_images):
            self._skip(f"{', '.join(given)} must be given", "samples")
        elif is_images:
            columns = len(next(iter(given.values()))) if given else None
            n = 8 if given else 100
            self.pictures["samples"] = partial(
                samples, pair, n=n, name=name, columns=columns, **given
            )
        else:
            self.pictures["samples"] = partial(draws, pair, points, name=name)

    def _add_latents(self, name: str, is_images: bool) -> None:
        """Posterior means of the data, and what changes if the latent varies."""
        pair, points = self.pair, _first(self.known, MOST_POINTS)
        factors = pair.factors("q").items()
        latent = next((n for n, factor in factors if not factor.variable.discrete), None)
        if latent is None:
            reason = "the guide infers no continuous latent"
            for picture in ("latent_scatter", "manifold", "traversals"):
                self.skipped[picture] = reason
            return
        where: dict[str, Any] = {"name": name, "latent": latent}
        labels = _labels(_first(self.test, MOST_POINTS))
        self.pictures["latent_scatter"] = partial(latent_scatter, pair, points, labels, **where)
        if "manifold" in self.skipped:  # x has no mean
            return
        prior = pair.factors("p").get(latent)
        is_root = prior is not None and not prior.parents and not pair.input_names
        without_quantiles = f"the elements of {latent} have no quantiles under the prior"
        has_quantiles = _has_quantiles(pair, latent, points)
        if not is_images:
            self._skip("the data are no images", "manifold")
        elif pair.variables[latent].event_shape.numel() != 2 or not is_root:
            reason = (
                f"{latent} does not have two elements, or its prior depends on another variable"
            )
            self._skip(reason, "manifold")
        elif not has_quantiles:
            self._skip(without_quantiles, "manifold")
        else:
            self.pictures["manifold"] = partial(manifold, pair, **where)
        if _needs_class(pair, points):
            self._skip("the class of the data is not given", "traversals")
        elif not has_quantiles:
            self._skip(without_quantiles, "traversals")
        else:
            self.pictures["traversals"] = partial(
                traversals, pair, points, labels=self.column_names, are_images=is_images, **where
            )

    def _add_weights(self, name: str, is_images: bool) -> None:
        """Importance weights, of a saved score of these data or of a quick one."""
        pair, scored = self.pair, self.known
        if isinstance(pair, ImplicitModel):
            self.skipped["importance_weights"] = "the model has no density"
            return
        data_hash = provenance(scored, list(scored.values))["data_hash"]
        saved = reversed(self.run.scores.values())
        score = next((score for score in saved if score.data_hash == data_hash), None)
        if score is None:
            scored = _first(scored, QUICK_DATA)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the picture shows the same information
                try:
                    score = log_marginal_likelihood(
                        pair, scored, num_samples=QUICK_SAMPLES, progress=self.progress
                    )
                except NoDensityError:
                    reason = "the guide is a point mass, without a density"
                    self.skipped["importance_weights"] = reason
                    return
        self.pictures["importance_weights"] = partial(
            importance_weights, score, scored if is_images else None, name=name
        )


def _first(data: Dataset, n: int) -> Dataset:
    return data.subset(slice(0, n))


def _labels(data: Dataset) -> Any:
    """The class of each datum, or its name if classes have names; `None` if not all are known."""
    if "y" not in data.values or "y" in data.observed or len(data["y"].unique()) > MOST_CLASSES:
        return None
    codes = data["y"].numpy()
    return np.asarray(data.classes["y"])[codes] if "y" in data.classes else codes


def _all_classes(pair: LatentVariableModel, name: str) -> torch.Tensor | None:
    """Every class of an input; `None` if the input is not one class."""
    variable = pair.variables[name]
    if is_class(variable) and not variable.event_shape:
        return torch.arange(variable.num_classes)  # type: ignore[attr-defined]
    return None


def _column_names(splits: Splits) -> list[str] | None:
    """The names of a table's columns; `None` if they are only numbered."""
    columns: list[str] | None = (splits.source or {}).get("columns")
    return None if columns is None or all(name.isdigit() for name in columns) else columns


def _has_quantiles(pair: LatentVariableModel, latent: str, data: Dataset) -> bool:
    """Whether the elements of a latent have quantiles under its prior."""
    inputs = {n: v for n, v in _first(data, 1).values.items() if n in pair.input_names}
    try:
        prior_quantiles(pair, latent, torch.zeros(1), inputs)
    except ValueError:
        return False
    return True


def _needs_class(pair: LatentVariableModel, data: Dataset) -> bool:
    """Whether a class that x depends on is not given for all data."""
    partly = data.observed
    return any(name not in data.values or name in partly for name in pair.summed_names)
