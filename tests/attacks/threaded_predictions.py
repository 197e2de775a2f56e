"""Predictions, draws and encodings in four threads at once: each is what it is alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

import probgen as pg
from tests.attacks import Outcome
from tests.attacks.threaded_fits import left


def attack(count: int, seed: int) -> Outcome:
    """`count` calls on one fitted classifier and its pair, over four threads."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(24, 3)) + np.repeat([0.0, 3.0], 12)[:, None]
    labels = np.where(np.arange(24) % 3 == 0, np.repeat([0, 1], 12), -1)
    made = pg.SemiSupervisedClassifier(
        "m2", hidden=(4,), latents=1, num_epochs=2, start=None, device="cpu", random_state=seed
    ).fit(rows, labels)
    data = made.to_x(rows)
    calls = [
        lambda i: made.predict_proba(rows),
        lambda i: made.pair_.sample(3, seed=i)["x"].numpy(),
        lambda i: pg.encode(made.pair_, data, seed=i, device="cpu")["z"].numpy(),
        lambda i: made.sample(2, random_state=i),
    ]

    def call(index: int) -> Any:
        try:
            return calls[index % 4](index % 16)
        except Exception as error:
            return repr(error)[:200]

    torch.manual_seed(seed)
    before = left()
    alone = [call(index) for index in range(16)]
    outcome = Outcome(count)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(call, range(count)))
    for index, result in enumerate(found):
        if isinstance(result, str):
            outcome.wrong.append(f"call {index}: {result}")
        elif not np.array_equal(result, alone[index % 16]):
            outcome.wrong.append(f"call {index}: another result than alone")
    if left() != before:
        outcome.wrong.append("validation or a generator is not as it was")
    return outcome
