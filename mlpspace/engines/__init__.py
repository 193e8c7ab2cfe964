EXIT_LOST = 3  # of a process that has to end without its engine; the same command goes on
