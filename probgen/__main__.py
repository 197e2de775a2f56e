"""`python -m probgen` is the command line."""

from probgen.cli import main

main()
