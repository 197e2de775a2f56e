"""The processes of a fit: they end with the one that called, and never train the same fit several times.
And what a call leaves in its own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import probgen as pg
from probgen.inference.training import fit as svi
from probgen.inference.training.results import progress_of
from tests.fitting import structured, vae, weights

PATIENCE = 300.0
"""Seconds after which a process is taken to wait for ever."""

SETTINGS: Any = {"batch_size": 8, "learning_rate": 1e-2, "progress": False, "device": "cpu"}

SCRIPT = """
import sys, torch, probgen as pg

def train():
    torch.manual_seed(0)
    vae = pg.models.VAE(x=pg.Normal(4), z=pg.Normal(2), hidden=(4,))
    pg.fit(vae, torch.ones(16, 4), num_epochs=int(sys.argv[2]), devices=2, device="cpu",
           batch_size=8, progress=False, compile=False, run_dir=sys.argv[1])
"""
GUARDED = SCRIPT + 'if __name__ == "__main__":\n    train()\n'
UNGUARDED = SCRIPT + "train()\n"


def begin(folder: Path, text: str, epochs: int) -> subprocess.Popen[str]:
    """Run a script in a process group of its own."""
    folder.mkdir()
    script = folder / "script.py"
    script.write_text(text)
    return subprocess.Popen(
        [sys.executable, str(script), str(folder / "run"), str(epochs)], text=True,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def is_alive(process: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def workers(caller: int) -> list[int]:
    """The processes of a caller's group beside itself that are there for its fit."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            group = int((path / "stat").read_text().rpartition(")")[2].split()[2])
            command = (path / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if group == caller and b"spawn_main" in command:
            found.append(int(path.name))
    return found


def until(condition: Any, seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize(
    "signals",
    [
        {"interrupt": signal.SIGINT, "kill": signal.SIGKILL},
        pytest.param({"terminate": signal.SIGTERM}, marks=pytest.mark.long),  # it kills too
    ],
    ids="-".join,
)
def test_the_processes_end_with_the_one_that_called(
    signals: dict[str, signal.Signals], tmp_path: Path
) -> None:
    """By Ctrl-C and by a kill, and the run can be gone on with at once."""
    callers = {name: begin(tmp_path / name, GUARDED, 10**6) for name in signals}
    try:
        for name, caller in callers.items():
            assert until(lambda f=tmp_path / name: (f / "run" / "metrics.csv").exists())
            several = workers(caller.pid)
            assert len(several) == 2
            os.kill(caller.pid, signals[name])
            assert caller.wait(30) != 0
            assert until(lambda several=several: not any(map(is_alive, several)), 10), name
    finally:
        for caller in callers.values():
            if caller.poll() is None or workers(caller.pid):
                os.killpg(caller.pid, signal.SIGKILL)
            caller.communicate()
    for name in callers:
        torch.manual_seed(0)
        pair = pg.models.VAE(x=pg.Normal(4), z=pg.Normal(2), hidden=(4,))
        with pytest.raises(ValueError, match=r"begun with devices 2"):  # and not: somebody holds it
            pg.fit(pair, torch.ones(16, 4), num_epochs=1, batch_size=8, progress=False,
                   device="cpu", run_dir=tmp_path / name / "run", resume=True)  # fmt: skip


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    caller = begin(tmp_path / "a", UNGUARDED, 1)
    _, errors = caller.communicate(timeout=PATIENCE)
    last = errors.strip().splitlines()[-1]
    assert caller.returncode == 1 and last.startswith("RuntimeError: fit: a process died")
    assert 'put the call under `if __name__ == "__main__":`' in last
    assert "devices=2 starts processes, and each runs the script from the top" in errors


def test_two_such_fits_start_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the start of processes replaced by a look at whether another is under way."""
    under_way: list[int] = []
    most: list[int] = []

    def launched(work: Any, arguments: Any, *where: Any, **words: Any) -> Any:
        under_way.append(1)
        time.sleep(0.2)
        most.append(len(under_way))
        under_way.pop()
        result = pg.fit(arguments["pair"], arguments["data"], num_epochs=1, **SETTINGS)
        return dict(result.pair.state_dict()), progress_of(result)

    monkeypatch.setattr(svi, "launch", launched)
    pairs, x = [vae(), vae()], structured(32)
    threads = [
        threading.Thread(
            target=pg.fit, args=(pair, x), kwargs={"num_epochs": 1, "devices": 2, **SETTINGS},
            daemon=True,
        )
        for pair in pairs
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert most == [1, 1]
    assert torch.equal(weights(pairs[0]), weights(pairs[1]))


@pytest.mark.long
@pytest.mark.slow
def test_two_such_fits_in_two_threads() -> None:
    """One after the other, each as alone."""
    x = structured(32)
    found: dict[str, Any] = {}

    pairs = {"a": vae(), "b": vae()}

    def train(name: str) -> None:
        try:
            result = pg.fit(pairs[name], x, num_epochs=1, devices=2, **SETTINGS)
            found[name] = weights(result.pair)
        except BaseException as error:
            found[name] = error

    threads = [threading.Thread(target=train, args=(name,), daemon=True) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found.keys() == {"a", "b"}, "they wait for ever"
    assert torch.equal(found["a"], found["b"]), found


COMPILES = """
import gc, multiprocessing, os, signal, sys, threading, torch, pyro, probgen as pg

def state():
    return {
        "path": [place for place in sys.path if not place.endswith("_vendor")],
        "recursion": sys.getrecursionlimit(),
        "environment": dict(os.environ),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "processes": multiprocessing.active_children(),
        "torch threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "precision": (torch.get_default_dtype(), torch.get_float32_matmul_precision()),
        "gradients": torch.is_grad_enabled(),
        "signals": [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)],
        "hooks": (sys.excepthook, sys.gettrace(), gc.isenabled(), gc.get_threshold()),
        "generator": torch.get_rng_state().tolist(),
        "validation": pyro.settings.get(),
    }

vae = pg.models.VAE(x=pg.Normal(4), z=pg.Normal(2), hidden=(4,))
x = torch.ones(16, 4)
before = state()
pg.fit(vae, x, num_epochs=2, batch_size=8, compile=True, progress=False, device="cpu")
after = state()
print("compiled", "torch._inductor.codecache" in sys.modules)
print("left", {name: (before[name], after[name]) for name in before if before[name] != after[name]})
"""


@pytest.mark.slow
def test_compiling_leaves_the_process_as_it_was() -> None:
    """All but the place where setuptools, once imported, looks for further modules."""
    done = subprocess.run([sys.executable, "-c", COMPILES], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["compiled True", "left {}"], done.stderr[-1000:]
