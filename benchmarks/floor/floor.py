"""The least that a read of packed rows can cost, in C and in Python, on the Redis that the benchmark runs on.

Both floors send one MGET per request and copy the rows' float32 values into a matrix of (rows, features); neither knows
of views, time to live or missing rows. An address is `unix:PATH` or `HOST:PORT`.

Tried by hand with rows that it writes and removes itself: `python benchmarks/floor/floor.py --address HOST:PORT`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import statistics
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hiredis
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "floor.c"
PROGRAM = HERE / "build" / "floor"
NOT_MEASURED = "C floor: not measured, install gcc and libhiredis-dev"
WARM_UP = 100
"""Requests before the timed ones, as in floor.c."""
RECEIVE_BYTES = 1 << 16
"""Of one receive. Measured: larger ones, and receiving into a buffer that is kept, are not faster."""

# Its stub asks for a tuple of exactly one word.
_pack = cast("Callable[[tuple[bytes, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]


def build() -> Path | None:
    """The C floor, compiled anew when its source is newer; None if there is no compiler or no libhiredis."""
    if PROGRAM.is_file() and PROGRAM.stat().st_mtime > SOURCE.stat().st_mtime:
        return PROGRAM
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    PROGRAM.parent.mkdir(exist_ok=True)
    command = [compiler, "-O2", "-Wall", "-o", str(PROGRAM), str(SOURCE), "-lhiredis"]
    compiled = subprocess.run(command, capture_output=True, text=True)
    if compiled.returncode == 0:
        return PROGRAM
    if any(missing in compiled.stderr for missing in ("hiredis.h: No such file", "cannot find -lhiredis")):
        return None
    raise RuntimeError(f"floor.c does not compile:\n{compiled.stderr}")


def c_floor(
    address: str, requests: list[list[bytes]], row_dtype: np.dtype[np.void], field_blocks: list[str], iterations: int
) -> list[float] | None:
    """Seconds of each read in C; None if it cannot be built (say NOT_MEASURED)."""
    program = build()
    if program is None:
        return None
    blocks = ",".join(f"{offset}:{dtype.itemsize}" for dtype, offset in _blocks(row_dtype, field_blocks))
    with tempfile.NamedTemporaryFile(suffix=".keys") as keys:
        for request in requests:
            keys.writelines(struct.pack("<I", len(key)) + key for key in request)
        keys.flush()
        arguments = [address, keys.name, len(requests[0]), iterations, row_dtype.itemsize, blocks]
        ran = subprocess.run([str(program), *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True)
    return [sample / 1e6 for sample in cast("list[float]", json.loads(ran.stdout)["samples_us"])]


def python_floor(
    address: str, requests: list[list[bytes]], row_dtype: np.dtype[np.void], field_blocks: list[str], iterations: int
) -> list[float]:
    """Seconds of each read in Python. Iteration i sends request i modulo their number, packed anew each time.

    `field_blocks` are the float32 fields of `row_dtype`, in the order of the matrix's columns.
    """
    ends = np.cumsum([dtype.itemsize // 4 for dtype, _ in _blocks(row_dtype, field_blocks)]).tolist()
    columns = [(name, slice(start, end)) for name, start, end in zip(field_blocks, [0, *ends], ends, strict=False)]
    samples: list[float] = []
    reader = hiredis.Reader()
    clock = time.perf_counter
    with _connected(address) as connection:
        for i in range(WARM_UP + iterations):
            keys = requests[i % len(requests)]
            start = clock()
            connection.sendall(_pack((b"MGET", *keys)))
            while (replies := reader.gets()) is False:
                reader.feed(connection.recv(RECEIVE_BYTES))
            rows = np.frombuffer(b"".join(replies), row_dtype)
            matrix = np.empty((len(keys), ends[-1]), np.float32)
            for name, column in columns:
                matrix[:, column] = rows[name]
            samples.append(clock() - start)
    return samples[WARM_UP:]


def _blocks(row_dtype: np.dtype[np.void], names: list[str]) -> list[tuple[np.dtype[Any], int]]:
    """Type and offset of each named field, all of them float32."""
    fields = cast("Mapping[str, tuple[np.dtype[Any], int]]", row_dtype.fields or {})
    blocks = [(fields[name][0], fields[name][1]) for name in names]
    if any(dtype.base != np.dtype("<f4") for dtype, _ in blocks):
        raise ValueError(f"the blocks {names} are not all of little-endian float32")
    return blocks


def _connected(address: str) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _command(connection: socket.socket, *words: bytes) -> object:
    reader = hiredis.Reader()
    connection.sendall(_pack(words))
    while (reply := reader.gets()) is False:
        reader.feed(connection.recv(RECEIVE_BYTES))
    return reply


ROW = np.dtype([("head_a", "V24"), ("a", "<f4", (25,)), ("head_b", "V24"), ("b", "<f4", (25,))])
"""248 bytes: 50 float32 in two segments."""


def _try(address: str, rows: int, iterations: int, stored: int) -> dict[str, object]:
    """Both floors over rows of `ROW`, with requests of random distinct keys."""
    keys = [b"floor:%08d" % i for i in range(stored)]
    values: npt.NDArray[np.float32] = np.random.default_rng(0).random((stored, ROW.itemsize // 4), np.float32)
    pairs = [word for key, row in zip(keys, values, strict=True) for word in (key, row.tobytes())]
    choose = random.Random(1)
    requests = [choose.sample(keys, rows) for _ in range(200)]
    with _connected(address) as connection:
        try:
            _command(connection, b"MSET", *pairs)
            floors = {
                "c": c_floor(address, requests, ROW, ["a", "b"], iterations),
                "python": python_floor(address, requests, ROW, ["a", "b"], iterations),
            }
        finally:
            _command(connection, b"DEL", *keys)
    return {name: NOT_MEASURED if samples is None else _summary(samples) for name, samples in floors.items()}


def _summary(samples: list[float]) -> dict[str, float]:
    ordered = sorted(samples)
    return {"p50_us": statistics.median(ordered) * 1e6, "p99_us": ordered[len(ordered) * 99 // 100] * 1e6}


def main() -> None:
    """Measures both floors by hand."""
    parser = argparse.ArgumentParser(description="Measure the floor of a read; print one JSON object.")
    parser.add_argument("--address", default="127.0.0.1:6379", metavar="HOST:PORT or unix:PATH")
    parser.add_argument("--rows", type=int, default=200, help="rows of a request")
    parser.add_argument("--iterations", type=int, default=10_000)
    parser.add_argument("--stored", type=int, default=10_000, help="rows in Redis")
    arguments = parser.parse_args()
    print(json.dumps(_try(arguments.address, arguments.rows, arguments.iterations, arguments.stored)))


if __name__ == "__main__":
    main()
