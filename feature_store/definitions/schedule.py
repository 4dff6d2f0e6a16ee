"""Schedules of views: cron expressions in UTC, and the times at which they fall.

The library cronsim reads the expressions, with the rules of Debian's cron.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from feature_store._extras import requires_extra
from feature_store.definitions.times import from_microseconds, to_microseconds
from feature_store.errors import DefinitionError

if TYPE_CHECKING:
    from cronsim import CronSim

_FIELDS = 5
# A leap year, so that each day of a month occurs within the years that cronsim looks at.
_SOME_TIME_US = 1_709_164_800_000_000


def check_schedule(schedule: str) -> None:
    """Refuse a text that is no schedule.

    Raises:
        DefinitionError: it does not have five fields, a field is wrong, or no time fits it.
        MissingDependencyError: the extra `registry` is not installed.
    """
    if len(schedule.split()) != _FIELDS:
        expected = "five fields: minute, hour, day of the month, month, day of the week"
        raise DefinitionError("schedule", expected=expected, got=repr(schedule), hint='"0 3 * * *" is 03:00 UTC daily')
    time_after(schedule, _SOME_TIME_US)


def time_before(schedule: str, time_us: int) -> int:
    """The last scheduled time that is not after a time. Both are in microseconds since 1970."""
    # cronsim gives times before the one that it begins with.
    return _first(schedule, time_us + 1, backwards=True)


def time_after(schedule: str, time_us: int) -> int:
    """The first scheduled time after a time. Both are in microseconds since 1970."""
    return _first(schedule, time_us, backwards=False)


def _first(schedule: str, time_us: int, *, backwards: bool) -> int:
    with requires_extra("registry", "schedules"):
        from cronsim import CronSim, CronSimError
    try:
        times: CronSim = CronSim(schedule, from_microseconds(time_us), reverse=backwards)
        found: datetime = next(times)
    except CronSimError as error:
        problem = f"{schedule!r} is no schedule: {str(error).lower()}"
        raise DefinitionError("schedule", problem=problem, hint='"*/15 * * * *" is every 15 minutes') from None
    except StopIteration:
        raise DefinitionError("schedule", problem=f"no time fits {schedule!r}") from None
    return to_microseconds(found)
