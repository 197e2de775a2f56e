"""Warnings that name the line of the user's code which caused them."""

from __future__ import annotations

import sys
import warnings

SKIPPED = (__name__.partition(".")[0], "torch", "contextlib")
"""Packages whose lines are skipped: this one, and those of decorators such as `torch.no_grad()`."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the first line outside of this package and PyTorch, however many calls lie between.

    `warnings` shows a message once per line, so users also see one for each of their own calls.

    Args:
        message: what is wrong and what to do.
        category: the class of the warning.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame.f_globals):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _is_inside(names: dict[str, object]) -> bool:
    """Whether the global names of a frame are those of a module whose lines are skipped."""
    return str(names.get("__name__")).partition(".")[0] in SKIPPED
