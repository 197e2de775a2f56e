"""One error message for running out of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "Storage size calculation overflowed",
)
"""Texts of those errors of torch that have no exception class of their own."""


@contextmanager
def enough_memory(owner: str, settings: str) -> Iterator[None]:
    """Replace errors of running out of memory by one that names the settings to lower.

    Raises:
        MemoryError: in place of torch's own errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).strip().split("\n")[0]
        out = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not out and not any(words in text for words in _OUT_OF_MEMORY):
            raise
        raise MemoryError(
            f"{owner}: out of memory. Lower {settings}, or use a machine with more. ({text[:200]})"
        ) from error
