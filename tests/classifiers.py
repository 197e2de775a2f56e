"""What the tests of the classifier share: quick settings."""

from __future__ import annotations

from typing import Any

import probgen as pg

QUICK: Any = {"num_epochs": 40, "learning_rate": 5e-3, "random_state": 0, "device": "cpu"}


def quick(method: str = "m2", **settings: Any) -> pg.SemiSupervisedClassifier:
    return pg.SemiSupervisedClassifier(method, **{**QUICK, **settings})
