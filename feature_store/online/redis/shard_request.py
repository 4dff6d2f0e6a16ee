"""The steps of a request to several servers, without I/O: which server gets which commands, and the next step after
the replies. Both pools (`shard_pool.py`, `async_shard_pool.py`) run them, and differ in how they exchange bytes.

A command that its server did not answer is sent again to the server that holds the key by then, until the caller's time
limit ends. Only reads are sent this way.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from feature_store.errors import StoreReplyError, StoreTimeoutError
from feature_store.online.redis.errors import code_of
from feature_store.online.redis.following import ASKING, MOST_AT_ONCE
from feature_store.online.redis.hedging import size_of
from feature_store.online.redis.resp import Command, ReplyParser
from feature_store.online.redis.shards import half
from feature_store.online.redis.single_reads import feed, single, value_of, words_of

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence

    from feature_store.errors import OnlineStoreError
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.limit import Limit
    from feature_store.online.redis.readers import Readers
    from feature_store.online.redis.shards import Shards

# Codes of a server that cannot answer now, while another server may, now or soon.
_ELSEWHERE = {"CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY"}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.05
# How long opening a connection may take when another server can be asked, and how many round trips it takes.
_OPENING_S, _ROUND_TRIPS = 0.25, 4
# How long a request waits for a publication that is between two of its steps; see online/publication.py.
_PUBLISHING_S = 0.2


class Send(NamedTuple):
    """Send commands to their servers, all at once, within `ShardRequest.limit_of`.

    The pool reports each server with `ShardRequest.answered` or `ShardRequest.failed`.
    """

    batches: list[tuple[Endpoint, list[Command]]]


class Refresh(NamedTuple):
    """Learn the shards again, within `ShardRequest.limit_of_refresh`. See `Shards.refresh`.

    If the request has a server to ask all the same (`may_fail`), it goes on when that fails.
    """

    version: int
    failed: Collection[Endpoint] = ()
    may_fail: bool = False


class RefreshSoon(NamedTuple):
    """Begin to learn the shards again. The request does not wait for it."""


class Pause(NamedTuple):
    """Wait. If the time limit ends before and `error` is given, the pool raises it."""

    seconds: float
    error: OnlineStoreError | None


Step = Send | Refresh | RefreshSoon | Pause
_REFRESH_SOON = RefreshSoon()


class ShardRequest:
    """One request.

    Args:
        shards: the topology.
        readers: chooses a server of a shard.
        commands: the commands of the request. The keys of each are in one shard.

    Attributes:
        was_held_up: whether this process was held up before it sent some of the last commands.
    """

    def __init__(self, shards: Shards, readers: Readers, commands: Sequence[Command]) -> None:
        self._shards, self._readers, self._commands = shards, readers, commands
        self.was_held_up = False
        self._failed: dict[Endpoint, OnlineStoreError] = {}
        # Per command that a server redirected: the new server, and whether ASKING precedes the command.
        self._redirected: dict[int, tuple[Endpoint, bool]] = {}
        # Commands that a primary must answer: a replica was behind, or could not answer.
        self._of_primaries: set[int] = set()
        self._pause_s = _FIRST_PAUSE_S
        # How many rounds in a row a server redirected a command.
        self._redirections = 0

    def limit_of(self, server: Endpoint, limit: Limit) -> Limit:
        """The time limit of one server. A replica has half of the remaining time: the rest is for its primary."""
        return half(limit) if server.is_replica else limit

    def limit_of_refresh(self, step: Refresh, limit: Limit) -> Limit:
        """The time limit of a step. It is half of the remaining time if the request has a server to ask afterwards."""
        return half(limit) if step.may_fail else limit

    def answered(self, server: Endpoint, began: float) -> None:
        """Record that all replies of a server came, to commands that were sent at `began` (`time.monotonic`)."""
        self._readers.answered(server, began)
        if self._shards.suspects:
            self._shards.suspects.discard(server)

    def failed(self, server: Endpoint, error: OnlineStoreError) -> None:
        """Record that a server could not be reached, refused or closed the connection, or did not answer in time.

        A server that was not asked in time, because this process was held up, is not at fault.

        Raises:
            StoreReplyError: the server refused the connection, and no other server may be asked.
        """
        if isinstance(error, StoreReplyError):
            shard = next((one for one in self._shards.all if one.primary is server), None)
            if not self._readers.may_leave(server, shard):
                raise error
        self._failed[server] = error
        if _is_held_up(error):
            self.was_held_up = True
            return
        self._readers.avoid(server)
        if isinstance(error, StoreTimeoutError) and not server.is_replica:
            self._shards.suspect(server)

    # -- hedges; see hedging.py ---------------------------------------------------------------------------------

    def hedge_at(self, server: Endpoint, commands: Sequence[Command], began: float) -> float | None:
        """When commands for a server that are sent at `began` are late (`time.monotonic`); None: never."""
        hedges = self._readers.hedges
        if hedges is None:
            return None
        hedges.asked(commands)
        after = hedges.after(server)
        if after is None or any(not command.epoch or id(command) in self._of_primaries for command in commands):
            return None
        return began + after

    def limit_of_opening(self, server: Endpoint, hedge_at: float | None, limit: Limit) -> Limit:
        """The limit of opening a connection, which cannot be hedged: another server is asked when it takes too long."""
        if hedge_at is None:
            return limit
        now = time.monotonic()
        soon = now + max(_OPENING_S, _ROUND_TRIPS * (hedge_at - now))
        shard = next((one for one in self._shards.all if server in (one.primary, *one.replicas)), None)
        return limit._replace(at=soon) if soon < limit.at and self._readers.may_leave(server, shard) else limit

    def hedge(self, server: Endpoint, commands: Sequence[Command]) -> Hedge:
        """Record that a server is late, and choose another server for the same commands. `end_hedge` must follow."""
        assert self._readers.hedges is not None
        shards = {shard for shard in [self._shards.shard(command.key) for command in commands] if shard is not None}
        others = self._readers.others(list(shards), server) if shards else []
        target = self._readers.hedges.begin(server, others, size_of(commands))
        copies = [] if target is None else [one._replace(parser=one.parser.again()) for one in commands]
        return Hedge(server, target, copies)

    def accepts(self, hedge: Hedge) -> bool:
        """Whether the replies to a hedge count. Whichever server answered, they must have the epoch of the request."""
        return all(one.parser.is_complete and one.parser.saw_only(one.epoch) for one in hedge.commands)

    def take_over(self, hedge: Hedge, commands: Sequence[Command], began: float) -> None:
        """Answer commands with the replies to a hedge."""
        for command, copy in zip(commands, hedge.commands, strict=True):
            command.parser.take_over(copy.parser)
        self._readers.measured(hedge.server, time.monotonic() - began)
        hedge.has_won = True

    def end_hedge(self, hedge: Hedge) -> None:
        """Record that the commands are answered, or failed."""
        assert self._readers.hedges is not None
        self._readers.hedges.end(hedge.server, hedge.target, has_won=hedge.has_won)

    # -- the steps ----------------------------------------------------------------------------------------------

    def steps(self) -> Generator[Step, None, None]:
        """The steps, one after the other, until all commands are answered.

        Raises:
            StoreReplyError: a server answers with an error that another server would give too.
            ClusterDownError, StoreConnectionError: no server holds the keys of a command.
            StoreTimeoutError: a primary did not answer in time. The commands that other servers answered are complete,
                and no parser has an error.
        """
        if self._shards.version and self._shards.becomes_old():
            yield _REFRESH_SOON
        yield from self._answered(self._commands)
        waited_s = 0.0
        while waited_s < _PUBLISHING_S and _epochs_differ(self._commands):
            yield Pause(self._pause_s, None)
            waited_s += self._pause_s
            self._longer()
            for command in self._commands:
                command.parser.restart()
            yield from self._answered(self._commands)

    def _answered(self, commands: Sequence[Command]) -> Generator[Step, None, None]:
        left = commands
        while left:
            self._failed.clear()
            self.was_held_up = False
            sent = yield from self._routed(left)
            yield Send([(server, listed) for server, (listed, _) in sent.items()])
            judged = _Judged([], [])
            for server, (_, own) in sent.items():
                for command in own:
                    self._judge(server, command, judged)
            if judged.too_late is not None:
                if self._shards.becomes_old():
                    yield _REFRESH_SOON
                raise judged.too_late
            yield from self._prepared(judged)
            for command in judged.scattered:
                yield from self._one_by_one(command)
            left = judged.again

    def _routed(self, commands: Sequence[Command]) -> Generator[Step, None, _Routed]:
        """By server, the commands to send, with ASKING where needed, and those of them that belong to the request."""
        unknown = any(self._shards.shard(command.key) is None for command in commands)
        if unknown:
            yield Refresh(self._shards.version)
        routed = self._by_server(commands)
        if not self._shards.suspects.isdisjoint(routed):
            yield Refresh(self._shards.version, self._shards.suspects.copy(), may_fail=True)
            routed = self._by_server(commands)
        for command in commands if self._redirected else ():
            self._redirected.pop(id(command), None)
        return routed

    def _by_server(self, commands: Sequence[Command]) -> _Routed:
        """See _routed.

        The order of servers is the same for all requests, so that no two requests wait for each other's connections.
        """
        routed: _Routed = {}
        for command in commands:
            server, is_asking = self._redirected.get(id(command), (None, False))
            if server is None:
                shard = self._shards.shard(command.key)
                if shard is None:
                    raise self._shards.uncovered(command.key)
                is_free = id(command) not in self._of_primaries
                server = self._readers.choose(shard, command) if is_free else shard.primary
            sent, own = routed.setdefault(server, ([], []))
            if is_asking:
                sent.append(Command(command.key, ASKING, ReplyParser(1)))
            sent.append(command)
            own.append(command)
        return routed if len(routed) == 1 else dict(sorted(routed.items(), key=lambda item: item[0].number))

    def _judge(self, server: Endpoint, command: Command, judged: _Judged) -> None:
        """Decide from the reply to a command whether it is answered or sent again."""
        parser = command.parser
        if parser.fixed:
            return
        if not parser.is_complete:
            judged.problem = self._failed.get(server) or self._shards.whole.lost("the server closed the connection")
            if not _is_held_up(judged.problem):
                judged.lost.add(server)
            if isinstance(judged.problem, StoreTimeoutError) and not server.is_replica:
                judged.too_late = judged.problem
        elif parser.error is None:
            if self._readers.accepts(server, command):
                return
        elif code_of(parser.error) == "TRYAGAIN":
            parser.restart()
            judged.scattered.append(command)
            return
        else:
            self._judge_error(server, command, parser.error, judged)
        if server.is_replica:
            self._of_primaries.add(id(command))
        parser.restart()
        judged.again.append(command)

    def _judge_error(self, server: Endpoint, command: Command, error: Exception, judged: _Judged) -> None:
        code = code_of(error)
        if code in _ELSEWHERE:
            judged.problem = server.refused(error)
            judged.lost.add(server)
            return
        if code not in ("MOVED", "ASK"):
            raise server.refused(error)
        node = self._shards.place(str(error).split()[-1], server)
        if code == "MOVED":
            self._shards.put(command.key, node)
        self._redirected[id(command)] = node, code == "ASK"
        judged.is_redirected = True

    def _prepared(self, judged: _Judged) -> Generator[Step, None, None]:
        """Learn the shards, or wait, before commands are sent again."""
        primaries = []
        for server in judged.lost:
            if server.is_replica:
                self._readers.avoid(server)
            else:
                primaries.append(server)
        if primaries:
            known = [self._shards.shard(command.key) for command in judged.again]
            yield Refresh(self._shards.version, primaries)
            judged.is_late |= known == [self._shards.shard(command.key) for command in judged.again]
        self._redirections = self._redirections + 1 if judged.is_redirected else 0
        judged.is_late |= self._redirections > MOST_AT_ONCE
        if judged.is_late:
            yield Pause(self._pause_s, judged.problem)
            self._longer()

    def _one_by_one(self, command: Command) -> Generator[Step, None, None]:
        """Answer a command key by key, because its keys are on two nodes while their slot is being moved.

        The epoch is read before and after the rows. If it stayed the same, its plan was published during all reads, and
        no row that the plan names was deleted. So the reply is as good as that of one command.
        """
        names = words_of(command.data)[1:]
        while True:
            before, after = single(command.key, names[-1]), single(command.key, names[-1])
            singles = [single(command.key, name) for name in names[:-1]]
            yield from self._answered([before])
            yield from self._answered(singles)
            yield from self._answered([after])
            if value_of(before) == value_of(after):
                break
        feed(command.parser, [*map(value_of, singles), value_of(after)])

    def _longer(self) -> None:
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


_Routed: TypeAlias = "dict[Endpoint, tuple[list[Command], list[Command]]]"


@dataclass
class _Judged:
    """The next steps after the replies to commands that were sent together.

    Attributes:
        again: the commands that are sent again.
        scattered: the commands whose keys are on two nodes.
        lost: the servers that do not serve.
        problem: why one of them does not serve; None when all serve.
        too_late: the error of a primary that did not answer within the limit of the request; None when all did.
        is_redirected: whether a server redirected a command.
        is_late: whether to wait before sending again, because the shards have not changed.
    """

    again: list[Command]
    scattered: list[Command]
    lost: set[Endpoint] = field(default_factory=set)
    problem: OnlineStoreError | None = None
    too_late: StoreTimeoutError | None = None
    is_redirected: bool = False
    is_late: bool = False


@dataclass
class Hedge:
    """A request that a server is slow to answer, for another server.

    Attributes:
        server: the server that is late.
        target: the other server; None when none is asked.
        commands: the commands for the other server, with parsers of their own.
        has_won: whether the answer of the other server counts.
    """

    server: Endpoint
    target: Endpoint | None
    commands: list[Command]
    has_won: bool = False


def _is_held_up(error: OnlineStoreError) -> bool:
    return isinstance(error, StoreTimeoutError) and error.is_held_up


def _epochs_differ(commands: Sequence[Command]) -> bool:
    """Whether the replies to commands of several buckets end with different epochs: a publication is under way.

    A fixed reply has the epoch that the request was prepared with. So if all replies are fixed, all epochs are equal.
    """
    if len(commands) == 1:
        return False
    taken_apart = next((command.parser for command in commands if not command.parser.fixed), None)
    if taken_apart is None:
        return False
    epoch = taken_apart.replies[0][-1]
    return not all(command.parser.saw_only(epoch) for command in commands)
