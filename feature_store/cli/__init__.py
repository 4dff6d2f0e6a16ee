"""The `feature-store` command: thin commands over the public calls, tables for people, `--json` for programs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. `feature-store --help` lists the exit codes."""
    try:
        from feature_store.cli.running import run
    except KeyboardInterrupt:  # from then on, `run` hears it
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)

    sys.exit(run(sys.argv[1:]))
