"""With what the command line exits, besides 0 for done."""

from mlpspace.engines import EXIT_INTERRUPTED

NOTHING = 1  # a check failed, or there is nothing to show
MISTAKE = 2  # of the user's
INTERRUPTED = EXIT_INTERRUPTED
