"""Reads the bytes of files that may be compressed, by the end of their names: `.gz` or `.zst`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
_BLOCK_BYTES = 8 << 20


@contextlib.contextmanager
def opened(path: str) -> Iterator[Any]:
    """The bytes of a file, decompressed, as a stream.

    Raises:
        OSError: the file cannot be read.
    """
    compression = _COMPRESSED.get(Path(path).suffix)
    with pa.OSFile(path) as file:
        yield file if compression is None else pa.CompressedInputStream(file, compression)


def lines_of(path: str) -> int:
    """The number of line ends of a file, and one more: at least the number of its rows.

    Raises:
        OSError: the file cannot be read.
    """
    lines, before = 1, b""
    with opened(path) as stream:
        while block := stream.read(_BLOCK_BYTES):
            lines += block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")
            lines -= before == b"\r" and block[:1] == b"\n"
            before = block[-1:]
    return lines
