"""Labels for rows without one, spread from labelled rows over nearest neighbours."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from sklearn.semi_supervised import LabelSpreading

from probgen.data.dataset import Dataset

NUM_NEIGHBOURS = 10

MAX_WIDTH = 50
"""Neighbours are searched for in so many principal components where the data have more elements."""


def fit_label_spreading(x: Any, codes: Any, *, kernel: Any = "knn") -> LabelSpreading:
    """Fit scikit-learn's label spreading.

    Args:
        x: rows, shape `(rows, elements)`.
        codes: the class code of each row, -1 where the label is unknown.
        kernel: `"knn"` for the ten nearest neighbours, or a function that returns their graph.
    """
    model = LabelSpreading(
        kernel, n_neighbors=min(NUM_NEIGHBOURS, len(x) - 1), alpha=0.9, max_iter=100
    )
    # After 100 iterations with alpha=0.9 changes are about 1/40,000 of the first one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, codes)


def spread_labels(data: Dataset) -> torch.Tensor:
    """A class code for every row: its own label where it is known, else that of its neighbours.

    Args:
        data: x, and the class codes y, with a mask where some are unknown.

    Returns:
        Class codes, shape `(rows,)`.
    """
    codes, known = data["y"].long(), data.fields["y"].known
    if bool(known.all()):
        return codes
    x = data["x"].double().numpy()
    if min(x.shape) > MAX_WIDTH:  # the search for neighbours takes time in proportion to the width
        x = PCA(MAX_WIDTH, random_state=0).fit_transform(x)
    neighbours = NearestNeighbors(n_neighbors=min(NUM_NEIGHBOURS, len(x) - 1)).fit(x)
    graph = neighbours.kneighbors_graph(x)
    indices: NDArray[Any] = graph.indices.reshape(len(x), -1).copy()
    model = fit_label_spreading(x, torch.where(known, codes, -1).numpy(), kernel=lambda *_: graph)
    # The neighbours of a row vote. They say more than the distribution that reached the row itself.
    votes = np.stack([model.label_distributions_[row].sum(0) for row in indices])
    voted = torch.from_numpy(model.classes_[votes.argmax(1)]).long()
    return torch.where(known, codes, voted)
