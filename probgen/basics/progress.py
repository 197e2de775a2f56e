"""Progress of anything that takes more than a few seconds: a bar, or lines if there is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from probgen.basics.launcher import is_first
from probgen.basics.text import printable

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY = 10.0
"""Seconds between lines if a bar cannot be drawn."""


class Progress:
    """A bar on a terminal or in a notebook; elsewhere a line on stderr every ten seconds.

    Args:
        title: what is being done.
        total: how many steps there are.
        show: whether to show anything.
        console: where to draw, instead of stderr.
    """

    def __init__(
        self, title: str, total: int, show: bool = True, console: Console | None = None
    ) -> None:
        # Names of models may come from files of unknown origin.
        self.title, self.total = printable(title, lines=False), total
        self.show = show and is_first()
        self._console = console
        self._bar: Any = None
        self._last = time.monotonic()
        self._shown, self._line = 0, (0, "")

    def __enter__(self) -> Progress:
        if self.show:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            console = self._console or Console(stderr=True)
            if console.is_terminal or console.is_jupyter:
                columns = (
                    TextColumn("{task.description}", markup=False),
                    BarColumn(bar_width=24),
                    MofNCompleteColumn(),
                    TextColumn("{task.fields[text]}", markup=False),
                    TimeRemainingColumn(),
                )
                self._bar = RichProgress(*columns, console=console)
                self._bar.start()
                self._task = self._bar.add_task(self.title, total=self.total, text="")
        return self

    def update(self, done: int, text: str = "") -> None:
        """Show how many steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=text)
        elif self.show:
            self._line = (done, text)
            if time.monotonic() - self._last >= LINE_EVERY:
                self._print()

    def _print(self) -> None:
        done, text = self._line
        self._last, self._shown = time.monotonic(), done
        print(f"{self.title} {done}/{self.total}  {text}", file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif 0 < self._shown < self._line[0]:
            self._print()  # if lines were shown, the last one is shown too
