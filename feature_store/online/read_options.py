"""The options of a read, checked once and passed on as one value."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from feature_store.definitions.dtypes import given_microseconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class ReadOptions(NamedTuple):
    """How one request is read. `OnlineClient.get_online_features` describes each option.

    Attributes:
        now_us: the time that ttls count from, microseconds since 1970; None for the current time.
        model_features: the names of the model's features; None: not checked.
        prune_plan: the id of the prune plan that the model was made for, empty for none; None: not checked.
        deadline_ms: milliseconds for the whole answer; None for the client's `timeout_s`.
    """

    now_us: int | None = None
    model_features: Sequence[str] | None = None
    prune_plan: str | None = None
    deadline_ms: float | None = None


_DEFAULTS = ReadOptions()


def read_options(
    now: datetime | int | None, model_features: Sequence[str] | None, plan: str | None, deadline_ms: float | None
) -> ReadOptions:
    """The options as callers give them.

    Raises:
        RequestError: `now` is not a time.
    """
    if now is None and model_features is None and plan is None and deadline_ms is None:
        return _DEFAULTS
    now_us = None if now is None else given_microseconds(now, "now")
    return ReadOptions(now_us, model_features, plan, deadline_ms)
