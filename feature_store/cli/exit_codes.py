"""The exit codes of commands."""

DONE = 0
FAILED = 1
USAGE = 2
FINDING = 3  # the command did its work and found something: stale, differing, broken, refused
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
