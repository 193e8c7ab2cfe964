"""With what the command line exits, besides 0 for done."""

NOTHING = 1  # a check failed, or there is nothing to show
MISTAKE = 2  # of the user's
INTERRUPTED = 130  # a clean Ctrl-C
