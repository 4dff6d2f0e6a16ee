"""The least that a read of packed rows can cost, in C and in Python, on the Redis that the benchmark runs on.

Both floors send one MGET per request and copy the rows' float32 values into a matrix of (rows, features); neither knows
of views, time to live or missing rows. An address is `unix:PATH` or `HOST:PORT`.
"""

from __future__ import annotations

import json
import shutil
import socket
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hiredis
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HERE = Path(__file__).resolve().parent
RECEIVE_BYTES = 1 << 16
"""Of one receive. Measured: larger ones, and receiving into a buffer that is kept, are not faster."""

# Its stub asks for a tuple of exactly one word.
_pack = cast("Callable[[tuple[bytes, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]


def build(name: str, *libraries: str) -> Path | None:
    """A floor in C, compiled when its source is newer. None without a C compiler or one of the libraries."""
    source, program = HERE / f"{name}.c", HERE / "build" / name
    newest = max(file.stat().st_mtime for file in (source, HERE / "floor.h"))
    if program.is_file() and program.stat().st_mtime > newest:
        return program
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    program.parent.mkdir(exist_ok=True)
    command = [compiler, "-O2", "-Wall", "-o", str(program), str(source), *(f"-l{library}" for library in libraries)]
    compiled = subprocess.run(command, capture_output=True, text=True)
    if compiled.returncode == 0:
        return program
    if any(
        missing in compiled.stderr
        for library in libraries
        for missing in (f"{library}.h: No such file", f"cannot find -l{library}")
    ):
        return None
    raise RuntimeError(f"{source.name} does not compile:\n{compiled.stderr}")


def c_floor(
    address: str, requests: list[list[bytes]], row_dtype: np.dtype[np.void], field_blocks: list[str], iterations: int
) -> list[float] | None:
    """Seconds of each read in C; None without gcc or libhiredis-dev."""
    program = build("floor", "hiredis")
    if program is None:
        return None
    found = _run([str(program)], address, requests, row_dtype, field_blocks, iterations)
    return [sample / 1e6 for sample in cast("list[float]", found["samples_us"])]


def pipelined_program() -> list[str] | None:
    """The command of the floor in C for `pipelined`; None without a C compiler."""
    program = build("pipelined")
    return None if program is None else [str(program)]


def pipelined(
    command: list[str],
    address: str,
    requests: list[list[bytes]],
    row_dtype: np.dtype[np.void],
    field_blocks: list[str],
    iterations: int,
    in_flight: int,
) -> tuple[float, list[float]]:
    """Seconds of the whole run for each read, and seconds of each read, with so many in flight.

    Args:
        command: a program that takes the arguments of `pipelined.c`.
    """
    found = _run(command, address, requests, row_dtype, field_blocks, iterations, in_flight)
    return float(found["elapsed_s"]) / iterations, [float(sample) / 1e6 for sample in found["samples_us"]]


def _run(
    command: list[str],
    address: str,
    requests: list[list[bytes]],
    row_dtype: np.dtype[np.void],
    field_blocks: list[str],
    iterations: int,
    *more: int,
) -> dict[str, Any]:
    blocks = ",".join(f"{offset}:{dtype.itemsize}" for dtype, offset in _blocks(row_dtype, field_blocks))
    with tempfile.NamedTemporaryFile(suffix=".keys") as keys:
        for request in requests:
            keys.writelines(struct.pack("<I", len(key)) + key for key in request)
        keys.flush()
        arguments = [address, keys.name, len(requests[0]), iterations, row_dtype.itemsize, blocks, *more]
        ran = subprocess.run([*command, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


class PythonFloor:
    """A connection, and the least that Python does with it.

    `field_blocks` are the float32 fields of `row_dtype`, in the order of the matrix's columns.
    """

    def __init__(self, address: str, row_dtype: np.dtype[np.void], field_blocks: list[str]) -> None:
        ends = np.cumsum([dtype.itemsize // 4 for dtype, _ in _blocks(row_dtype, field_blocks)]).tolist()
        self._columns = [(name, slice(i, end)) for name, i, end in zip(field_blocks, [0, *ends], ends, strict=False)]
        self._row_dtype, self._width = row_dtype, ends[-1]
        self._reader = hiredis.Reader()
        self._connection = _connected(address)

    def read(self, keys: list[bytes]) -> npt.NDArray[np.float32]:
        """One row per key."""
        rows = self._rows(keys)
        matrix = np.empty((len(keys), self._width), np.float32)
        for name, column in self._columns:
            matrix[:, column] = rows[name]
        return matrix

    def read_mixed(self, keys: list[bytes]) -> npt.NDArray[np.float32]:
        """The first key is the user's, whose columns stand in every row before the items'; all rows have one layout."""
        rows = self._rows(keys)
        matrix = np.empty((len(keys) - 1, 2 * self._width), np.float32)
        users, items = matrix[:, : self._width], matrix[:, self._width :]
        for name, column in self._columns:
            users[:, column] = rows[name][0]
            items[:, column] = rows[name][1:]
        return matrix

    def values(self, keys: list[bytes]) -> list[Any]:
        """What one MGET returns: bytes, or None."""
        self._connection.sendall(_pack((b"MGET", *keys)))
        while (replies := self._reader.gets()) is False:
            self._reader.feed(self._connection.recv(RECEIVE_BYTES))
        return cast("list[Any]", replies)

    def _rows(self, keys: list[bytes]) -> npt.NDArray[np.void]:
        return np.frombuffer(b"".join(self.values(keys)), self._row_dtype)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


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
