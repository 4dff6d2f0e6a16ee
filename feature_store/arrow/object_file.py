"""An object of a store as a file for Arrow, which reads ranges of it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from feature_store.arrow.objects import is_compared, range_of

# A request takes tens of milliseconds on most stores, so that a small read takes some of what follows with it.
_LEAST_BYTES = 256 << 10
_REQUEST_BYTES = 8 << 20  # of one request, so that several go at once
_MOST_GAP_BYTES = 1 << 20  # between two ranges that are read by one request
_REQUESTS = 4  # at once


class Segment(NamedTuple):
    """Some bytes of an object, from `begin` to before `end`."""

    begin: int
    end: int
    data: memoryview


class ObjectFile(io.RawIOBase):
    """An object for reading. Every request names the tag of the version, so that no read sees another version.

    Each thread has its own position, since Arrow moves to a place and reads there in several threads at once.

    Args:
        url: the URL of the object.
        size: its size in bytes.
        etag: the tag of the version. Empty: the store has none.
    """

    def __init__(self, url: str, size: int, etag: str) -> None:
        super().__init__()
        self._url, self._size = url, size
        self._etag = etag if is_compared(url, etag) else ""
        self._places = threading.local()
        self._kept: Sequence[Segment] = ()
        self._last = Segment(0, 0, memoryview(b""))

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position of the thread."""
        return getattr(self._places, "at", 0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position of the thread."""
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        self._places.at = begin + offset
        return self.tell()

    def read(self, size: int = -1) -> memoryview:
        """The next bytes.

        Raises:
            DataError: the object changed, or cannot be read.
        """
        begin = self.tell()
        end = self._size if size < 0 else min(begin + size, self._size)
        if begin >= end:
            return memoryview(b"")
        self._places.at = end
        for segment in (*self._kept, self._last):
            if segment.begin <= begin and end <= segment.end:
                return segment.data[begin - segment.begin : end - segment.begin]
        self._last = found = self.fetch(begin, max(end, min(begin + _LEAST_BYTES, self._size)))
        return found.data[: end - begin]

    def fetch(self, begin: int, end: int) -> Segment:
        """Some bytes, by one request.

        Raises:
            DataError: the object changed, or cannot be read.
        """
        return Segment(begin, end, range_of(self._url, begin, end, self._etag))

    def keep(self, segments: Sequence[Segment]) -> None:
        """Answer reads from these segments, instead of earlier ones."""
        self._kept = segments

    def ahead(self, steps: Sequence[Sequence[tuple[int, int]]], most_bytes: int) -> Iterator[int]:
        """The number of each step, when the ranges of bytes that it reads are here. Those of the next are requested.

        Args:
            steps: for each step, the ranges that it reads.
            most_bytes: the memory for the bytes of a step and of the next. A step that needs more reads without.
        """
        wanted = [[*merged(ranges)] for ranges in steps]
        sizes = [sum(end - begin for begin, end in ranges) for ranges in wanted]
        with ThreadPoolExecutor(_REQUESTS, "feature-store object") as threads:

            def request(step: int) -> list[Future[Segment]]:
                return [threads.submit(self.fetch, *part) for part in wanted[step]]

            coming: list[Future[Segment]] | None = None
            for step, size in enumerate(sizes):
                if size > most_bytes:
                    self.keep(())
                    yield step
                    continue
                self.keep([part.result() for part in coming or request(step)])
                is_next = step + 1 < len(sizes) and size + sizes[step + 1] <= most_bytes
                coming = request(step + 1) if is_next else None
                yield step
        self.keep(())


def merged(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges of requests that read some ranges. Those that are near to each other are read by one request."""
    begin, end = 0, 0
    for first, after in sorted(ranges):
        if end and (first - end > _MOST_GAP_BYTES or after - begin > _REQUEST_BYTES):
            yield begin, end
            begin, end = first, first
        elif not end:
            begin = first
        end = max(end, after)
    if end:
        yield begin, end


def copied(file: ObjectFile, size: int, target: Path) -> None:
    """Write the first `size` bytes of an object to a file.

    Raises:
        DataError: the object changed, or cannot be read.
        OSError: the file cannot be written.
    """
    parts = [(begin, min(begin + _REQUEST_BYTES, size)) for begin in range(0, size, _REQUEST_BYTES)]
    with target.open("xb") as written, ThreadPoolExecutor(_REQUESTS, "feature-store object") as threads:
        for start in range(0, len(parts), _REQUESTS):  # a few at a time, so that memory is bounded
            for segment in threads.map(lambda part: file.fetch(*part), parts[start : start + _REQUESTS]):
                written.write(segment.data)
