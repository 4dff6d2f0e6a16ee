"""Schedules: cron expressions in UTC, checked against a slow reading of the rules, minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings, strategies as st

from feature_store import Entity, FeatureView, Field, Int64, ParquetSource
from feature_store.definitions import DefinitionSet
from feature_store.definitions.schedule import time_after, time_before
from feature_store.definitions.times import from_microseconds, to_microseconds
from feature_store.errors import DefinitionError

USER = Entity("user", join_key="user_id")
MINUTE = timedelta(minutes=1)


def view(schedule: str | None, *, has_source: bool = True) -> FeatureView:
    source = ParquetSource("users.parquet", event_timestamp="at") if has_source else None
    return FeatureView("stats", entities=[USER], schema=[Field("age", Int64)], source=source, schedule=schedule)


def field(first: int, last: int) -> st.SearchStrategy[tuple[str, set[int]]]:
    """A field as text, and the numbers that it stands for."""
    everything = range(first, last + 1)
    number = st.integers(first, last)
    listed = st.lists(number, min_size=1, max_size=3).map(lambda some: (",".join(map(str, some)), set(some)))
    between = st.tuples(number, number).map(sorted).map(lambda p: (f"{p[0]}-{p[1]}", set(range(p[0], p[1] + 1))))
    step = st.integers(1, 20).map(lambda n: (f"*/{n}", set(everything[::n])))
    return st.one_of(st.just(("*", set(everything))), listed, between, step)


@settings(max_examples=60, deadline=None)
@given(field(0, 59), field(0, 23), field(1, 12), st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)))
def test_times_are_those_of_a_search_minute_by_minute(
    minutes: tuple[str, set[int]], hours: tuple[str, set[int]], months: tuple[str, set[int]], at: datetime
) -> None:
    schedule = f"{minutes[0]} {hours[0]} * {months[0]} *"

    def fits(time: datetime) -> bool:
        return time.minute in minutes[1] and time.hour in hours[1] and time.month in months[1]

    def searched(time: datetime, step: timedelta) -> datetime | None:
        for _ in range(3 * 1440):  # it looks at three days
            if fits(time):
                return time
            time += step
        return None

    now = at.replace(tzinfo=UTC)
    whole = now.replace(second=0, microsecond=0)
    before, after = searched(whole, -MINUTE), searched(whole + MINUTE, MINUTE)
    now_us = to_microseconds(now)
    found = from_microseconds(time_before(schedule, now_us)), from_microseconds(time_after(schedule, now_us))
    assert found[0] == before or (before is None and found[0] < whole - timedelta(days=2))
    assert found[1] == after or (after is None and found[1] > whole + timedelta(days=2))


def test_a_scheduled_time_is_before_itself_and_not_after_itself() -> None:
    at = to_microseconds(datetime(2026, 1, 5, 3, tzinfo=UTC))
    day = 86_400_000_000
    assert time_before("0 3 * * *", at) == at
    assert time_before("0 3 * * *", at - 1) == at - day
    assert time_after("0 3 * * *", at) == at + day
    assert time_after("0 3 * * *", at - 1) == at


def test_a_time_that_comes_once_in_four_years_is_a_schedule() -> None:
    assert view("0 0 29 2 *").schedule == "0 0 29 2 *"


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "daily",
        "@daily",
        "0 3 * *",
        "0 0 3 * * *",
        "61 * * * *",
        "0 24 * * *",
        "0 3 31 2 *",
        "a b c d e",
        "*/0 * * * *",
    ],
)
def test_what_is_no_schedule_is_refused_where_it_is_written(schedule: str) -> None:
    with pytest.raises(DefinitionError, match=r"FeatureView\('stats'\).*schedule"):
        view(schedule)


def test_a_view_without_a_source_has_nothing_to_schedule() -> None:
    with pytest.raises(DefinitionError, match=r"schedule: there is no source to materialize"):
        view("0 3 * * *", has_source=False)


def test_a_document_without_a_schedule_is_that_of_earlier_releases() -> None:
    assert "schedule" not in str(DefinitionSet([view(None)]).document)
    with_one = DefinitionSet([view("*/5 * * * *")])
    assert DefinitionSet.from_document(with_one.document).feature_views["stats"].schedule == "*/5 * * * *"
