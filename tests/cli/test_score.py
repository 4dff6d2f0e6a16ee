from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def _points(run: Any) -> dict[str, float]:
    code, out, error = run("score", "--json")
    assert code == 0, error
    return {item["id"]: item["points"] for item in json.loads(out)["items"]}


def test_the_score_grows_with_what_is_done(run: Any, project: Path) -> None:
    run("apply")
    run("materialize")
    before = _points(run)
    assert (before["Data 2"], before["Data 5"], before["Data 7"], before["Monitoring 1"]) == (0, 0, 0, 0)
    features = project / "features.py"
    text = features.read_text()
    text = text.replace(
        "ttl=timedelta(days=30),", "ttl=timedelta(days=30), freshness=timedelta(days=9999), owner='us',"
    )
    text = text.replace(
        "ttl=timedelta(days=90),", "ttl=timedelta(days=90), freshness=timedelta(days=9999), owner='us',"
    )
    text = text.replace("dtype=Int64)", 'dtype=Int64, tags={"pii": "yes"})')
    text = text.replace("user_stats, basket])", "user_stats, basket], owner='us', tags={'model': 'ranker'})")
    features.write_text(text)
    (project / "test_features.py").write_text("from features import basket\ndef test_basket(): basket({})\n")
    names = ["price", "clicks_7d", "orders_30d", "mean_basket", "share_of_basket"]
    (project / "importances.csv").write_text("feature,importance\n" + "".join(f"{name},0.1\n" for name in names))
    run("apply")
    assert run("prune", "import", "importances.csv", "--service", "ranking")[0] == 0
    assert run("skew", "--service", "ranking", "basket_price=40")[0] in (0, 1)
    after = _points(run)
    assert {id: after[id] for id in before if after[id] != before[id]} == {
        "Data 2": 1.0,
        "Data 5": 1.0,
        "Data 7": 1.0,
        "Monitoring 1": 1.0,
        "Monitoring 3": 1.0,
        "Monitoring 4": 1.0,
    }
    _, out, _ = run("score")
    assert "Monitoring: 3.5 of 4" in out
    assert "→" in out


def test_a_store_that_cannot_be_asked_is_no_reason_not_to_score(run: Any, project: Path) -> None:
    run("apply")
    (project / "feature_store.yaml").write_text("project: shop\nonline_store:\n  url: redis://localhost:1\n")
    assert _points(run)["Monitoring 4"] == 0


def test_nothing_applied_is_an_error(run: Any) -> None:
    code, out, error = run("score")
    assert (code, out) == (1, "")
    assert "feature-store apply" in error
