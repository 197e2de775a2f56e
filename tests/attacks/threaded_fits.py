"""Fits in several threads at once: each gives what it gives alone, and nothing is left switched."""

from __future__ import annotations

import copy
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyro
import torch

import probgen as pg
from tests.attacks import Outcome

SETTINGS = ("validate_distributions_pyro", "validate_distributions_torch", "validate_infer",
            "validate_poutine")  # fmt: skip


def left() -> list[Any]:
    """What a fit may switch while it runs: validation and the states of the generators."""
    return [
        *(pyro.settings.get(name) for name in SETTINGS),
        torch.get_rng_state().tolist(),
        repr(np.random.get_state()),  # noqa: NPY002
        random.getstate(),
    ]


def fitted(pair: Any, data: Any, seed: int) -> list[Any]:
    """The curve, the weights and a score of a fit."""
    pair = copy.deepcopy(pair).eval()
    result = pg.fit(pair, data, num_epochs=2, batch_size=8, seed=seed, validation=data,
                    progress=False, device="cpu")  # fmt: skip
    weights = torch.cat([p.detach().flatten() for p in pair.parameters()])
    modes = [part.training for part in pair.modules()]
    return [result.elbo, result.validation_elbo, weights.tolist(), modes]


def attack(count: int, seed: int) -> Outcome:
    """`count` fits, two threads at a time and then four."""
    torch.manual_seed(seed)
    x = (torch.rand(24, 4) < 0.5).float()
    y = torch.arange(24) % 3
    pairs = [
        pg.models.VAE(x=pg.Bernoulli(4), z=pg.Normal(2), hidden=(4,)),
        pg.models.M2(x=pg.Bernoulli(4), y=pg.Categorical(3), z=pg.Normal(2), hidden=(4,)),
    ]
    half = pg.Dataset({"x": x, "y": y}, observed={"y": y == 0})
    data = [x, half]
    jobs = [(pairs[i % 2], data[i % 2], seed + i) for i in range(count)]
    before = left()
    alone = [_tried(*job) for job in jobs]
    outcome = Outcome(count)
    for threads, part in ((2, range(0, count, 2)), (4, range(1, count, 2))):
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda i: _tried(*jobs[i]), part))
        for index, result in zip(part, found, strict=True):
            if isinstance(result, str):
                outcome.wrong.append(f"fit {index}, {threads} threads: {result}")
            elif result != alone[index]:
                outcome.wrong.append(f"fit {index}, {threads} threads: another result than alone")
        if left() != before:
            outcome.wrong.append(f"{threads} threads: validation or a generator is not as it was")
    return outcome


def _tried(pair: Any, data: Any, seed: int) -> list[Any] | str:
    try:
        return fitted(pair, data, seed)
    except Exception as error:
        return repr(error)[:200]
