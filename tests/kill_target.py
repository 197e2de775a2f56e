"""What the kill test kills: a training run in a process of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import matplotlib.figure  # noqa: F401  what follows is loaded once, before the children fork
import safetensors.torch  # noqa: F401
import torch
import torch._dynamo

import probgen as pg
from probgen.inference.training import fit as svi  # noqa: F401
from tests.pairs import X

EPOCHS = 150


def train(folder: str) -> None:
    """Begin or go on with the run in a folder: dropout, warm-up, early stopping, a schedule."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(
        torch.nn.Linear(X, 32), torch.nn.Dropout(0.2), torch.nn.Linear(32, 4)
    )
    pair = pg.models.VAE(x=pg.Bernoulli(X), z=pg.Normal(2), hidden=(16,), encoder=encoder)
    grey = torch.rand(400, X, generator=torch.Generator().manual_seed(1))
    data = pg.Dataset({"x": grey}).binarized("dynamic").split(validation=100)
    held = data.validation.binarized("static") if data.validation else None
    pg.fit(
        pair,
        data,
        num_epochs=EPOCHS,
        batch_size=32,
        validation=held,
        patience=EPOCHS,
        objective=pg.ELBO(warmup_epochs=20),
        scheduler=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=EPOCHS),
        run_dir=Path(folder),
        resume=True,
        device="cpu",
        progress=False,
    )
