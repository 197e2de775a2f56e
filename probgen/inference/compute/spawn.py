"""Several devices of one machine: lightning-fabric starts one process per device."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probgen.basics.settings import same_environment
from probgen.data.dataset import Dataset, Splits
from probgen.inference.compute.processes import Group, check_not_launched, joined, leave
from probgen.storage.files import read_tensors, write_tensors

Outcome = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and a record of plain values."""

Work = Callable[..., Outcome]
_STATE = "state.safetensors"
_BEGUN = "begun"
"""A file that exists once a process has started its work."""

SECONDS_TO_END = 5.0
"""How long a terminated process may take to end before it is killed."""

GUARD = 'put the call under `if __name__ == "__main__":`.'


def launch(
    work: Work, arguments: Mapping[str, Any], devices: int, device: torch.device, *, owner: str,
    advice: str,
) -> Outcome:  # fmt: skip
    """Run `work` in one process per device, and return the result of the first process.

    Args:
        work: a function of a module, so that other processes can import it; called with the group,
            the device and the arguments.
        arguments: sent to every process; tensors are shared, not copied.
        devices: number of processes.
        device: the type of device, such as `cuda`.
        owner: the function that messages name.
        advice: what the user can do if a process has died; the end of the message.

    Raises:
        ImportError: lightning-fabric is not installed.
        ValueError: there are fewer devices than requested.
        TypeError: an argument cannot be sent to another process.
        RuntimeError: a process died, or a started process reached this call again because the script
            has no guard. Errors that `work` raises keep their type and message.
        KeyboardInterrupt: the user pressed Ctrl-C; all processes have ended.
    """
    check_not_launched(owner, devices)
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            f"{owner}: devices={devices} starts processes, and each runs the script from the top: {GUARD}"
        )
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(
            f"{owner}: devices={devices}, but there are {torch.cuda.device_count()} GPUs here."
        )
    for name, value in _by_name(arguments):
        if isinstance(value, (Dataset, Splits, Tensor)):
            continue
        try:
            pickle.dumps(value)
        except Exception as error:
            raise TypeError(
                f"{owner}: devices={devices} sends {name} to other processes, and it cannot be "
                f"pickled: {error}. Define its class or function in a module, or use devices=1."
            ) from error
    with tempfile.TemporaryDirectory() as folder, same_environment():
        try:
            from lightning_fabric import Fabric
        except ImportError:
            raise ImportError(
                f"{owner}: devices > 1 needs lightning-fabric: pip install 'probgen[devices]'."
            ) from None
        _quiet_fabric()
        fabric: Any = Fabric(accelerator=device.type, devices=devices, strategy="ddp_spawn")
        job = _Job(work, dict(arguments), folder)
        try:
            fabric.launch(job)
        except Exception as error:
            begun = (Path(folder) / _BEGUN).exists()
            _explain(error, owner, advice if begun else f"{_NOT_BEGUN} {GUARD}")
        finally:
            job.end_processes()
        return read_tensors(Path(folder) / _STATE)


def _by_name(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The arguments by name, with the fields of a record instead of it, as the user named them."""
    for name, value in arguments.items():
        if is_dataclass(value) and not isinstance(value, (type, Dataset, Splits)):
            yield from vars(value).items()
        else:
            yield name, value


_NOT_BEGUN = (
    "No process had started its work. Each imports what it is sent and runs the calling script from the "
    "top, so the script must be a file:"
)


class _Job:
    """What each process runs; the first process writes the result into a file of tensors."""

    def __init__(self, work: Work, arguments: dict[str, Any], folder: str) -> None:
        self.work, self.arguments, self.folder = work, arguments, folder
        self.command = sys.orig_argv
        self._processes: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        # This is called when the job is pickled for a process that starts, so that process is noted.
        if (process := get_spawning_popen()) is not None:
            self._processes.append(process)
        return {**vars(self), "_processes": []}

    def end_processes(self) -> None:
        """End the processes that still run after an error or an interrupt."""
        started = [process for process in self._processes if hasattr(process, "pid")]
        for process in started:
            process.terminate()
        for process in started:
            if process.wait(SECONDS_TO_END) is None:
                process.kill()
                process.wait(SECONDS_TO_END)

    def __call__(self, fabric: Any) -> None:
        # Ctrl-C reaches all processes of a terminal; only the calling one handles it and ends the others.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_with_caller, daemon=True).start()
        (Path(self.folder) / _BEGUN).touch()
        _quiet_fabric()
        sys.orig_argv = self.command  # the command that a run directory records
        rank, size = int(fabric.global_rank), int(fabric.world_size)
        group = Group(rank, size, fabric.device, spawned=True)
        with joined(group):
            tensors, record = self.work(group, fabric.device, **self.arguments)
        if group.rank == 0:
            on_cpu = {name: tensor.cpu() for name, tensor in tensors.items()}
            write_tensors(Path(self.folder) / _STATE, on_cpu, record)
        leave()


def _end_with_caller() -> None:
    """End this process as soon as the process that started it has ended for any reason."""
    caller = multiprocessing.parent_process()
    if caller is not None:
        caller.join()
        os._exit(1)


def _quiet_fabric() -> None:
    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _explain(error: Exception, owner: str, advice: str) -> None:
    """Raise the error that a process raised, or an error that says that a process died."""
    text = str(error)
    headers = list(re.finditer(r"^(?:[\w.]+\.)?(\w+(?:Error|Interrupt)): ", text, re.MULTILINE))
    if headers:
        kinds = {
            kind.__name__: kind
            for kind in (ValueError, TypeError, FloatingPointError, OSError, MemoryError)
        }
        message = text[headers[-1].end() :].strip()
        name = "ValueError" if headers[-1][1] == "RunError" else headers[-1][1]
        if name in kinds:
            raise kinds[name](message) from None
        text = f"{name}: {message}"
    raise RuntimeError(f"{owner}: a process died, so all were stopped ({text.strip()}). {advice}")
