"""Distributions of samples, against counts of single values."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from feature_store import FeatureStore
from feature_store.definitions import Entity, FeatureView, Field, String
from feature_store.definitions.graph import Feature
from feature_store.online import Status
from feature_store.ui.samples import distribution
from feature_store.ui.snapshot import is_hidden
from tests.ui.ui_worlds import Visitor

statuses = st.sampled_from([Status.PRESENT, Status.PRESENT, Status.NULL, Status.MISSING, Status.EXPIRED])
values = st.one_of(
    st.lists(st.tuples(st.floats(allow_nan=True, allow_infinity=True), statuses)),
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), statuses)),
    st.lists(st.tuples(st.booleans(), statuses)),
    st.lists(st.tuples(st.text(max_size=60), statuses)),
    st.lists(st.tuples(st.lists(st.floats(-10, 10)), statuses)),
    st.lists(st.tuples(st.datetimes(timezones=st.just(UTC)), statuses)),
)


@given(values)
def test_every_present_value_is_in_a_bar(of_entities: list[tuple[Any, Status]]) -> None:
    listed = [value if status == Status.PRESENT else None for value, status in of_entities]
    status = [status for _, status in of_entities]
    found = distribution(listed, status, status)
    assert found.sampled == len(of_entities)
    assert {one: status.count(one) for one in status} == {one: n for one, n in found.status.items() if n}
    elements = [
        item
        for value, one in of_entities
        if one == Status.PRESENT
        for item in (value if isinstance(value, list) else [value])
    ]
    finite = [item for item in elements if not isinstance(item, float) or math.isfinite(item)]
    assert sum(bar.count for bar in found.bars) == len(finite)
    if not finite:
        return
    if found.is_numeric:
        assert all(bar.low is not None and bar.high is not None and bar.low <= bar.high for bar in found.bars)
        assert [bar.low for bar in found.bars] == sorted(bar.low for bar in found.bars if bar.low is not None)
        numbers = [item.timestamp() if isinstance(item, datetime) else float(item) for item in finite]
        assert found.quantiles[0][1] == pytest.approx(min(numbers))
        assert found.quantiles[-1][1] == pytest.approx(max(numbers))
        if max(abs(number) for number in numbers) < 1e300:
            assert found.mean == pytest.approx(float(np.mean(numbers)))
    else:
        assert found.distinct is not None
        assert found.bars[0].count == max(finite.count(item) for item in finite) or isinstance(finite[0], str)


def test_few_different_numbers_have_a_bar_each() -> None:
    found = distribution([1, 1, 5, 3], [Status.PRESENT] * 4, [Status.EXPIRED] * 4)
    assert [(bar.label, bar.count) for bar in found.bars] == [("1", 2), ("3", 1), ("5", 1)]
    assert found.missing_share == 1.0


def test_an_outlier_does_not_hide_the_others() -> None:
    found = distribution([*range(1000), 10**9], [Status.PRESENT] * 1001, [Status.PRESENT] * 1001)
    assert max(bar.count for bar in found.bars) < 100


@pytest.mark.parametrize(
    ("view_tags", "tags", "hidden"),
    [
        ({}, {}, False),
        ({}, {"pii": "yes"}, True),
        ({}, {"PII": "email"}, True),
        ({"pii": "yes"}, {}, True),
        ({"pii": "yes"}, {"pii": "no"}, False),
        ({}, {"ui": "hide"}, True),
        ({}, {"ui": "show"}, False),
    ],
)
def test_tags_hide_values(view_tags: dict[str, str], tags: dict[str, str], hidden: bool) -> None:
    user = Entity("user", join_key="user_id")
    view = FeatureView("v", entities=[user], schema=[Field("zip", String, tags=tags)], tags=view_tags)
    assert is_hidden(Feature(view, view.field("zip"), (), (), ())) is hidden


def test_hidden_values_are_on_no_page(
    shop: FeatureStore, visit: Callable[..., Visitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("city", "price_mean_1h")
    tags = property(lambda feature: {"pii": "yes"} if feature.field.name in names else {})
    monkeypatch.setattr(Feature, "tags", tags)
    visitor = visit(shop)
    page = visitor.page("/feature/stats/city")
    assert "tags hide its values" in page
    assert "city 1" not in page and "<script>alert" not in page
    assert "60 stored entities" not in page, "no histogram"
    found = visitor.page("/lookup?of=view:stats&user_id=6")
    assert "hidden by its tags" in found and "city 2" not in found
    assert "mean_basket" in found
    assert "Tiles of price_mean_1h" not in visitor.page("/lookup?of=view:activity&user_id=1")
