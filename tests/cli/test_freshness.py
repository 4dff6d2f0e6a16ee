from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def test_a_view_that_is_older_than_declared_is_told_and_ends_with_3(run: Any, project: Path) -> None:
    run("apply")
    code, out, _ = run("freshness")
    assert (code, out.count("empty")) == (0, 2), "nothing is declared, nothing is stored"
    features = project / "features.py"
    text = features.read_text()
    features.write_text(
        text.replace("ttl=timedelta(days=30),", "ttl=timedelta(days=30), freshness=timedelta(days=9999),")
    )
    run("apply")
    code, out, _ = run("freshness")
    assert code == 3, "a view of which nothing is stored is not fresh"
    assert "product_stats: run `feature-store materialize --view product_stats`" in out
    run("materialize")
    code, out, _ = run("freshness")
    assert code == 0
    assert "fresh" in out
    features.write_text(
        text.replace("ttl=timedelta(days=30),", "ttl=timedelta(days=30), freshness=timedelta(seconds=1),")
    )
    run("apply")
    code, out, _ = run("freshness", "--json")
    found = json.loads(out)
    assert (code, found["breached"]) == (3, ["product_stats"])
    assert {view["view"]: view["state"] for view in found["views"]} == {
        "product_stats": "stale",
        "user_stats": "undeclared",
    }
    assert run("freshness", "--service", "rankin")[0] == 1
    assert "feature-store freshness" not in run("describe", "product_stats")[1]
    assert json.loads(run("describe", "product_stats", "--json")[1])["freshness"] == "1s"


def test_a_view_whose_values_are_all_older_than_its_ttl_is_told_and_ends_with_3(run: Any, project: Path) -> None:
    features = project / "features.py"
    features.write_text(features.read_text().replace("ttl=timedelta(days=30),", "ttl=timedelta(seconds=1),"))
    run("apply")
    run("materialize")
    code, out, _ = run("freshness", "--json")
    found = json.loads(out)
    states = {view["view"]: (view["state"], view["ttl_s"]) for view in found["views"]}
    assert (code, found["breached"], states["product_stats"]) == (3, ["product_stats"], ("expired", 1.0))
    code, out, _ = run("freshness")
    assert (code, "expired" in out, "a longer ttl serves older values" in out) == (3, True, True)
    code, out, _ = run("doctor")
    assert code == 3
    assert "product_stats" in out
    assert ", ttl 1s" in out
