"""Attacks: what must not give a wrong number, a traceback, or run code that nobody trusted.

One module an attack, with a function `attack(count, seed)`. `python -m tests.attacks` runs all at
full count and prints a table; the tests run each with few.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """What came of one attack.

    Attributes:
        count: how often it was tried.
        refused: how often the answer was an error that says why.
        wrong: in words each answer that should not be: a number that is wrong, an error of another
            kind or without words, code that ran.
    """

    count: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
