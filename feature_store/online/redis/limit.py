"""Time limits: one limit for a whole answer, which includes everything that the answer needs."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from feature_store.errors import ConfigError, RequestError

_new_tuple = tuple.__new__  # a third of the time of `_replace`


class HeldUpError(TimeoutError):
    """The limit of a request ended before the request sent or awaited anything: this process did not run in time."""


class Limit(NamedTuple):
    """A running time limit.

    Attributes:
        at: when the limit ends, on the clock of `time.monotonic`.
        seconds: the length of the limit.
        setting: the name of the setting behind it: `timeout_s` or `deadline_ms`.
        has_waited: whether the request has waited for a server, a resolver or a connection. Otherwise, if the limit
            ends before anything is sent, this process was held up.
    """

    at: float
    seconds: float
    setting: str = "timeout_s"
    has_waited: bool = False

    @classmethod
    def of(cls, seconds: float) -> Limit:
        """A limit of this many seconds that begins now."""
        return cls(time.monotonic() + seconds, seconds)

    @classmethod
    def of_deadline(cls, milliseconds: float) -> Limit:
        """The limit of a request with `deadline_ms`.

        Raises:
            RequestError: `milliseconds` is not a finite number.
        """
        if not _is_number(milliseconds):
            raise RequestError("deadline_ms", expected="milliseconds", got=repr(milliseconds))
        return cls(time.monotonic() + milliseconds / 1000, milliseconds / 1000, "deadline_ms")

    def left(self) -> float:
        """The remaining seconds.

        Raises:
            TimeoutError: no time remains; see `ended`.
        """
        left = self.at - time.monotonic()
        if left <= 0:
            raise self.ended()
        return left

    def ended(self) -> TimeoutError:
        """The error for a limit that is over: a HeldUpError if the request has not waited for anything."""
        return TimeoutError() if self.has_waited else HeldUpError()

    def further(self) -> Limit:
        """The same limit for the rest of a request that has waited."""
        return self if self.has_waited else _new_tuple(Limit, (self.at, self.seconds, self.setting, True))

    def share(self, of: int) -> Limit:
        """A limit that ends after one of `of` equal parts of the remaining time.

        Raises:
            TimeoutError: as `left`.
        """
        return self._replace(at=time.monotonic() + self.left() / of)


def checked_timeout(seconds: float) -> float:
    """Return `timeout_s` if it is valid.

    Raises:
        ConfigError: `seconds` is not a finite number greater than 0.
    """
    if not _is_number(seconds) or seconds <= 0:
        raise ConfigError("timeout_s", expected="seconds, greater than 0", got=repr(seconds))
    return seconds


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
