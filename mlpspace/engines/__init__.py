EXIT_LOST = 3  # of a process that has to end without its engine; the same command goes on
EXIT_INTERRUPTED = 130  # a clean Ctrl-C; also of a process that cannot wait for the command line to say so
