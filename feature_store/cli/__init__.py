"""The `feature-store` command: thin commands over the public calls, tables for people, `--json` for programs.

Scripts can use the tables and progress bars of the commands, too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names

if TYPE_CHECKING:
    from feature_store.cli.data import show_summaries as show_summaries
    from feature_store.cli.output import console as console
    from feature_store.cli.progress import CountReport as CountReport, ProgressReport as ProgressReport
    from feature_store.cli.project import show_changes as show_changes
    from feature_store.cli.prune_output import (
        show_footprints as show_footprints,
        show_verification as show_verification,
    )


def main() -> None:
    """Run the command line. `feature-store --help` lists the exit codes."""
    try:
        from feature_store.cli.running import run
    except KeyboardInterrupt:  # later, `run` handles it
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)

    sys.exit(run(sys.argv[1:]))


__getattr__, __dir__ = lazy_names(__name__)
