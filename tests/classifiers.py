"""What the tests of the classifier share: quick settings, and rows of which a fifth have a label."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_iris

import probgen as pg

QUICK: Any = {"num_epochs": 40, "learning_rate": 5e-3, "random_state": 0, "device": "cpu"}


def quick(method: str = "m2", **settings: Any) -> pg.SemiSupervisedClassifier:
    return pg.SemiSupervisedClassifier(method, **{**QUICK, **settings})


def few_known() -> tuple[Any, Any, Any]:
    """Rows, their classes, and the classes with four fifths unknown."""
    x, y = load_iris(return_X_y=True)
    return x, y, np.where(np.arange(150) % 5 == 0, y, -1)
