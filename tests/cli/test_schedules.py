from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_due_is_run_and_what_is_missed_is_listed(run: Any, project: Path) -> None:
    features = project / "features.py"
    text = features.read_text()
    features.write_text(text.replace("ttl=timedelta(days=30),", 'ttl=timedelta(days=30), schedule="0 3 * * *",'))
    run("apply")
    code, out, _ = run("missed", "--json")
    (found,) = json.loads(out)
    assert (code, found["view"], found["schedule"], found["is_due"]) == (3, "product_stats", "0 3 * * *", True)
    assert found["missed"] == [[None, found["due"]]]
    code, out, _ = run("missed")
    assert (code, "the beginning" in out, "feature-store run-due" in out) == (3, True, True)
    assert run("missed", "--grace", "52w")[0] == 0
    code, out, _ = run("run-due", "--json")
    (done,) = json.loads(out)
    assert (code, done["view"], done["due"], done["error"]) == (0, "product_stats", found["due"], None)
    assert done["summary"]["intervals"] == [[None, found["due"]]]
    assert run("run-due")[:2] == (0, "Nothing is due.\n")
    assert run("missed")[:2] == (0, "No event times are missed.\n")
    assert json.loads(run("describe", "product_stats", "--json")[1])["schedule"] == "0 3 * * *"


def test_a_job_that_fails_ends_with_1_and_says_why(run: Any, project: Path) -> None:
    features = project / "features.py"
    text = features.read_text()
    features.write_text(text.replace("ttl=timedelta(days=30),", 'ttl=timedelta(days=30), schedule="0 3 * * *",'))
    run("apply")
    for file in (project / "data").rglob("product*.parquet"):
        file.write_bytes(b"torn")
    code, _, error = run("run-due")
    assert code == 1
    assert "error: product_stats" in error
    assert "failed" in run("missed")[1]
