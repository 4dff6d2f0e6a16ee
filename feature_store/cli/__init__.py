"""The `feature-store` command: thin commands over the public calls, tables for people, `--json` for programs."""

from __future__ import annotations

import sys

from feature_store.errors import FeatureStoreError, extra


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 refused or failed, 2 wrong usage."""
    try:
        with extra("cli", "feature-store"):
            from feature_store.cli.app import app
        app(prog_name="feature-store")
    except FeatureStoreError as error:
        print(f"error: {error.reason}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(1)
