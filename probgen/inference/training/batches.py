"""Batches for training: from data that stay on the device, or from an iterable of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from probgen.basics.locking import LOCK
from probgen.basics.randomness import shift_seed
from probgen.data.dataset import Dataset
from probgen.inference.compute.processes import Group
from probgen.inference.inputs import prepare
from probgen.pair import LatentVariableModel

Batch = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Values by variable name, and boolean masks of partly observed variables."""

BATCH_SIZE = 128
"""Default number of data per step."""

VALIDATION_ROWS = 1000
"""Number of data in a validation batch."""


class Resident:
    """Batches of data that are on the device, where they are shuffled."""

    def __init__(
        self, data: Dataset, batch_size: int, *, clamp: bool = False, group: Group | None = None
    ) -> None:
        self.data, self.group = data, group
        self.size = min(batch_size, len(data)) if clamp else batch_size
        if self.size > len(data):
            raise ValueError(
                f"fit: batch_size={batch_size} is larger than the {len(data)} data; use "
                f"batch_size={len(data)} or less."
            )
        self.can_repeat = True
        self._enough(len(data), "data")

    def _enough(self, count: int, what: str) -> None:
        if self.group is not None and count < self.group.size:
            raise ValueError(
                f"fit: {count} {what} are too few for {self.group.size} processes; use devices={count or 1}."
            )

    @property
    def num_batches(self) -> int:
        return -(-len(self.data) // (self.size * (self.group.size if self.group else 1)))

    def batch(self, piece: Any) -> Batch:
        """The values and masks of some rows, with new noise."""
        return self.data.batch(piece)

    def pieces(self, shuffle: bool) -> Iterator[Any]:
        """The rows of each batch of an epoch; for one of several processes, its share of them."""
        n = len(self.data)
        device = next(iter(self.data.values.values())).device
        order = torch.randperm(n, device=device) if shuffle else None
        if self.group is not None:
            yield from self._shares(order, self.group)
        elif order is not None:
            yield from order.split(self.size)
        else:
            yield from (slice(start, start + self.size) for start in range(0, n, self.size))

    def _shares(self, order: Tensor | None, group: Group) -> Iterator[Tensor]:
        # All processes have drawn the same order; from here on each draws noise of its own.
        device = next(iter(self.data.values.values())).device
        shuffled = order is not None
        order = torch.arange(len(self.data), device=device) if order is None else order
        shift_seed(group.rank, device)
        for rows in order.split(self.size * group.size):
            # A last batch with less than one datum per process is skipped if data are shuffled: it
            # comes in another epoch. Otherwise only some processes take a datum of it.
            share = rows.tensor_split(group.size)[group.rank]
            if len(share) and (len(rows) >= group.size or not shuffled):
                yield share


class Stratified(Resident):
    """Batches with a fixed number of labelled data, which are used more often than unlabelled ones.

    An epoch is one pass over the unlabelled data.

    Args:
        data: with a mask of the label.
        batch_size: number of data per step.
        label: the partly observed variable.
        labelled: number of labelled data per step.
        group: the processes that share each batch.
    """

    def __init__(
        self, data: Dataset, batch_size: int, label: str, labelled: int, group: Group | None = None
    ) -> None:
        super().__init__(data, batch_size, group=group)
        known = (data.observed or {})[label]
        self.known, self.unknown = (mask.nonzero().squeeze(1) for mask in (known, ~known))
        self.labelled = labelled
        self._enough(len(self.unknown), "unlabelled data")
        if not 0 < labelled < self.size:
            raise ValueError(
                f"fit: labelled_batch={labelled} leaves no unlabelled data in a batch of {self.size}; use a "
                "larger batch_size, or fewer."
            )
        if labelled > len(self.known):
            raise ValueError(
                f"fit: labelled_batch={labelled}, but {label} is known for {len(self.known)} data; use "
                f"labelled_batch={len(self.known)} or less."
            )

    @property
    def num_batches(self) -> int:
        world = self.group.size if self.group else 1
        return -(-len(self.unknown) // ((self.size - self.labelled) * world))

    def pieces(self, shuffle: bool) -> Iterator[Any]:
        """Rows of the batches of an epoch: the labelled ones first."""
        world, rank = (self.group.size, self.group.rank) if self.group else (1, 0)
        labelled, rest = self.labelled * world, (self.size - self.labelled) * world
        device = self.known.device

        def order(rows: Tensor) -> Tensor:
            return rows[torch.randperm(len(rows), device=device)] if shuffle else rows

        unknown = order(self.unknown)
        rounds = -(-self.num_batches * labelled // len(self.known))
        known = torch.cat([order(self.known) for _ in range(rounds)])
        shift_seed(rank, device)
        for index, others in enumerate(unknown.split(rest)):
            # All processes get equally many, so that their batches have the same composition.
            others = others[: len(others) // world * world]
            if len(others):
                some = known[index * labelled : (index + 1) * labelled]
                parts = (rows.tensor_split(world)[rank] for rows in (some, others))
                yield torch.cat(list(parts))


class Stream:
    """Batches from an iterable, each of which is checked when it arrives."""

    def __init__(self, pair: LatentVariableModel, data: Iterable[Any], where: Any) -> None:
        with LOCK.lent():
            used_up = iter(data) is data
        if used_up:
            raise TypeError(
                "fit: data is an iterator, which is used up after one epoch; give an iterable that "
                "can be iterated again, such as a list of batches or a DataLoader."
            )
        self.pair, self.data, self.where = pair, data, where
        self.can_repeat = False

    def batch(self, piece: Any) -> Batch:
        """The values and masks of one batch of the stream."""
        values, masks = piece.batch(slice(None))
        # Gradients cannot be taken through tensors that were made in torch's inference mode.
        return _usable(values), _usable(masks)

    def pieces(self, shuffle: bool) -> Iterator[Any]:
        """The batches of an epoch, each of which is checked when it arrives."""
        empty = True
        for batch in _lent(self.data):
            part = prepare(self.pair, batch, owner="fit", probe=empty, **self.where)
            empty = False
            yield part
        if empty:
            raise ValueError("fit: the iterable of batches is empty.")


def _usable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.clone() if t.is_inference() else t for name, t in tensors.items()}


def _lent(data: Iterable[Any]) -> Iterator[Any]:
    """The batches of a user's iterable, which may wait for threads that call probgen."""
    with LOCK.lent():
        parts = iter(data)
    while True:
        with LOCK.lent():
            try:
                part = next(parts)
            except StopIteration:
                return
        yield part
