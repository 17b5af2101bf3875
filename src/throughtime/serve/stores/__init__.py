"""Where sessions are kept: a file of one process, a folder of several, Redis."""
