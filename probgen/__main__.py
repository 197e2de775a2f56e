"""`python -m probgen` and the installed command, which ends without a traceback on Ctrl-C."""

import sys


def main() -> None:
    """The `probgen` command."""
    try:
        from probgen.cli import main as cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
