"""The exit codes of commands."""

DONE = 0
FAILED = 1
USAGE = 2
FINDING = 3  # the command worked and found a problem: stale, differing, broken
INTERRUPTED = 130  # 128 + SIGINT, as shells do
