from __future__ import annotations

import numpy as np
import pytest

from feature_store.online.buffers import LARGE_BYTES, Buffers


def test_a_large_buffer_is_used_again_and_a_small_one_is_not() -> None:
    buffers = Buffers()
    large, small = buffers.take(LARGE_BYTES + 1), buffers.take(10)
    assert len(large) >= LARGE_BYTES + 1 and len(small) == 10
    buffers.give_back(large)
    buffers.give_back(small)
    assert buffers.take(10) is not small
    assert buffers.take(LARGE_BYTES) is large
    assert buffers.take(LARGE_BYTES) is not large


@pytest.mark.parametrize("view", [memoryview, lambda buffer: np.frombuffer(buffer, np.uint8)[5:9]])
def test_a_buffer_that_something_looks_into_is_left_to_it(view) -> None:
    buffers = Buffers()
    large = buffers.take(LARGE_BYTES)
    kept = view(large)
    buffers.give_back(large)
    assert buffers.take(LARGE_BYTES) is not large
    assert len(kept) and len(large) == LARGE_BYTES


def test_a_buffer_that_is_too_small_makes_way() -> None:
    buffers = Buffers()
    buffers.give_back(buffers.take(LARGE_BYTES))
    large = buffers.take(3 * LARGE_BYTES)
    assert len(large) >= 3 * LARGE_BYTES
    buffers.give_back(large)
    assert buffers.take(2 * LARGE_BYTES) is large


def test_only_a_few_are_kept() -> None:
    buffers = Buffers()
    taken = [buffers.take(LARGE_BYTES) for _ in range(20)]
    for buffer in taken:
        buffers.give_back(buffer)
    again = [buffers.take(LARGE_BYTES) for _ in range(20)]
    assert sum(any(buffer is before for before in taken) for buffer in again) == 4
