"""Limits in time: one for the whole of an answer, which all that the answer needs counts against."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from feature_store.errors import ConfigError, RequestError


class Limit(NamedTuple):
    """A limit in time that runs.

    Attributes:
        at: when it ends, on the clock `time.monotonic`.
        seconds: how long it is.
        setting: what sets it: `timeout_s` or `deadline_ms`.
    """

    at: float
    seconds: float
    setting: str = "timeout_s"

    @classmethod
    def of(cls, seconds: float) -> Limit:
        """A limit of so many seconds that begins now."""
        return cls(time.monotonic() + seconds, seconds)

    @classmethod
    def of_deadline(cls, milliseconds: float) -> Limit:
        """The limit of a request with `deadline_ms`.

        Raises:
            RequestError: it is no number.
        """
        if not _is_number(milliseconds):
            raise RequestError("deadline_ms", expected="milliseconds", got=repr(milliseconds))
        return cls(time.monotonic() + milliseconds / 1000, milliseconds / 1000, "deadline_ms")

    def left(self) -> float:
        """The seconds that are left.

        Raises:
            TimeoutError: none are.
        """
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def share(self, of: int) -> Limit:
        """A limit that ends when one of `of` equal parts of what is left is over.

        Raises:
            TimeoutError: nothing is left.
        """
        return self._replace(at=time.monotonic() + self.left() / of)


def checked_timeout(seconds: float) -> float:
    """Return `timeout_s` when it is one.

    Raises:
        ConfigError: it is no number of seconds greater than 0.
    """
    if not _is_number(seconds) or seconds <= 0:
        raise ConfigError("timeout_s", expected="seconds, greater than 0", got=repr(seconds))
    return seconds


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
