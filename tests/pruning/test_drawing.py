from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feature_store.pruning.budget import Choice
from feature_store.pruning.cost import Cost
from feature_store.pruning.drawing import draw_curve
from feature_store.pruning.plan import PrunePlan

PLAN = PrunePlan(
    service="ranking",
    bound_to="x",
    made_at=datetime(2026, 1, 1, tzinfo=UTC),
    columns=("a", "b", "c"),
    kept=("a", "b"),
    reasons={},
    method="m",
    model="M",
    importance=(1.0, 0.9),
    request={"user": 1},
    before=Cost(3000, 3, 3),
    after=Cost(1200, 2, 2),
    budget={},
    proven=True,
    candidates=(("a", "b"),),
)
CURVE = [
    Choice(("a",), 0.6, Cost(500, 1, 1), True),
    Choice(("a", "b"), 0.9, Cost(1200, 2, 2), True),
    Choice(("a", "b", "c"), 1.0, Cost(3000, 3, 3), True),
]
FOUND: dict[str, Any] = {"metric": "auc", "margin": 0.002, "confidence": 0.95, "later_rows": 1234}
FOUND["candidates"] = [{"features": 2, "difference": -0.0004, "lower_bound": -0.0011, "passes": True}]


def test_the_curve_is_drawn_as_pixels_and_as_shapes(tmp_path: Path) -> None:
    paths = [tmp_path / "output" / "curve.svg", tmp_path / "output" / "curve.png"]
    draw_curve(CURVE, PLAN, paths)
    assert paths[0].read_text().lstrip().startswith("<?xml") and paths[1].read_bytes().startswith(b"\x89PNG")
    without = paths[0].read_bytes()
    draw_curve(CURVE, PLAN, paths[:1])
    assert paths[0].read_bytes() == without, "the same each time, but for what is drawn"


def test_a_verified_plan_is_drawn_with_what_was_found(tmp_path: Path) -> None:
    draw_curve(CURVE, PLAN, [tmp_path / "plan.svg"])
    draw_curve(CURVE, replace(PLAN, verification=FOUND), [tmp_path / "verified.svg"])
    assert (tmp_path / "verified.svg").stat().st_size > (tmp_path / "plan.svg").stat().st_size
