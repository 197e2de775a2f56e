"""Several processes that train together: all have the same weights and average their gradients.

If a launcher (torchrun, srun) has started several processes, or the user's own code has made a process
group, this group is used and no process is started. Otherwise `probgen.inference.compute.spawn` starts
one process per device. Every process computes its share of each batch. Gradients are sent as one flat
buffer, whether the step was captured or not.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from probgen.basics.launcher import Launch, launched

PATIENCE = timedelta(seconds=10)
"""How long a process that ends waits for the others."""

SECONDS_TO_RELEASE = 0.1
"""How long the network threads may take to release their tensors after the last message."""

_GROUP: ContextVar[Group | None] = ContextVar("group", default=None)


def current_group(device: torch.device | None = None) -> Group | None:
    """The group of processes that this process belongs to, or `None` if it works alone.

    These are the processes that `launch` started, those of an existing process group, or those that
    torchrun or srun started, which are then joined into a group.

    Args:
        device: where this process computes; by default its GPU, or the CPU if there is none.

    Raises:
        RuntimeError: the processes of the launcher cannot be joined; the message says why.
    """
    group = _GROUP.get()
    if group is not None:
        return group
    here = launched()
    if not _has_group():
        if here is None:
            return None
        _join(here)
    size = distributed.get_world_size()
    if size == 1:
        return None
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and device.index is None:
        local = int(os.environ.get("LOCAL_RANK", "0")) if here is None else here.local_rank
        device = torch.device("cuda", local % torch.cuda.device_count())
    return Group(distributed.get_rank(), size, device)


def _has_group() -> bool:
    """Whether a process group exists, made by the user's own code or by an earlier call."""
    return distributed.is_available() and distributed.is_initialized()


def _join(here: Launch) -> None:
    """Join the processes that a launcher started into one process group."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    settings: dict[str, Any] = {}
    if here.name == "srun":
        settings = {"init_method": _address_of_slurm(), "rank": here.rank, "world_size": here.size}
    try:
        distributed.init_process_group(backend, **settings)
    except (RuntimeError, ValueError) as error:
        raise RuntimeError(
            f"{here.name} started this process as number {here.rank} of {here.size}, but these processes "
            f"cannot be joined ({str(error).splitlines()[0]}). Check that MASTER_ADDR and MASTER_PORT name a "
            "machine and a free port that all processes can reach, or start one process only."
        ) from error
    atexit.register(leave)


def leave() -> None:
    """Leave the group at the end of the process, together with the others if they end as well.

    A process whose connections are closed by another one may be aborted by its network threads. They
    also release the tensors that they have sent, for which they need the interpreter: one that has
    ended aborts the process.
    """
    if not distributed.is_initialized():
        return
    with suppress(RuntimeError):  # another process has died, or continues for longer
        distributed.all_reduce(torch.zeros(1), async_op=True).wait(PATIENCE)
    distributed.destroy_process_group()
    time.sleep(SECONDS_TO_RELEASE)


def _address_of_slurm() -> str:
    """The address where the processes of a Slurm step connect: the first machine, a port by job number."""
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if host is None and os.environ.get("SLURM_STEP_NUM_NODES", "1") == "1":
        host = "127.0.0.1"
    if host is None:
        try:
            from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
        except ImportError:
            raise ImportError(
                "Several machines under srun need lightning-fabric, which reads Slurm's list of machines: "
                "run pip install 'probgen[devices]', or set MASTER_ADDR and MASTER_PORT."
            ) from None
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "")
        host = SLURMEnvironment.resolve_root_node_address(nodes)
    if port is None:  # outside the reserved ports, and a different one for each step
        job, step = (int(os.environ.get(f"SLURM_{name}_ID", "0")) for name in ("JOB", "STEP"))
        port = str(15_000 + (job * 7 + step) % 15_000)
    return f"tcp://{host}:{port}"


def check_not_launched(owner: str, devices: int) -> None:
    """Refuse to start processes inside one of several processes that already share the work.

    Raises:
        ValueError: this is one of several processes, and `devices` asks for more.
    """
    if devices == 1 or _GROUP.get() is not None:
        return
    here = launched()
    if _has_group():
        size = distributed.get_world_size()
    else:
        size = 1 if here is None else here.size
    if size > 1:
        raise ValueError(
            f"{owner}: devices={devices} was given inside one of {size} processes that already share the "
            "work. Use devices=1; the launcher sets the number of processes."
        )


class Group:
    """The processes of a fit or of a score, as one of them sees the group.

    Attributes:
        rank: the number of this process, from 0.
        size: the number of processes.
        device: where this process computes.
        spawned: whether one calling process started the group, gave all the same data, and ends all.
    """

    def __init__(
        self, rank: int, size: int, device: torch.device, *, spawned: bool = False
    ) -> None:
        self.rank, self.size, self.device, self.spawned = rank, size, device, spawned

    @contextmanager
    def together(self) -> Iterator[None]:
        """If one process raises an error inside this context, all raise one, so that none waits forever.

        Raises:
            RuntimeError: another process failed; the message has its error.
        """
        if self.spawned:  # the calling process ends all of them
            yield
            return
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        errors = self.everywhere(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, message in enumerate(errors):
            if message is not None:
                raise RuntimeError(f"Process {rank} of {self.size} failed: {message}")

    def everywhere(self, value: Any) -> list[Any]:
        """Collect the value of each process; every process gets the whole list."""
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def check_same(self, value: Any, message: str) -> None:
        """Check that all processes have the same value.

        Raises:
            ValueError: they have not; raised in every process, with the message given.
        """
        values = self.everywhere(value)
        if any(other != values[0] for other in values):
            raise ValueError(message)

    def average(
        self, loss: Tensor, count: int, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, int]:
        """Average the gradients over the data of all processes, in place.

        Args:
            loss: average loss over the data of this process.
            count: the number of these data.
            parameters: their gradients are averaged.

        Returns:
            The average loss over the data of all processes, and the number of these data.
        """
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        reached = [float(p.grad is not None) for p in parameters]
        parts = [count * grad.flatten().to(loss.dtype) for grad in grads]
        numbers = torch.tensor([float(count), *reached], dtype=loss.dtype, device=loss.device)
        flat = torch.cat([*parts, (count * loss).reshape(1), numbers])
        distributed.all_reduce(flat)
        sizes = [grad.numel() for grad in grads]
        *sums, total, size, num_reached = flat.split([*sizes, 1, 1, len(grads)])
        for parameter, grad, reached_by in zip(parameters, sums, num_reached.tolist(), strict=True):
            average = (grad / size).view_as(parameter).to(parameter.dtype)
            parameter.grad = average if reached_by else None
        return (total / size).squeeze(0), int(size)

    def sums(self, *numbers: float) -> list[float]:
        """Sum each number over the processes."""
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return [float(number) for number in total]

    def gather(self, value: Any) -> list[Any]:
        """Collect the value of each process; the first gets the list, the others an empty one."""
        values: list[Any] = [None] * self.size
        distributed.gather_object(value, values if self.rank == 0 else None)
        return values if self.rank == 0 else []

    def from_first(self, value: Any) -> Any:
        """Send the value of the first process to all; every process gets it."""
        values = [value]
        distributed.broadcast_object_list(values, src=0, device=self.device)
        return values[0]


@contextmanager
def joined(group: Group) -> Iterator[None]:
    """A context in which `current_group` returns this group."""
    token = _GROUP.set(group)
    try:
        yield
    finally:
        _GROUP.reset(token)
