"""Changes of what is served, from the command line: questions, JSON for programs, and the way back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from feature_store.cli import output

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def narrowed(run: Any, project: Path) -> Any:
    """The project, applied. Afterwards, a view was removed from its files."""
    run("apply")
    run("materialize")
    features = project / "features.py"
    text = features.read_text()
    start, end = text.index("user_stats = FeatureView("), text.index("\n\n@on_demand")
    text = text[:start] + text[end:]
    features.write_text(
        text.replace("features=[product_stats, user_stats, basket]", "features=[product_stats, basket]")
    )
    return run


def test_destructive_changes_need_yes_without_a_terminal(narrowed: Any) -> None:
    code, _, error = narrowed("apply")
    assert code == 1
    assert "- delete FeatureView user_stats" in error
    assert "- user_stats:orders_30d (column 3)" in error
    assert "--yes" in error
    assert narrowed("get", "ranking", "user_id=1", "product_id=1", "basket_price=4", "--json")[0] == 0
    assert json.loads(narrowed("list", "versions", "--json")[1])["versions"][0]["version"] == 1
    code, out, _ = narrowed("apply", "--yes")
    assert code == 0
    assert "destructive" in out


@pytest.mark.parametrize("answer", [True, False])
def test_destructive_changes_are_asked_about_on_a_terminal(
    narrowed: Any, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    asked: list[str] = []

    def confirm(question: str, *, yes: bool) -> None:
        asked.append(question)
        if not answer:
            raise KeyboardInterrupt

    monkeypatch.setattr("feature_store.cli.project.confirm", confirm)
    assert output.confirm is not confirm
    if answer:
        assert narrowed("apply")[0] == 0
        assert "No changes" in narrowed("plan")[1]
    else:
        narrowed("apply")
        assert "destructive" in narrowed("plan")[1]
    assert asked == ["Carry out 2 destructive changes?"]


def test_safe_changes_are_not_asked_about(run: Any, project: Path) -> None:
    run("apply")
    features = project / "features.py"
    features.write_text(features.read_text().replace("days=30", "days=31"))
    assert run("apply")[0] == 0


def test_a_program_is_told_of_changes_by_the_exit_code(run: Any, project: Path) -> None:
    assert run("plan")[0] == 0
    assert run("plan", "--exit-code")[0] == 3
    assert json.loads(run("plan", "--json")[1])["unfinished_version"] is None
    run("apply")
    assert run("plan", "--exit-code")[0] == 0


def test_a_plan_without_data_is_asked_for(run: Any, project: Path) -> None:
    features = project / "features.py"
    features.write_text(features.read_text().replace('Field("price", Float32)', 'Field("price", Timestamp)'))
    features.write_text(features.read_text().replace("    Int32,\n", "    Int32,\n    Timestamp,\n"))
    code, out, error = run("plan")
    assert code == 1
    assert "refused" in out
    assert "column price" in error
    assert run("plan", "--offline")[0] == 0


def test_a_rollback_asks_and_makes_a_new_version(narrowed: Any, project: Path) -> None:
    narrowed("apply", "--yes")
    files = (project / "features.py").read_text()
    assert narrowed("rollback", "1")[0] == 0, "what comes back takes nothing away"
    versions = json.loads(narrowed("list", "versions", "--json")[1])["versions"]
    assert [(one["version"], one["state"]) for one in versions] == [(3, "applied"), (2, "applied"), (1, "applied")]
    assert (project / "features.py").read_text() == files
    code, _, error = narrowed("rollback", "2")
    assert (code, "--yes" in error) == (1, True)
    assert json.loads(narrowed("rollback", "2", "--yes", "--json")[1])["version"] == 4
    assert narrowed("rollback", "9")[0] == 1
