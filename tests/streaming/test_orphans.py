"""Workers whose parent is gone end by themselves, and the next stream counts nothing twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.streaming.running import merged_up_to, streaming, until
from tests.streaming.streaming_worlds import SECOND_US, differences, make_topic, project, send, some_clicks, value_of

EVENTS, PARTITIONS, SENT_AT_ONCE = 20_000, 4, 250
NOW_US = time.time_ns() // 1_000
# Between batches, a worker checks that its parent is there; without it, the worker leaves its group in order.
END_S = 30


def is_alive(pid: int) -> bool:
    """Whether a process runs. A process that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_workers_end_soon_after_their_parent_was_killed_and_nothing_is_doubled(
    tmp_path: Path, redis_url: str, kafka: str
) -> None:
    clicks = some_clicks(EVENTS, users=500, seed=3, start_us=NOW_US - 3600 * SECOND_US)
    values = list(map(value_of, clicks))
    make_topic(kafka, "clicks", PARTITIONS)
    with project(tmp_path, redis_url, kafka) as store:

        def merged() -> int:
            return min(merged_up_to(store).values())

        def keep_merging(sent: int) -> None:
            """Send no faster than workers merge, so that they are at work when the parent goes."""
            if sent % SENT_AT_ONCE == 0:
                until(lambda: merged() >= sent - 4 * SENT_AT_ONCE, 60, first.log)

        with streaming(tmp_path, "--workers", "2") as first:
            send(kafka, "clicks", values[: EVENTS // 2], PARTITIONS, pause=keep_merging)
            orphans = first.workers()
            first.signal(first.process.pid, signal.SIGKILL)
            first.process.wait()
        assert len(orphans) == 2
        with streaming(tmp_path, "--workers", "2") as second:
            send(kafka, "clicks", values[EVENTS // 2 :], PARTITIONS)
            until(lambda: not any(map(is_alive, orphans)), END_S)
            until(lambda: merged() >= EVENTS, 60, second.log)
            assert differences(store, clicks, NOW_US) == []
            second.stop()
