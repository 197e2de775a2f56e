"""Several processes: the same weights in all of them, and one gradient between them.

Where a launcher (torchrun, srun) has started several processes, or the user's own code has made a process
group, that group is joined and nothing is started; otherwise `probgen.inference.compute.spawn` starts a
process per device. Every process takes its share of each batch; gradients are sent as one flat buffer,
whether or not the step was captured.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, distributed, nn

from probgen.basics.launcher import Launch, launched

_GROUP: ContextVar[Group | None] = ContextVar("group", default=None)


def current_group(device: torch.device | None = None) -> Group | None:
    """The processes that this one works with, if it is one of several.

    They are those that `launch` started, those of a process group that is there, or those that torchrun or
    srun started, which are then joined into a group.

    Args:
        device: where this process computes; by default its GPU, or the CPU where there is none.

    Raises:
        RuntimeError: the processes of the launcher cannot be joined; says why.
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
    kind = (
        torch.device("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
    )
    if kind.type == "cuda" and kind.index is None:
        local = int(os.environ.get("LOCAL_RANK", "0")) if here is None else here.local_rank
        kind = torch.device("cuda", local % torch.cuda.device_count())
    return Group(distributed.get_rank(), size, kind)


def _has_group() -> bool:
    """Whether the processes are joined into a group, by the user's own code or by an earlier call."""
    return distributed.is_available() and distributed.is_initialized()


def _join(here: Launch) -> None:
    """Make one process group of the processes that a launcher started."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    settings: dict[str, Any] = {}
    if here.name == "srun":
        settings = {"init_method": _address_of_slurm(), "rank": here.rank, "world_size": here.size}
    try:
        distributed.init_process_group(backend, **settings)
    except (RuntimeError, ValueError) as error:
        raise RuntimeError(
            f"{here.name} started this process as number {here.rank} of {here.size}, but they cannot be "
            f"joined ({str(error).splitlines()[0]}). Check that MASTER_ADDR and MASTER_PORT name a machine and "
            "a free port that all of them reach, or start one process."
        ) from error
    atexit.register(_leave)


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _address_of_slurm() -> str:
    """Where the processes of a Slurm step meet: the first machine, and a port that follows from the job."""
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if host is None and os.environ.get("SLURM_STEP_NUM_NODES", "1") == "1":
        host = "127.0.0.1"
    if host is None:
        try:
            from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
        except ImportError:
            raise ImportError(
                "Several machines under srun need lightning-fabric, which reads Slurm's list of machines: pip "
                "install 'probgen[devices]'. Or set MASTER_ADDR and MASTER_PORT."
            ) from None
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "")
        host = SLURMEnvironment.resolve_root_node_address(nodes)
    if port is None:  # above the ports that a system gives away, and another one for each step
        job, step = (int(os.environ.get(f"SLURM_{name}_ID", "0")) for name in ("JOB", "STEP"))
        port = str(15_000 + (job * 7 + step) % 15_000)
    return f"tcp://{host}:{port}"


def check_not_launched(owner: str, devices: int) -> None:
    """Refuse to start processes within one of several that are there already.

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
            f"{owner}: devices={devices} inside one of {size} processes that were started already, which "
            "share the work. Leave devices=1; the number of processes is what the launcher was told."
        )


class Group:
    """This process among those of a fit or of a score.

    Attributes:
        rank: its number, from 0.
        size: how many processes there are.
        device: where it computes.
        spawned: whether one process started them all, gave them the same data, and ends them together.
    """

    def __init__(
        self, rank: int, size: int, device: torch.device, *, spawned: bool = False
    ) -> None:
        self.rank, self.size, self.device, self.spawned = rank, size, device, spawned

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one process raises within, all raise: none waits for one that has ended.

        Raises:
            RuntimeError: in the processes where nothing was wrong; says what was in another one.
        """
        if self.spawned:  # whoever started these processes ends all of them
            yield
            return
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        said = self.everywhere(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, words in enumerate(said):
            if words is not None:
                raise RuntimeError(f"Process {rank} of {self.size} failed: {words}")

    def everywhere(self, value: Any) -> list[Any]:
        """What each process has, in all of them."""
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def check_same(self, value: Any, message: str) -> None:
        """Refuse work on which the processes do not agree.

        Raises:
            ValueError: with the message, in all of them.
        """
        values = self.everywhere(value)
        if any(other != values[0] for other in values):
            raise ValueError(message)

    def average(
        self, loss: Tensor, count: int, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, int]:
        """Gradients averaged over the data of all processes; the average loss and their number."""
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        reached = [float(p.grad is not None) for p in parameters]
        parts = [count * grad.flatten().to(loss.dtype) for grad in grads]
        numbers = torch.tensor([float(count), *reached], dtype=loss.dtype, device=loss.device)
        flat = torch.cat([*parts, (count * loss).reshape(1), numbers])
        distributed.all_reduce(flat)
        sizes = [grad.numel() for grad in grads]
        *found, total, size, reached_by = flat.split([*sizes, 1, 1, len(grads)])
        for parameter, grad, times in zip(parameters, found, reached_by.tolist(), strict=True):
            parameter.grad = (grad / size).view_as(parameter).to(parameter.dtype) if times else None
        return (total / size).squeeze(0), int(size)

    def sums(self, *numbers: float) -> list[float]:
        """Each number summed over the processes."""
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return [float(number) for number in total]

    def gather(self, value: Any) -> list[Any]:
        """What each process has, in the first; an empty list in the others."""
        values: list[Any] = [None] * self.size
        distributed.gather_object(value, values if self.rank == 0 else None)
        return values if self.rank == 0 else []

    def from_first(self, value: Any) -> Any:
        """What the first process has, in all of them."""
        values = [value]
        distributed.broadcast_object_list(values, src=0, device=self.device)
        return values[0]


@contextmanager
def joined(group: Group) -> Iterator[None]:
    """Within it `current_group` is this one."""
    token = _GROUP.set(group)
    try:
        yield
    finally:
        _GROUP.reset(token)
