"""Large buffers, used again and again.

What malloc takes for some hundred kilobytes goes back to the system when it is freed, and then each page of the next
costs a fault. For a reply of 844 kB and the tiles copied from it that was 546 faults, or 1.2 of 1.9 ms.
"""

from __future__ import annotations

from collections import deque

# glibc maps memory of its own for what is larger, and gives that back at once; below, there is nothing to gain.
LARGE_BYTES = 1 << 17
# Kept at most: as many as threads may decode at once without new ones, and no more memory than that.
_KEPT = 4


class Buffers:
    """Threads may share it: each call is one operation of a deque."""

    def __init__(self) -> None:
        self._idle: deque[bytearray] = deque(maxlen=_KEPT)

    def take(self, size: int) -> bytearray:
        """A buffer of at least `size` bytes, of any content; of exactly so many when it is not large."""
        if size < LARGE_BYTES:
            return bytearray(size)
        try:
            idle = self._idle.pop()
        except IndexError:
            idle = bytearray()
        # Powers of two, so that replies and what is copied from them fit in each other's buffers.
        return idle if len(idle) >= size else bytearray(1 << (size - 1).bit_length())

    def give_back(self, buffer: bytearray) -> None:
        """Keep a large buffer for the next `take`, unless something still looks into it, which then keeps it."""
        if len(buffer) < LARGE_BYTES:
            return
        try:
            buffer.append(0)  # Python refuses to resize what a view looks into
            buffer.pop()
        except BufferError:
            return
        self._idle.append(buffer)


BUFFERS = Buffers()
