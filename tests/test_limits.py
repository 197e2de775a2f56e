"""Where machines end: memory, disks, devices, downloads. Each says which way out there is."""

from __future__ import annotations

import errno
import gzip
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg
from probgen.cli import main as cli
from tests.fitting import QUICK, structured, vae, weights


def test_out_of_memory_for_real() -> None:
    """Requests that no machine can meet, refused by the allocator itself."""
    with pytest.raises(MemoryError, match=r"VAE\.sample: out of memory\. Lower n, or"):
        vae().sample(10**13)
    with pytest.raises(
        MemoryError, match=r"fit: out of memory\. Lower batch_size, num_particles or"
    ):
        pg.fit(vae(), structured(8), num_epochs=1, objective=pg.ELBO(10**13), **QUICK)
    with pytest.raises(MemoryError, match=r"Conditional: out of memory\. Lower hidden"):
        pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(10**13,))
    with pytest.raises(ValueError, match="num_samples must be at most 100,000,000"):
        pg.log_marginal_likelihood(vae(), structured(8), num_samples=10**13)


def test_out_of_memory_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own exception, and other errors as they are."""
    message = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...\nmore"

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError(message)

    pair = vae()
    before = weights(pair)
    with pytest.raises(MemoryError, match=r"Lower batch_size.*\(CUDA out of memory"):
        pg.fit(pair, structured(8), num_epochs=1, objective=full, **QUICK)
    assert torch.equal(weights(pair), before)
    monkeypatch.setattr("probgen.inference.scoring.importance.log_importance_weights", full)
    with pytest.raises(MemoryError, match="Lower num_samples, or score the data in parts"):
        pg.log_marginal_likelihood(pair, structured(8), num_samples=30, device="cpu")

    def other(*_: Any, **__: Any) -> Any:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        pg.fit(pair, structured(8), num_epochs=1, objective=other, **QUICK)


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["probgen", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_limits_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train = ("train", "vae", "--data", "digits", "--epochs", "1", "-q")
    assert command(monkeypatch, *train, "--hidden", "10000000000000") == 2
    assert "Lower hidden" in capsys.readouterr().err
    assert command(monkeypatch, *train, "--particles", "10000000000000") == 2
    assert "Lower batch_size, num_particles" in capsys.readouterr().err

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        assert command(disk, *train, "--run-dir", "r") == 2
    assert "The disk is full: free some space" in capsys.readouterr().err

    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"cut short"))
    monkeypatch.setenv("PROBGEN_DATA_DIR", str(tmp_path / "data"))
    assert command(monkeypatch, "train", "vae", "--data", "mnist", "-q") == 2
    assert "is not the canonical MNIST file" in capsys.readouterr().err


class Shuffles:
    """Batches in an order that Python's and NumPy's global generators choose."""

    def __iter__(self) -> Any:
        x = structured(40)
        order = np.random.permutation(40)  # noqa: NPY002
        for start in range(0, 40, 8):
            yield {"x": x[order[start : start + 8]] * (random.random() < 0.8)}


def test_generators_of_python_are_seeded_and_put_back(tmp_path: Path) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    whole, cut = vae(), vae()
    pg.fit(whole, Shuffles(), num_epochs=4, **QUICK)
    pg.fit(cut, Shuffles(), num_epochs=2, run_dir=tmp_path, **QUICK)
    again = vae()
    pg.fit(again, Shuffles(), num_epochs=4, run_dir=tmp_path, resume=True, **QUICK)
    assert torch.equal(weights(again), weights(whole))
    after = (random.random(), np.random.random())  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert after == (random.random(), np.random.random())  # noqa: NPY002
    run = pg.load_run(tmp_path)
    assert run.data["train"]["size"] is None and "Shuffles" in repr(run)
    with pytest.raises(pg.RunError, match="trained on arrays"):
        run.load_data()
