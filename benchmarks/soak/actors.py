"""Those who change things while readers read: jobs with kills, pushes, clicks, stream workers, one restart of Redis."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
from confluent_kafka import Producer

from benchmarks.kafka import children, command_line, merged_up_to
from benchmarks.soak.world import LAYOUTS, TOPIC, USERS, Shared, price, write_definitions, write_version
from feature_store import FeatureStore
from feature_store.definitions.pruned import pruning_of
from feature_store.errors import NotPublishedError, OnlineStoreError, StaleWriteError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CLICKS_PER_S = 400
_PUSH_S, _KILL_S = 1.5, 12.0
_TRIES, _TRY_S = 60, 0.5
_MAIN = "from feature_store.cli import main; main()"


class Actor(threading.Thread):
    """Takes a step again and again until it is over; what it raises ends the soak as wrong."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.shared, self.chance = folder, Shared(folder), random.Random(seed)
        self.over, self.done, self.problem = threading.Event(), Counter[str](), ""

    def run(self) -> None:
        """Take steps."""
        try:
            while not self.over.is_set():
                self.step()
            self.end()
        except Exception as error:
            self.problem = f"{type(self).__name__}: {type(error).__name__}: {error}"

    def step(self) -> None:
        """One step."""
        raise NotImplementedError

    def end(self) -> None:
        """After the last step."""

    def insist(self, what: str, act: Callable[[], Any]) -> None:
        """Do it; again while Redis is away, or when a plan was published in the middle of a write."""
        for _ in range(_TRIES):
            try:
                act()
            except (StaleWriteError, NotPublishedError):  # an apply is between the registry and Redis
                self.done[f"{what} again, for a new plan"] += 1
            except OnlineStoreError:
                if not self.shared.is_outage:
                    raise
                self.done[f"{what} again, in the outage"] += 1
            else:
                self.done[what] += 1
                return
            time.sleep(_TRY_S)
        raise RuntimeError(f"{what} does not succeed")


class Jobs(Actor):
    """New rows, materialized by jobs of which some are killed; other layouts; pruned services."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self._store = FeatureStore(folder)
        self._layout, self._is_pruned, self.version = 0, False, 0

    def step(self) -> None:
        """A version of every user's row, and sometimes what changes the plan."""
        if self.version % 4 == 3:
            self._unprune()
            self._layout = (self._layout + 1) % len(LAYOUTS)
            write_definitions(self.folder, self._layout)
            self.insist("applied", partial(self._store.apply, allow_destructive=True))
        elif self.version % 4 == 1:
            self._prune()
        self.version += 1
        write_version(self.folder, self.version)
        while self.chance.random() < 0.5:
            self._killed(self.chance.randrange(3))
        self.insist("materialized", self._store.materialize)
        self.shared.version = self.version

    def end(self) -> None:
        """The last version."""
        self._unprune()
        self._store.close()

    def _killed(self, writes: int) -> None:
        command = [sys.executable, "-m", "benchmarks.soak.killed", str(self.folder), str(writes)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        self.done["jobs killed" if found.returncode == -signal.SIGKILL else "jobs not killed"] += 1
        if found.returncode not in (0, -signal.SIGKILL) and not self.shared.is_outage:
            raise RuntimeError(f"materialize: {found.stderr[-1000:]}")

    def _prune(self) -> None:
        def act() -> None:
            stage = self.chance.choice(["drop", "mask"])
            pruning = pruning_of(
                self._store.applied(),
                "ranking",
                self.chance.sample(["a", "name"], self.chance.randrange(1, 3)),
                plan=f"soak-{self.version}",
                stage=stage,  # type: ignore[arg-type]
            )
            self._store.prune("ranking", pruning)

        self._unprune()
        self.insist("pruned", act)
        self._is_pruned = True

    def _unprune(self) -> None:
        if self._is_pruned:
            self.insist("rolled back", lambda: self._store.prune("ranking", None))
            self._is_pruned = False


class Pushes(Actor):
    """Values that expire after some seconds."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self._store = FeatureStore(folder)

    def step(self) -> None:
        """Push values of half of the users."""
        users = np.array(self.chance.sample(range(USERS), USERS // 2))
        now = datetime.now(UTC)
        stamp = int(now.timestamp() * 1_000_000)
        stamps = np.full(len(users), stamp)
        at = pa.array(stamps).cast(pa.timestamp("us", "UTC"))
        rows = pa.table({"user_id": users, "event_timestamp": at, "stamp": stamps, "double": 2 * stamps})
        self.insist("pushed", lambda: self._store.push("brief", rows))
        self.over.wait(_PUSH_S)

    def end(self) -> None:
        """Close."""
        self._store.close()


class Clicks(Actor):
    """Events, at a steady rate."""

    def __init__(self, folder: Path, seed: int, bootstrap: str) -> None:
        super().__init__(folder, seed)
        self._producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})

    def step(self) -> None:
        """A tenth of a second's."""
        for user in self.chance.choices(range(USERS), k=_CLICKS_PER_S // 10):
            self.shared.clicks[user] += 1
            event = {"user_id": user, "price": price(user), "ts": int(time.time() * 1000)}
            self._producer.produce(TOPIC, orjson.dumps(event))
        self._producer.poll(0)
        self.done["clicks"] += _CLICKS_PER_S // 10
        self.over.wait(0.1)

    def end(self) -> None:
        """All of them are with Kafka."""
        if self._producer.flush(60):
            raise RuntimeError("Kafka does not take the last clicks")


class Streams(Actor):
    """`feature-store stream`, of which a worker, or the whole, is killed now and then, and started again.

    It is killed when it has merged something since it was started, after a random time: on a busy machine it would be
    killed for ever before it begins.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self._store = FeatureStore(folder)
        self._process, self._merged = self._launched(), 0

    def step(self) -> None:
        """Live for a while, then be killed."""
        self.over.wait(self.chance.uniform(_KILL_S / 2, _KILL_S * 1.5))
        while self._process.poll() is None and not self._has_merged() and not self.over.wait(1.0):
            pass
        if self.over.is_set():
            return
        if self._process.poll() is not None:
            if not self.shared.is_outage:
                log = (self.folder / "stream.log").read_text()[-1500:]
                raise RuntimeError(f"stream ended by itself with {self._process.returncode}: {log}")
            self._process = self._launched()
            return
        workers = _workers(self._process.pid)
        if workers and self.chance.random() < 0.5:
            _kill(self.chance.choice(workers))
            self.done["workers killed"] += 1
            return
        self._process.kill()  # its workers end by themselves
        self._process.wait()
        self.done["streams killed"] += 1
        self._process = self._launched()

    def _has_merged(self) -> bool:
        """Whether fences went on since the last kill."""
        try:
            merged = sum(merged_up_to(self._store).values())
        except OnlineStoreError:
            if not self.shared.is_outage:
                raise
            return False
        went_on, self._merged = merged > self._merged, max(merged, self._merged)
        return went_on

    def stop(self) -> None:
        """End it as an operator does."""
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._store.close()

    def _launched(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _MAIN, "stream", "--repo", str(self.folder), "--workers", "2", "--json"]
        with (self.folder / "stream.log").open("ab") as log:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)


def _workers(pid: int) -> list[int]:
    return [child for child in children(pid) if b"spawn_main" in command_line(child)]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
