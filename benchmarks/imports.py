"""The cost of importing the client in a model server."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.measure import Samples, peer
from benchmarks.report import Reach, Result

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.server import Server

_ROUNDS = 15
_CLOCKED = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
_RSS = "import {}; print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')))"
_MODULES = {"ours": "feature_store.online", "numpy, redis": "numpy, redis"}


def imports(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """Seconds within the interpreter, and its memory after."""
    seconds = {name: Samples() for name in _MODULES}
    for _ in range(_ROUNDS + 1):
        for name, modules in _MODULES.items():
            seconds[name].seconds.append(float(_python(_CLOCKED.format(modules))))
    seconds = {name: Samples(samples.seconds[1:]) for name, samples in seconds.items()}
    rss = {name: float(_python(_RSS.format(modules))) * 1024 for name, modules in _MODULES.items()}
    if with_peer:
        feast = peer(server.address, folder, "import")
        seconds["feast"] = Samples([sample - feast["python_p50_s"] for sample in feast["samples_s"]])
        rss["feast"] = feast["rss_bytes"]
    return [
        Result.of_samples("import feature_store.online", seconds, [Reach.at_most("numpy, redis", 1.25)]),
        Result("memory after it", "bytes", rss, {}, []),
    ]


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
