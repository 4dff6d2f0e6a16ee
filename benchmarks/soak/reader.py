"""A process that reads with one of the clients until its input ends, and checks every value: `FOLDER URL KIND`.

It prints a line of JSON a second: requests, problems, memory.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.soak.world import ALWAYS, PROJECT, TTL_S, USERS, Shared, price, profile_value
from feature_store.errors import NotFoundError, OnlineStoreError, StoreTimeoutError
from feature_store.online import AsyncOnlineClient, OnlineClient, Status

if TYPE_CHECKING:
    from feature_store.online import OnlineResponse

_THREADS, _TASKS, _BATCH = 4, 16, 20
_PAUSE_S = 0.004
# Of a machine that is busy with all of this: limits in time are looked at elsewhere.
_TIMEOUT_S = 30.0
_PAGE = 4096
# Lists of references and names of services that no server would ask for twice.
_ODD = 0.1


class Reader:
    """What both clients do: what to ask, and whether the answer is right."""

    def __init__(self, folder: Path) -> None:
        self.shared, self.counts = Shared(folder), Counter[str]()
        self.problems: list[str] = []
        self.is_over = False
        self._seen = np.zeros(USERS, np.int64)  # of clicks: a count never goes back

    def asked(self, chance: random.Random) -> tuple[str | list[str], dict[str, Any], dict[str, Any]]:
        """A service or references, entity rows, options."""
        rows = {"user_id": chance.sample(range(USERS), chance.randrange(1, _BATCH))}
        options: dict[str, Any] = {"now": time.time_ns() // 1000}
        if chance.random() < _ODD:
            options["deadline_ms"] = 50.0
        if chance.random() < _ODD:
            names = {name: "brief" if name in ("stamp", "double") else "activity" for name in ALWAYS[1:]}
            names["version"] = "profile"
            chosen = chance.sample(sorted(names), chance.randrange(1, len(names) + 1))
            return [f"{names[name]}:{name}" for name in chosen], rows, options
        return "ranking" if chance.random() > _ODD else f"made up {chance.random()}", rows, options

    def failed(self, service: object, options: dict[str, Any], error: Exception) -> None:
        """A request failed: may it?"""
        self.counts["requests"] += 1
        if isinstance(error, NotFoundError) and str(service).startswith("made up"):
            self.counts["unknown services"] += 1
        elif isinstance(error, StoreTimeoutError) and "deadline_ms" in options:
            self.counts["not in time"] += 1
        elif isinstance(error, OnlineStoreError) and self.shared.is_outage:
            self.counts["failed in the outage"] += 1
        else:
            self.wrong(f"{type(error).__name__}: {error}")

    def wrong(self, problem: str) -> None:
        """Something is not as it must be."""
        self.counts["wrong"] += 1
        if len(self.problems) < 10:
            self.problems.append(problem[:500])

    def check(self, rows: dict[str, Any], response: OnlineResponse, floor: int, now_us: int) -> None:
        """Each value of an answer."""
        self.counts["requests"] += 1
        self.counts["values"] += len(response.names) * len(rows["user_id"])
        values, status = response.to_dict(), response.status
        response.to_numpy() if "name" not in response.names else None
        skipped = any(Status.SKIPPED in of_one for of_one in status.values())
        self.counts["with what was skipped"] += skipped
        for i, user in enumerate(rows["user_id"]):
            row = {name: values[name][i] for name in response.names if status[name][i] == Status.PRESENT}
            if not skipped:
                self._check_profile(user, row, {name: status[name][i] for name in response.names}, floor)
            self._check_brief(row, now_us)
            self._check_activity(user, row)

    def _check_profile(self, user: int, row: dict[str, Any], status: dict[str, Status], floor: int) -> None:
        if "version" not in status:
            return
        if status["version"] != Status.PRESENT:
            self.wrong(f"user {user}: version {floor} was written, and it is {status['version'].name}")
            return
        version = row["version"]
        if version < floor:
            self.wrong(f"user {user}: version {floor} was written, and {version} is served")
        for name in ("a", "name", "extra", "half"):
            if name in row and row[name] != profile_value(name, user, version):
                self.wrong(f"user {user}: {name} = {row[name]!r} of another row than version {version}")

    def _check_brief(self, row: dict[str, Any], now_us: int) -> None:
        if "stamp" in row and row["stamp"] < now_us - TTL_S * 1_000_000:
            self.wrong(f"a value is served {(now_us - row['stamp']) / 1e6:.3f} s after its time, its ttl is {TTL_S} s")
        if "stamp" in row and "double" in row and row["double"] != 2 * row["stamp"]:
            self.wrong(f"double {row['double']} of stamp {row['stamp']}")

    def _check_activity(self, user: int, row: dict[str, Any]) -> None:
        count, total = row.get("price_count_7d"), row.get("price_sum_7d")
        if count is None:
            return
        if total is not None and total != count * price(user):
            self.wrong(f"user {user}: {count} clicks cost {total}, not {count * price(user)}")
        if count > self.shared.clicks[user]:
            self.wrong(f"user {user}: {count} clicks, of {self.shared.clicks[user]} that were sent")
        # Requests overlap, so an older answer may come later: what was seen by then is compared at the account.
        self._seen[user] = max(self._seen[user], count)

    def report(self) -> None:
        """Tell, each second, until the input ends."""
        threading.Thread(target=self._wait_for_end, daemon=True).start()
        while not self.is_over:
            time.sleep(1.0)
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
            told = {"counts": self.counts, "problems": self.problems, "rss": resident}
            print(json.dumps(told), flush=True)

    def _wait_for_end(self) -> None:
        sys.stdin.read()
        self.is_over = True


def read_in_threads(reader: Reader, url: str) -> None:
    """The blocking client, shared by threads."""
    client = OnlineClient(url, PROJECT, timeout_s=_TIMEOUT_S)

    def read(seed: int) -> None:
        chance = random.Random(seed)
        while not reader.is_over:
            service, rows, options = reader.asked(chance)
            floor = reader.shared.version
            try:
                response = client.get_online_features(service, rows, **options)
                reader.check(rows, response, floor, options["now"])
            except Exception as error:
                reader.failed(service, options, error)
            time.sleep(_PAUSE_S)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(_THREADS)]
    for thread in threads:
        thread.start()
    reader.report()
    for thread in threads:
        thread.join()
    client.close()


async def read_in_tasks(reader: Reader, url: str) -> None:
    """The asyncio client, shared by tasks."""

    async def read(seed: int) -> None:
        chance = random.Random(seed)
        while not reader.is_over:
            service, rows, options = reader.asked(chance)
            floor = reader.shared.version
            try:
                response = await client.get_online_features(service, rows, **options)
                reader.check(rows, response, floor, options["now"])
            except Exception as error:
                reader.failed(service, options, error)
            await asyncio.sleep(_PAUSE_S * _TASKS / _THREADS)

    async with AsyncOnlineClient(url, PROJECT, timeout_s=_TIMEOUT_S) as client:
        reporting = asyncio.create_task(asyncio.to_thread(reader.report))
        await asyncio.gather(*(read(seed) for seed in range(_TASKS)), reporting)


def main() -> None:
    """Read."""
    folder, url, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    reader = Reader(folder)
    if kind == "blocking":
        read_in_threads(reader, url)
    else:
        asyncio.run(read_in_tasks(reader, url))


if __name__ == "__main__":
    main()
