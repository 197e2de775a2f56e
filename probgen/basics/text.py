"""Text for a terminal: aligned tables, and text without control characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], left: Collection[int]) -> tuple[list[str], list[int]]:
    """Rows of cells as lines, and the widths of the columns.

    Args:
        rows: the cells of each row, equally many in all rows.
        left: indices of the columns aligned at the left; the others, numbers, are aligned at the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines, widths


def printable(text: str, *, lines: bool = True) -> str:
    r"""Text in which characters that move a cursor, change colours or hide letters are written out.

    Names and paths may come from files of unknown origin, and a terminal acts on such characters.

    Args:
        text: any.
        lines: leave line ends and tabs as they are; otherwise they are written out too.

    Example:
        >>> printable("a\x1b[31mb")
        'a\\x1b[31mb'
    """
    if text.isprintable():
        return text
    allowed = "\n\t" if lines else ""
    return "".join(
        letter
        if letter.isprintable() or letter in allowed or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
