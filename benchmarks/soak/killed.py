"""A `materialize` that dies, as by SIGKILL, before its n-th write to Redis: `FOLDER N`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from feature_store import FeatureStore
from feature_store.engines.local import latest
from feature_store.online import writer

_CHUNK_ROWS = 2048  # as few as DuckDB puts into a row group: some writes for each version


def main() -> None:
    """Run it."""
    latest.CHUNK_ROWS = _CHUNK_ROWS
    left, write = int(sys.argv[2]), writer.ViewWriter.write

    def dying(self: Any, batch: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(self, batch)

    writer.ViewWriter.write = dying  # type: ignore[method-assign]
    with FeatureStore(sys.argv[1]) as store:
        store.materialize()


if __name__ == "__main__":
    main()
