"""Settings of all tests: seeds, a matplotlib backend without a screen, and what a test must not leave."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")

# The same cases every time; `pytest --hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="session")
def iris() -> tuple[Any, Any, Any]:
    """Rows, their classes, and the classes with four fifths unknown."""
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return x, y, np.where(np.arange(150) % 5 == 0, y, -1)


@pytest.fixture(scope="session")
def fitted(iris: Any) -> dict[str, Any]:
    """A classifier of each method, which no test may change."""
    from probgen.classifier.method import METHODS
    from tests.classifiers import quick

    x, _, known = iris
    return {method: quick(method, num_epochs=200).fit(x, known) for method in METHODS.names()}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what the machine lacks: the MNIST files, a GPU."""
    root = os.environ.get("PROBGEN_DATA_DIR")
    at_hand = bool(root) and (Path(root or "") / "mnist").is_dir()
    for item in items:
        if "mnist" in item.keywords and not at_hand:
            item.add_marker(pytest.mark.skip(reason="PROBGEN_DATA_DIR has no mnist folder"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no GPU on this machine"))
