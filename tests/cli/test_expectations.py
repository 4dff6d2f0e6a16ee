from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def test_a_breach_blocks_or_is_told(run: Any, project: Path) -> None:
    features = project / "features.py"
    text = features.read_text().replace('Field("price", Float32)', 'Field("price", Float32, max=0.01)')
    features.write_text(text)
    run("apply")
    code, out, error = run("materialize", "--view", "product_stats")
    assert (code, out) == (1, "")
    assert "product_stats.price: expected at most 0.01, got another value in 3 of 3 rows, such as" in error
    assert json.loads(run("describe", "product_stats:price", "--json")[1])["expected"] == "at most 0.01"
    features.write_text(text.replace("ttl=timedelta(days=30),", 'ttl=timedelta(days=30), on_breach="warn",'))
    run("apply")
    code, out, error = run("materialize", "--view", "product_stats")
    assert code == 0, error
    assert "product_stats.price: expected at most 0.01" in out
    assert "the rows are written" in out
    summary = json.loads(run("materialize", "--view", "product_stats", "--start", "2020-01-01", "--json")[1])[0]
    assert [breach["field"] for breach in summary["breaches"]] == ["price"]


def test_a_schema_is_inferred_and_what_is_inferred_is_kept(run: Any, project: Path) -> None:
    code, out, error = run("schema", "infer", "product_stats")
    assert code == 0, error
    price, clicks = out.splitlines()
    assert price.startswith('Field("price", Float32, min=')
    assert clicks.startswith('Field("clicks_7d", Int32, min=')
    features = project / "features.py"
    text = features.read_text()
    text = text.replace('[Field("price", Float32), Field("clicks_7d", Int32, default=0)]', f"[{price}\n{clicks}]")
    features.write_text(text)
    assert run("apply")[0] == 0
    assert run("materialize", "--view", "product_stats")[0] == 0, "data are as was inferred of them"
    found = json.loads(run("schema", "infer", "data/users.parquet", "--json")[1])
    assert {one["column"]: one["field"]["dtype"] for one in found}["user_id"] == "Int64"
    for arguments in (["nothing"], ["basket"], ["features.py"]):
        code, out, error = run("schema", "infer", *arguments)
        assert (code, out) == (1, "")
        assert error.startswith("error: ")
