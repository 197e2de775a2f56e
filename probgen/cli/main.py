"""The `probgen` command in a process: signals, errors and exit statuses."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from typing import Any

import typer

from probgen.basics.text import printable
from probgen.cli import fit_options, run_options
from probgen.cli.app import app

__all__ = [
    "app",
    "fit_options",
    "main",
    "run_options",
]  # importing the options declares the commands


def main() -> None:
    """Run the command line; wrong input ends it with a message and status 2, Ctrl-C with 130."""
    with _Signals() as signals:
        try:
            _run()
        except BaseException:
            if not signals.interrupted or os.environ.get("PROBGEN_DEBUG"):
                raise
        if signals.interrupted:
            sys.exit(130)


class _Signals:
    """Whether Ctrl-C came while a command ran.

    Its exception may not be raised here: a fit with a run directory ends normally, and an import
    may turn it into another error.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number, handler in (
                (signal.SIGINT, self.interrupt),
                (signal.SIGTERM, self.terminate),
            ):
                self.previous_handlers[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)

    def interrupt(self, number: int, frame: Any) -> None:
        self.interrupted = True
        raise KeyboardInterrupt

    def terminate(self, number: int, frame: Any) -> None:
        sys.exit(128 + number)  # run directories keep the last complete epoch


def _run() -> None:
    try:
        app(prog_name="probgen")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # the reader closed the pipe, as in `probgen list | head`
    except (ValueError, TypeError, OSError, MemoryError, FloatingPointError) as error:
        if os.environ.get("PROBGEN_DEBUG"):
            raise
        _exit_with(_message(error))
    except (ArithmeticError, RuntimeError, LookupError, AttributeError) as error:
        if os.environ.get("PROBGEN_DEBUG"):
            raise
        text = str(error).strip().split("\n")[0]
        _exit_with(f"{type(error).__name__}: {text}\nPROBGEN_DEBUG=1 shows where it comes from.")


def _message(error: Exception) -> str:
    """The text of an error; for an error of the operating system also the file and what to do."""
    if not isinstance(error, OSError) or not error.errno or not error.strerror:
        return str(error) or type(error).__name__
    file = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{file}{error.strerror}. Free some space; files written before are complete."
    return f"{file}{error.strerror}. Check that it exists and that you may use it."


def _exit_with(message: str) -> None:
    typer.secho("Error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(printable(message), err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
