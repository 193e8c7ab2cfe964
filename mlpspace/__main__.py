"""`python -m mlpspace` is `mlpspace`."""

from mlpspace.cli import main

main()
