"""Reuse of large buffers.

malloc returns freed blocks of some hundred kilobytes to the system. Then each page of the next block costs a page
fault. A reply of 844 kB and the tiles copied from it took 546 page faults, which were 1.2 of 1.9 ms.
"""

from __future__ import annotations

from collections import deque

# glibc maps a block of at least this size on its own, and unmaps it when it is freed. Smaller blocks gain nothing here.
LARGE_BYTES = 1 << 17
# The most idle buffers kept. As many threads can decode at once without a new buffer.
_KEPT = 4


class Buffers:
    """Idle buffers. Threads may share them: each call is one operation of a deque."""

    def __init__(self) -> None:
        self._idle: deque[bytearray] = deque(maxlen=_KEPT)

    def take(self, size: int) -> bytearray:
        """A buffer of at least `size` bytes with undefined content. A small buffer has exactly `size` bytes."""
        if size < LARGE_BYTES:
            return bytearray(size)
        try:
            idle = self._idle.pop()
        except IndexError:
            idle = bytearray()
        # Powers of two, so that replies and the tiles copied from them fit in each other's buffers.
        return idle if len(idle) >= size else bytearray(1 << (size - 1).bit_length())

    def give_back(self, buffer: bytearray) -> None:
        """Keep a large buffer for the next `take`, unless a view of it still exists."""
        if len(buffer) < LARGE_BYTES:
            return
        try:
            buffer.append(0)  # Python refuses to resize a bytearray that has views
            buffer.pop()
        except BufferError:
            return
        self._idle.append(buffer)


BUFFERS = Buffers()
