"""Methods of learning from few labels: found by their files, added by a class, rows encoded once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.semi_supervised import LabelSpreading

import probgen as pg
from probgen.basics.registry import Registry
from probgen.classifier import label_spreading, method, parameters
from probgen.classifier.method import METHODS, TrainedModel, TrainingSettings
from probgen.classifier.methods import m1, m1m2
from probgen.classifier.methods.m2 import M2Method
from tests.classifiers import quick


def test_every_file_is_a_method() -> None:
    assert METHODS.names() == ("adgm", "m1", "m1+m2", "m2")
    assert METHODS.help("m1+m2").startswith("M1+M2:")


class UniformM2(M2Method):
    """M2 with a uniform prior of the classes, whatever the settings say."""

    takes_encoder = True

    def train(self, x: Any, y: Any, data: Any, settings: TrainingSettings) -> TrainedModel:
        return super().train(x, y, data, replace(settings, class_prior="uniform"))


def test_a_method_of_a_users_own(iris: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _, known = iris
    registry = Registry("method", "probgen.classifier.methods", bases=["Method"])
    for module in (method, parameters):
        monkeypatch.setattr(module, "METHODS", registry)
    with pytest.raises(ValueError, match=r"method must be one of .* got 'flat'"):
        quick("flat", num_epochs=3).fit(x, known)
    registry.register("flat", UniformM2)
    own = quick("flat", num_epochs=3).fit(x, known)
    uniform = quick("m2", num_epochs=3, class_prior="uniform").fit(x, known)
    assert own.method_ == "flat"
    assert np.array_equal(own.predict_proba(x), uniform.predict_proba(x))
    assert own.sample(2, y=1, random_state=0).shape == (2, 4)
    encoder = quick("m1", num_epochs=3).fit(x, known).encoder_
    quick("flat", num_epochs=1, encoder=encoder).fit(x, known)  # its class says that it takes one
    with pytest.raises(ValueError, match=r"encoder is for method m1 and m1\+m2 and flat"):
        quick("m2", encoder=encoder).fit(x, known)


@pytest.mark.parametrize("name", ["m1", "m1+m2"])
def test_rows_are_encoded_once(name: str, iris: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _, known = iris
    encoded: list[int] = []
    features = pg.features

    def counted(pair: Any, data: Any, **settings: Any) -> Any:
        encoded.append(len(data))
        return features(pair, data, **settings)

    for module in (m1, m1m2, method):
        monkeypatch.setattr(module, "features", counted)
    quick(name, num_epochs=2).fit(x, known)
    assert encoded == [150]


@pytest.mark.parametrize("wide", [False, True])
def test_neighbours_are_searched_for_once(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the labels are those of scikit-learn's `fit` and `predict`, which search twice."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    x = np.eye(3)[y] + 0.6 * rng.normal(size=(200, 3))
    if wide:
        x = np.concatenate([x, 0.01 * rng.normal(size=(200, 60))], 1)
        monkeypatch.setattr(label_spreading, "MAX_WIDTH", 100)  # without principal components
    known = np.arange(200) < 20
    searches: list[int] = []
    kneighbors = NearestNeighbors.kneighbors

    def counted(self: Any, *given: Any, **settings: Any) -> Any:
        searches.append(1)
        return kneighbors(self, *given, **settings)

    codes = np.where(known, y, -1)
    model = LabelSpreading("knn", n_neighbors=10, alpha=0.9, max_iter=100).fit(x, codes)
    expected = np.where(known, y, model.predict(x))
    monkeypatch.setattr(NearestNeighbors, "kneighbors", counted)
    data = pg.Dataset({"x": x, "y": y}, observed={"y": torch.from_numpy(known)})
    assert np.array_equal(label_spreading.spread_labels(data).numpy(), expected)
    assert len(searches) == 1
