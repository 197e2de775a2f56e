"""Kill a training at random moments, resume it each time, and compare with the one left alone."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from probgen.storage.files import read_tensors
from tests import kill_target
from tests.attacks import Outcome

ROOT = Path(__file__).parent.parent.parent


def attack(count: int, seed: int) -> Outcome:
    """`count` times SIGKILL; the weights and curves must be those of the undisturbed run, to the bit."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # for the imports of the server that children fork from
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _attack(Path(folder), count, seed)
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _attack(base: Path, count: int, seed: int) -> Outcome:
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kill_target"])  # children start at once
    outcome, rng = Outcome(count=count), random.Random(seed)
    alone = context.Process(target=kill_target.train, args=(str(base / "alone"),))
    alone.start()
    while not (base / "alone" / "checkpoint.safetensors").exists():  # the server is warm
        time.sleep(0.01)
        if not alone.is_alive():
            outcome.wrong.append("the run left alone did not begin")
            return outcome
    begun = time.monotonic()
    alone.join()
    share = (time.monotonic() - begun) / max(count, 2)
    folder, killed = base / "killed", 0
    checkpoint = folder / "checkpoint.safetensors"
    reached: list[int] = []
    while True:
        stamp = _stamp(checkpoint)
        child = context.Process(target=kill_target.train, args=(str(folder),))
        child.start()
        if killed < count:
            # Every other one while it starts, the rest in the midst of training: short enough that
            # all together do not reach the end.
            while killed % 2 and _stamp(checkpoint) == stamp and child.is_alive():
                time.sleep(0.001)
            child.join(rng.uniform(0.0, 0.75 * share))
            if child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
                killed += 1
        child.join(240)
        if checkpoint.exists():
            reached.append(len(read_tensors(checkpoint)[1]["progress"]["elbo"]))
        if child.exitcode == 0:
            break
        if child.exitcode != -signal.SIGKILL:
            outcome.wrong.append(f"after {killed} kills a resumed run ended with {child.exitcode}")
            return outcome
    outcome.wrong += _differences(base / "alone", folder)
    if killed != count:
        outcome.wrong.append(f"the run ended after {killed} of {count} kills")
    if reached != sorted(reached):
        outcome.wrong.append(f"epochs were lost: {reached}")
    return outcome


def _differences(alone: Path, killed: Path) -> list[str]:
    expected, about = read_tensors(alone / "weights.safetensors")
    found, also = read_tensors(killed / "weights.safetensors")
    wrong = [
        f"{name} differs"
        for name in expected.keys() | found.keys()
        if not (name in expected and name in found and torch.equal(expected[name], found[name]))
    ]
    for record in (about["progress"], also["progress"]):
        del record["seconds"]
    if about["progress"] != also["progress"]:
        wrong.append("the curves differ")
    if len(about["progress"]["elbo"]) != kill_target.EPOCHS or len(expected) <= 5:
        wrong.append("the run left alone is not whole")
    return wrong + [f"{path.name} was left behind" for path in killed.glob(".*.part")]


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
