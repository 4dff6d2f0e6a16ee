"""docs/aggregations.md is generated from the functions."""

from __future__ import annotations

from pathlib import Path

from feature_store.functions._reference import reference


def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "aggregations.md"
    assert page.read_text() == reference(), "python -m feature_store.functions._reference > docs/aggregations.md"
