"""Warnings name the line of the user's code, however many calls of the package lie between."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import probgen as pg


def names_this_file(record: list[warnings.WarningMessage], message: str) -> bool:
    return [Path(w.filename).name for w in record if message in str(w.message)] == [
        Path(__file__).name
    ]


def test_a_score_and_a_declaration() -> None:
    torch.manual_seed(0)
    vae = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,))
    with pytest.warns(pg.UnreliableEstimateWarning) as record:
        pg.log_marginal_likelihood(vae, torch.ones(8, 6), num_samples=2, device="cpu")
    assert names_this_file(record.list, "")
    with pytest.warns(UserWarning, match="drawn anew for each datum") as record:
        pg.declare("p(w) p(x | w)", "q(w)", w=pg.Normal(1), x=pg.Normal(1))
    assert names_this_file(record.list, "declare")


def test_a_fit_and_a_classifier() -> None:
    x = torch.arange(32.0).reshape(16, 2) / 32 + 1e6
    fa = pg.models.FactorAnalysis(x=pg.Normal(2), z=pg.Normal(1))
    with pytest.warns(UserWarning, match="standardized") as record:
        pg.fit(fa, x.double() + 1e9, num_epochs=1, progress=False, device="cpu")
    assert names_this_file(record.list, "standardized")
    y = [0, 1] * 8
    settings: Any = {"num_epochs": 1, "latents": 1, "hidden": (4,), "random_state": 0}
    classifier = pg.SemiSupervisedClassifier("m2", device="cpu", **settings)
    with pytest.warns(UserWarning, match="one class|read as|unlabelled") as record:
        classifier.fit(x.numpy() % 7, [-1 if label == 0 else 1 for label in y])
    assert {Path(w.filename).name for w in record} == {Path(__file__).name}


def test_a_method_with_a_decorator_of_torch() -> None:
    """The line is not that of the decorator."""
    fa = pg.models.FactorAnalysis(x=pg.Normal(3), z=pg.Normal(1)).double()
    x = torch.randn(50, 3, dtype=torch.float64)
    for _ in range(2):  # with the default filters a message is shown once per line
        with pytest.warns(UserWarning, match="not converged") as record:
            fa.set_maximum_likelihood(x, max_iterations=1)
        assert names_this_file(record.list, "not converged")
