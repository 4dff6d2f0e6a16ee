from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from pathlib import Path


def _json(answer: tuple[int, str, str]) -> Any:
    code, out, error = answer
    assert code == 0, error
    return json.loads(out)


def test_the_way_from_init_to_features(run: Any) -> None:
    assert _json(run("plan", "--json"))["rewritten_row_groups"] == []
    assert _json(run("apply", "--json", "--author", "ada"))["version"] == 1
    written = {summary["view"]: summary["written"] for summary in _json(run("materialize", "--json"))}
    assert written == {"product_stats": 3, "user_stats": 2}
    found = _json(run("get", "ranking", "user_id=1", "product_id=3,9", "basket_price=40", "--json"))
    assert found["features"]["share_of_basket"] == [0.875, None]
    assert found["status"]["price"] == ["PRESENT", "MISSING"]
    assert found["event_timestamps"]["price"][1] is None
    assert found["plan_version"] == 1


@pytest.mark.usefixtures("spark_engine")
def test_another_engine_is_chosen_by_an_option(run: Any) -> None:
    run("apply")
    code, out, _ = run("materialize", "--engine", "spark", "--json")
    assert code == 0
    assert {summary["view"]: summary["written"] for summary in json.loads(out)} == {"product_stats": 3, "user_stats": 2}


def test_people_are_shown_tables(run: Any) -> None:
    run("apply")
    code, out, bars = run("materialize")
    assert code == 0
    assert "product_stats" in out
    assert "rows/s" in bars
    _, out, _ = run("get", "ranking", "user_id=1", "product_id=3", "basket_price=40")
    assert "share_of_basket" in out
    assert "0.875" in out
    for command in (
        ["list"],
        ["describe", "ranking"],
        ["describe", "basket"],
        ["describe", "user"],
        ["list", "versions"],
    ):
        code, out, error = run(*command)
        assert code == 0, error
        assert out.strip()
        assert not error


ODD = """
from feature_store import *
thing = Entity("thing", join_key="thing_id")
odd = FeatureView("odd", entities=[thing], schema=[
    Field("ratio", Float64), Field("huge", Int64), Field("ratios", Array(Float32)), Field("note", String)])
wide = FeatureView("wide", entities=[thing], schema=[Field(f"a_feature_with_a_long_name_{i}", Int32) for i in range(40)])
both = FeatureService("both", features=[odd, wide])
"""


@pytest.fixture
def odd(run: Any, project: Path) -> Any:
    """A project of values that are hard to print."""
    (project / "features.py").write_text(ODD)
    run("apply")
    columns = {
        "thing_id": pa.array([2**53 + 1, 2**53 + 2]),
        "event_timestamp": pa.array([1_767_225_600_000_000] * 2, pa.timestamp("us", "UTC")),
        "ratio": pa.array([float("nan"), None]),
        "huge": pa.array([2**63 - 1, -(2**63)]),
        "ratios": pa.array([[float("inf"), 0.5], None], pa.list_(pa.float32())),
        "note": pa.array(["[bold]x[/]", None]),
    }
    pq.write_table(pa.table(columns), project / "odd.parquet")
    assert _json(run("push", "odd", "odd.parquet", "--json"))[0]["written"] == 2
    return run


def test_json_is_exact_and_tells_nan_from_null(odd: Any) -> None:
    asked = ("odd:ratio", "odd:huge", "odd:ratios", "odd:note", f"thing_id={2**53 + 1},{2**53 + 2},{2**53}")
    found = _json(odd("get", *asked, "--json"))
    assert found["features"] == {
        "ratio": ["nan", None, None],
        "huge": [2**63 - 1, -(2**63), None],
        "ratios": [["inf", 0.5], None, None],
        "note": ["[bold]x[/]", None, None],
    }
    assert found["status"]["ratio"] == ["PRESENT", "NULL", "MISSING"]


def test_many_features_are_shown_downwards(odd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = odd("get", "both", f"thing_id={2**53 + 1},{2**53}")
    assert code == 0
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert lines["thing_id"] == [str(2**53 + 1), str(2**53)]
    assert lines["huge"] == [str(2**63 - 1), "–", "MISSING"]
    assert lines["note"] == ["[bold]x[/]", "–", "MISSING"]
    assert lines["a_feature_with_a_long_name_39"] == ["–", "MISSING"] * 2
    code, out, _ = odd("get", "both", f"thing_id={','.join(str(2**53 + i) for i in range(30))}")
    shown = [key for line in out.splitlines() if line.startswith(" thing_id") for key in line.split()[1:]]
    assert shown == [str(2**53 + i) for i in range(30)], "in blocks, each entity once"
    assert max(map(len, out.splitlines())) <= 200
    assert odd("get", "both", "thing_id=[]")[0] == 0


def test_what_is_listed_and_described(run: Any) -> None:
    run("apply", "--author", "ada")
    listed = _json(run("list", "--json"))
    assert {kind: [row["name"] for row in rows] for kind, rows in listed.items()} == {
        "entities": ["product", "user"],
        "sources": ["data/products.parquet", "data/users.parquet", "request"],
        "views": ["product_stats", "user_stats"],
        "streams": [],
        "on-demand": ["basket"],
        "services": ["ranking"],
    }
    assert _json(run("list", "versions", "--json"))["versions"][0]["author"] == "ada"
    described = _json(run("describe", "product_stats", "--json"))
    assert described["read_by"] == ["basket", "ranking"]
    clicks = {"name": "clicks_7d", "dtype": "Int32", "default": 0, "expected": None, "description": None, "tags": {}}
    assert described["fields"][1] == clicks
    assert "product_stats:price" in _json(run("describe", "basket", "--json"))["inputs"]


def test_a_second_apply_changes_nothing(run: Any) -> None:
    run("apply")
    assert _json(run("apply", "--json"))["version"] == 1
    assert "No changes" in run("plan")[1]


def test_a_refused_change_is_shown_and_fails(run: Any, project: Path) -> None:
    run("apply")
    features = project / "features.py"
    text = features.read_text()
    features.write_text(text.replace('join_key="user_id", dtype=Int64', 'join_key="user_id", dtype=Int32'))
    assert features.read_text() != text
    code, out, error = run("plan")
    assert code == 1
    assert "refused" in out
    assert "hint:" in error
    assert run("apply")[0] == 1
    assert _json(run("list", "versions", "--json"))["versions"][0]["version"] == 1


def test_push_delete_and_teardown(run: Any, project: Path) -> None:
    run("apply")
    (project / "users.csv").write_text(
        "user_id,event_timestamp,orders_30d,mean_basket\n1,2026-01-01,5,1.5\n2,2026-01-01,x,1\n"
    )
    summary = _json(run("push", "user_stats", "users.csv", "--json"))[0]
    assert (summary["written"], summary["quarantined"]) == (1, 1)
    assert pq.read_table(summary["quarantine_file"])["user_id"].to_pylist() == ["2"]
    get = ("get", "user_stats:orders_30d", "user_id=1", "--now", "2026-01-02T00:00:00Z", "--json")
    assert _json(run(*get))["features"] == {"orders_30d": [5]}

    code, _, error = run("delete", "user", "user_id=1")
    assert code == 1
    assert "--yes" in error
    assert _json(run(*get))["status"] == {"orders_30d": ["PRESENT"]}
    assert _json(run("delete", "user", "user_id=1", "--yes", "--json"))["deleted_keys"] == 1
    assert _json(run(*get))["status"] == {"orders_30d": ["MISSING"]}
    assert _json(run("teardown", "--yes", "--json"))["deleted_keys"] > 0
    assert run("list")[0] == 1


def test_materialize_takes_an_interval_and_views(run: Any, project: Path) -> None:
    run("apply")
    times = pa.array([1_767_225_600_000_000, 1_767_312_000_000_000], pa.timestamp("us", "UTC"))
    columns = {"user_id": [1, 1], "event_timestamp": times, "orders_30d": [1, 2], "mean_basket": [1.0, 2.0]}
    pq.write_table(pa.table(columns), project / "data" / "users.parquet")
    interval = ("--start", "2026-01-01", "--end", "2026-01-02")  # the second row is at the end, which is excluded
    (summary,) = _json(run("materialize", "--view", "user_stats", *interval, "--json"))
    assert (summary["source_rows"], summary["written"]) == (1, 1)
    assert summary["intervals"] == [["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]]
    (summary,) = _json(run("materialize", "--view", "user_stats", "--end", "2026-01-03", "--lookback", "1d", "--json"))
    assert summary["written"] == 1
    assert summary["intervals"][0][0] is None
    _, out, _ = run("materialize", "--view", "user_stats", *interval)
    assert "2026-01-01 00:00:00\t2026-01-02 00:00:00" in out


def test_doctor_says_what_is_wrong(run: Any, project: Path) -> None:
    code, out, _ = run("doctor", "--json")
    assert code == 3
    found = {finding["check"]: finding["state"] for finding in json.loads(out)}
    assert found["registry"] == "warning"
    assert found["serving plan"] == "failed"
    run("apply")
    (project / "data" / "users.parquet").unlink()
    code, out, _ = run("doctor")
    assert code == 3
    assert "✗ sources" in out
    assert "nothing to serve" in out


def test_doctor_says_once_that_redis_is_away(run: Any, project: Path) -> None:
    (project / "feature_store.yaml").write_text("project: shop\nonline_store:\n  url: redis://localhost:1\n")
    code, out, _ = run("doctor", "--json")
    assert code == 3
    assert [finding["check"] for finding in json.loads(out) if finding["state"] == "failed"] == ["online store"]


def test_doctor_is_content_when_all_is_well(run: Any) -> None:
    run("apply")
    run("materialize")
    code, out, _ = run("doctor", "--json")
    assert code == 0
    # The tests' server does not persist its data.
    assert {finding["check"] for finding in json.loads(out) if finding["state"] != "ok"} == {"persistence"}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["get", "rankin", "user_id=1"], 1, "feature service"),
        (["get", "ranking", "user_id=x"], 1, "Int64"),
        (["get", "ranking", "user=1"], 1, "user_id=…"),
        (["get", "user_id=1"], 1, "a service"),
        (["get", "user_stats", "user_id=1"], 1, "user_stats:orders_30d"),
        (["get", "ranking", "user_id=1_0"], 1, "Int64"),
        (["materialize", "--start", "2026-01-02", "--end", "2026-01-01"], 1, "got 2026-01-02 00:00:00"),
        (["describe", "nothing"], 1, "a definition, a source, view:feature"),
        (["push", "user_stats", "nowhere.csv"], 1, "nowhere.csv"),
        (["push", "user_stats", "features.py"], 1, ".parquet"),
        (["materialize", "--view", "nothing"], 1, "feature view"),
        (["materialize", "--engine", "abacus"], 1, "local or spark"),
        (["materialize", "--start", "soon"], 2, "2026-01-31"),
        (["materialize", "--lookback", "5x"], 2, "36h"),
        (["delete", "userr", "user_id=1", "-y"], 1, "userr"),
        (["apply", "-C", "nowhere"], 1, "feature_store.yaml"),
        (["nothing"], 2, "nothing"),
        (["server", "status"], 1, "online_store.url"),
    ],
)
def test_mistakes_get_a_line_and_an_exit_code(run: Any, arguments: list[str], code: int, says: str) -> None:
    run("apply")
    ended, out, error = run(*arguments)
    assert ended == code
    assert not out
    assert says in error
    assert "Traceback" not in error
    assert code == 2 or error.startswith("error: "), "no bars before it"


def test_init_overwrites_nothing(run: Any, project: Path) -> None:
    before = (project / "features.py").read_text()
    code, _, error = run("init", ".")
    assert code == 1
    assert "the file already exists" in error
    assert (project / "features.py").read_text() == before


def test_a_secret_is_not_shown(run: Any, project: Path) -> None:
    (project / "feature_store.yaml").write_text("project: shop\nonline_store:\n  url: redis://:hunter2@localhost:1\n")
    for command in (["doctor"], ["apply"], ["server", "status"], ["get", "ranking", "user_id=1"]):
        code, out, error = run(*command)
        assert code == (3 if command == ["doctor"] else 1)
        assert "hunter2" not in out + error


def test_the_embedded_server_stays_until_it_is_stopped(run: Any, project: Path) -> None:
    (project / "feature_store.yaml").write_text("project: shop\n")
    assert _json(run("server", "status", "--json"))["running"] is False
    try:
        started = _json(run("server", "start", "--json"))
        assert started["running"]
        run("apply")
        again = _json(run("server", "status", "--json"))
        assert (again["pid"], again["keys"]) == (started["pid"], 2)
    finally:
        stopped = _json(run("server", "stop", "--json"))
    assert stopped["running"] is False
    assert run("get", "ranking", "user_id=1", "product_id=1", "basket_price=1")[0] == 0  # started again, data kept


def test_skew_compares_what_is_served_with_the_files(run: Any, project: Path) -> None:
    run("apply")
    run("materialize")
    report = _json(run("skew", "--service", "ranking", "basket_price=40", "--json", "--sample", "20"))
    assert report["rows"] == 20
    assert {feature["differing"] for feature in report["features"]} == {0}
    stats = pq.read_table(project / "data" / "products.parquet")
    one = stats.slice(2, 1).to_pylist()[0]  # the only row of its product
    pushed = pa.Table.from_pylist([one | {"price": one["price"] + 2.5}], stats.schema)
    pq.write_table(pushed, project / "pushed.parquet")
    assert run("push", "product_stats", "pushed.parquet")[0] == 0
    asked = f"product_id={one['product_id']}"
    code, out, _ = run("skew", "--service", "ranking", asked, "user_id=1", "basket_price=40", "--json")
    assert code == 3
    found = {feature["feature"]: feature for feature in json.loads(out)["features"]}
    assert found["price"]["worst"] == pytest.approx(2.5)
    assert found["price"]["example"]["product_id"] == one["product_id"]
    code, out, _ = run("skew", "--service", "ranking", asked, "user_id=1", "basket_price=40")
    assert code == 3
    assert "are equal" in out


def test_skew_of_an_empty_store_says_so(run: Any) -> None:
    run("apply")
    code, _, error = run("skew", "--service", "ranking", "basket_price=40")
    assert code == 1
    assert "entities in the online store" in error
