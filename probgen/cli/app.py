"""The command line as a whole, and how a command's result is printed.

`fit_options.py` and `run_options.py` declare the commands with their options and help,
`fit_commands.py` and `run_commands.py` implement them. Only the former are imported for help and
completion, which therefore do not wait for PyTorch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from probgen.basics.text import printable

app = typer.Typer(
    name="probgen",
    help="Declare, train and score latent-variable models.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Errors end with status 2 and one message; PROBGEN_DEBUG=1 shows the traceback.",
)


def print_result(result: tuple[str, dict[str, Any]], as_json: bool) -> None:
    """Print the result of a command, as text or as one JSON object."""
    text, record = result
    if not as_json:
        typer.echo(printable(text))
        return
    typer.echo(json.dumps(_plain(record), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    """Convert to values of JSON, which has no NaN (it becomes null) and no infinity (text)."""
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _version(requested: bool) -> None:
    if requested:
        from probgen.basics.version import __version__

        typer.echo(f"probgen {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print it and stop."),
    ] = False,
) -> None:
    pass
