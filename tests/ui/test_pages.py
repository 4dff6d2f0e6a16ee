from __future__ import annotations

import re
import time
from html import unescape
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

import pytest
from hypothesis import example, given, settings, strategies as st

from feature_store.ui.catalogue import PER_PAGE, CatalogueQuery, catalogue, entries
from feature_store.ui.snapshot import Snapshot
from tests.ui.ui_worlds import HOSTILE, Tags, Visitor, make_project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from feature_store import FeatureStore

PAGES = [
    "/",
    "/catalogue",
    "/catalogue?" + urlencode({"q": HOSTILE}),
    "/catalogue?" + urlencode({"owner": HOSTILE}),
    "/catalogue?kind=features&q=basket",
    "/feature/stats/orders",
    "/feature/stats/mean_basket",
    "/feature/stats/city",
    "/feature/stats/is_new",
    "/feature/stats/vector",
    "/feature/stats/since",
    "/feature/about/price",
    "/feature/pushed/visits",
    "/feature/activity/price_last3_1h",
    "/feature/affordability/share",
    "/view/stats",
    "/view/about",
    "/view/activity",
    "/view/affordability",
    "/service/ranking",
    "/entity/user",
    "/source?name=clicks",
    "/source?name=basket",
    "/lineage",
    "/lineage?kind=views&name=about",
    "/lineage?kind=features&name=about:price",
    "/lineage?kind=features&name=affordability:share",
    "/lineage?kind=sources&name=clicks.parquet",
    "/lineage?kind=models&name=ranker",
    "/prune",
    "/prune?service=ranking",
    "/prune?service=ranking&n_user=1&n_item=200&point=0",
    "/prune?service=cards",
    "/lookup",
    "/lookup?of=service:ranking",
    "/lookup?of=service:ranking&user_id=1&item_id=1&budget=3.5",
    "/lookup?of=view:activity&user_id=1",
    "/lookup?of=view:pushed&user_id=1&" + urlencode({"shop_id": HOSTILE}),
]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_whole_and_harmless(visitor: Visitor, path: str) -> None:
    tags = Tags(visitor.page(path))
    names = [tag for tag, _ in tags.found]
    assert names.count("h1") == 1
    assert names.count("main") == 1
    assert "img" not in names
    assert not any(name.startswith("on") or name == "style" for _, attributes in tags.found for name in attributes)
    for tag, attributes in tags.found:
        if tag == "script":
            assert (attributes["src"] or "").startswith("/static/")
        for name in ("href", "src", "action"):
            if name in attributes:
                target = urlsplit(attributes[name] or "")
                assert not target.scheme
                assert not target.netloc
        if tag in ("input", "select") and attributes.get("type") != "hidden":
            labelled = any(one == "label" and about.get("for") == attributes.get("id") for one, about in tags.found)
            assert labelled or "aria-label" in attributes
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert names.count("table") == names.count("caption")
    identities = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(identities) == len(set(identities))


def test_every_link_leads_to_a_page(visitor: Visitor) -> None:
    waiting, seen = ["/", "/prune?service=ranking"], set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        found = visitor.get(path)
        assert found.status_code == 200, path
        if found.headers["content-type"].startswith("text/html"):
            waiting += [
                about["href"] or ""
                for tag, about in Tags(found.text).found
                if tag == "a" and about["href"] != "#content"
            ]
    kinds = {urlsplit(path).path.split("/")[1] for path in seen}
    assert kinds >= {"feature", "view", "service", "entity", "source", "lineage", "prune", "lookup", "catalogue"}
    assert len(seen) > 60


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nowhere", 404),
        ("/feature/stats/nothing", 404),
        (f"/view/{'x' * 10_000}", 404),
        ("/view/%3Cscript%3E", 404),
        ("/source?name=../../etc/passwd", 404),
        ("/static/../app.py", 404),
        ("/static/%2e%2e/app.py", 404),
        ("/static/", 404),
        ("/entity/%E2%80%AE", 404),
        ("/service/nothing", 404),
        ("/lineage?kind=views&name=nothing", 404),
        ("/lineage?kind=nothing&name=stats", 404),
        ("/prune?service=nothing", 404),
        ("/prune?service=ranking&n_user=0", 400),
        ("/prune?service=ranking&n_user=²", 400),
        ("/prune?service=ranking&point=x", 400),
        ("/catalogue?page=0", 400),
        ("/catalogue?page=-1", 400),
        ("/catalogue?page=99999999999999999999", 400),
        ("/lookup?of=view:nothing", 404),
        ("/lookup?of=view:stats&user_id=x", 400),
        (f"/lookup?of=view:stats&user_id={2**63}", 400),
        (f"/lookup?of=view:stats&user_id={'9' * 11_000}", 400),
    ],
)
def test_what_is_not_there_is_told_and_not_echoed_at_length(visitor: Visitor, path: str, status: int) -> None:
    for _ in range(100):
        found = visitor.get(path)
        if 'http-equiv="refresh"' not in found.text:
            break
        time.sleep(0.05)
    assert found.status_code == status
    Tags(found.text)
    assert "<script>" not in found.text
    assert len(found.text) < 20_000


def test_the_feature_page_tells_what_is_served(visitor: Visitor) -> None:
    text = visitor.page("/feature/stats/mean_basket")
    assert "60 stored entities sampled" in text
    assert "present 80.0%, null 20.0%, expired 0.0%, no row 0.0%" in text
    assert "2 of 9" in text, "its rank by importance"
    assert "price_mean" not in text
    assert "client.get_online_features(" in text
    assert '["stats:mean_basket"]' in unescape(text)
    assert "added" in text


def test_an_expired_value_is_shown_as_stored_and_counted_as_expired(visitor: Visitor) -> None:
    text = visitor.page("/feature/about/price")
    assert "no row" in text
    assert "required" in visitor.page("/prune?service=ranking"), "a tag pins it"


def test_the_lookup_tells_why(visitor: Visitor) -> None:
    text = visitor.page("/lookup?of=service:ranking&user_id=1&item_id=2&budget=3.5")
    assert "the newest row holds null, so null (NaN in a matrix) is served" in text
    assert "computed from the events in its window" in text
    assert re.search(r"price_mean_1h: \d tiles? with events in the last 1h", text)
    missing = visitor.page("/lookup?of=view:stats&user_id=12345")
    assert "nothing is stored for this entity, so the default, 0, is served" in missing
    assert "No row under" in missing


def test_the_lineage_of_a_view_shows_its_features(visitor: Visitor) -> None:
    text = visitor.page("/lineage?kind=views&name=stats")
    assert "<title>feature stats:orders</title>" in text
    assert 'aria-current="true"><title>view stats</title>' in text
    assert "<title>feature stats:orders</title>" not in visitor.page("/lineage")
    up = visitor.page("/lineage?kind=views&name=stats&direction=up")
    assert "<title>source stats.parquet</title>" in up
    assert "<title>service ranking</title>" not in up
    down = visitor.page("/lineage?kind=views&name=stats&direction=down")
    assert "<title>source stats.parquet</title>" not in down
    assert "<title>service ranking</title>" in down


def test_a_new_version_is_seen(visit: Callable[..., Visitor], tmp_path: Path, redis_url: str) -> None:
    with make_project(tmp_path / "shop", redis_url) as store:
        visitor = visit(store)
        assert "orders" in visitor.page("/view/stats")
        file = tmp_path / "shop" / "features.py"
        file.write_text(file.read_text().replace("Orders so far.", "All orders, so far."))
        store.reload()
        assert store.apply().version.version == 2
        for _ in range(100):
            if "All orders, so far." in visitor.page("/feature/stats/orders"):
                break
            time.sleep(0.05)
        text = visitor.page("/feature/stats/orders")
        assert "description" in text.split("Versions that changed it")[1]
        assert "added" in text.split("Versions that changed it")[1]
        assert "Version 2, applied" in text


def test_a_project_that_is_begun_anew_is_seen(visit: Callable[..., Visitor], tmp_path: Path, redis_url: str) -> None:
    with make_project(tmp_path / "shop", redis_url) as store:
        visitor = visit(store)
        assert "added" in visitor.page("/feature/stats/orders")
        store.teardown()
        file = tmp_path / "shop" / "features.py"
        file.write_text(file.read_text().replace("Orders so far.", "Another project."))
        store.reload()
        assert store.apply().version.version == 1
        for _ in range(100):
            if "Another project." in visitor.page("/feature/stats/orders"):
                break
            time.sleep(0.05)
        text = visitor.page("/feature/stats/orders")
        assert "Another project." in text
        assert text.split("Versions that changed it")[1].count("added") == 1
        assert "No rows of stats are stored yet." in text


def test_broken_files_hide_nothing_that_is_stored(
    visit: Callable[..., Visitor], tmp_path: Path, redis_url: str
) -> None:
    from feature_store import FeatureStore

    make_project(tmp_path / "shop", redis_url).close()
    (tmp_path / "shop" / "features.py").write_text("def (")
    with FeatureStore(tmp_path / "shop") as store:
        visitor = visit(store)
        assert "60 stored entities sampled" in visitor.page("/feature/stats/orders")
        assert "PRESENT" in visitor.page("/lookup?of=view:stats&user_id=1")
        assert "features.py" in visitor.page("/").split("Needs attention")[1].split("Freshness")[0]
        found = visitor.get("/lookup?of=view:affordability&user_id=1&item_id=1&budget=1")
        assert found.status_code == 503, "its function is not there"


def test_a_changed_function_is_used_once_it_is_applied(
    visit: Callable[..., Visitor], tmp_path: Path, redis_url: str
) -> None:
    asked = "/lookup?of=view:affordability&user_id=1&item_id=1&budget=2"
    with make_project(tmp_path / "shop", redis_url) as store:
        visitor = visit(store)
        assert ">4.75<" in visitor.page(asked)
        file = tmp_path / "shop" / "features.py"
        file.write_text(file.read_text().replace('inputs["price"] /', '2 * inputs["price"] /'))
        store.reload()
        store.apply()
        for _ in range(100):
            if visitor.get(asked).status_code == 200 and ">9.5<" in visitor.page(asked):
                return
            time.sleep(0.05)
        raise AssertionError(visitor.get(asked).text)


def test_without_an_apply_the_pages_say_what_to_do(
    visit: Callable[..., Visitor], tmp_path: Path, redis_url: str
) -> None:
    from feature_store import FeatureStore

    (tmp_path / "feature_store.yaml").write_text(f"project: empty\nonline_store:\n  url: {redis_url}\n")
    (tmp_path / "features.py").write_text("from feature_store import *\nuser = Entity('user')\n")
    with FeatureStore(tmp_path) as store:
        visitor = visit(store)
        found = visitor.get("/catalogue")
        assert found.status_code == 404
        assert "feature-store apply" in found.text
        store.apply()
        time.sleep(1.1)
        assert visitor.get("/catalogue").status_code == 200


def test_without_the_online_store_the_catalogue_is_there(
    visit: Callable[..., Visitor], tmp_path: Path, redis_url: str
) -> None:
    from feature_store import FeatureStore

    make_project(tmp_path / "shop", redis_url).close()
    config = tmp_path / "shop" / "feature_store.yaml"
    config.write_text("project: shop\nonline_store:\n  url: redis://:hunter2@127.0.0.1:1/0?password=hunter3\n")
    with FeatureStore(tmp_path / "shop") as store:
        visitor = visit(store)
        for path in (
            "/catalogue",
            "/feature/stats/orders",
            "/view/stats",
            "/service/ranking",
            "/prune?service=ranking",
            "/lineage",
        ):
            text = visitor.page(path)
            assert "hunter" not in text
        assert "Redis at" in visitor.page("/feature/stats/orders")
        found = visitor.get("/lookup?of=view:stats&user_id=1")
        assert found.status_code == 503
        assert "hunter" not in found.text


def test_no_secret_is_shown(visit: Callable[..., Visitor], tmp_path: Path, redis_url: str) -> None:
    from feature_store import FeatureStore

    make_project(tmp_path / "shop", redis_url).close()
    config = tmp_path / "shop" / "feature_store.yaml"
    text = config.read_text() + "kafka: {bootstrap.servers: 'h:1', sasl.password: hunter2, ssl.key.pem: hunter3}\n"
    config.write_text(text + "spark: {spark.hadoop.fs.s3a.secret.key: hunter4}\n")
    with FeatureStore(tmp_path / "shop") as store:
        page = visit(store).get("/").text
    assert "sasl.password" in page
    assert "***" in page
    assert "hunter" not in page


def test_what_a_plan_drops_is_told(visit: Callable[..., Visitor], tmp_path: Path, redis_url: str) -> None:
    from feature_store.project.pruner import Pruner
    from feature_store.pruning.budget import Budget

    with make_project(tmp_path / "shop", redis_url) as store:
        pruner = Pruner(store)
        plan = pruner.plan("ranking", Budget(keep=0.5), {"user": 1, "item": 10})
        pruner.apply(plan, "drop", unverified=True)
        visitor = visit(store)
        assert plan.dropped
        for path in PAGES:
            if not path.startswith("/lookup"):
                assert visitor.page(path)
        dropped = visitor.page("/view/activity")
        assert "activity" in dropped
        assert "A prune plan drops this feature, so it is not stored." in visitor.page(
            "/feature/activity/price_mean_1d"
        )
        for name in plan.dropped:
            view = next(view for view, field in _FIELDS if field == name)
            text = visitor.page(f"/feature/{view}/{name}")
            assert f"dropped by {plan.id}" in text
        assert f">{plan.id}</code>" in visitor.page("/prune?service=ranking")
        text = visitor.page("/lookup?of=service:ranking&user_id=1&item_id=1&budget=3.5")
        assert "PRESENT" in text
        for view in ("stats", "about", "activity", "affordability"):
            found = visitor.get(f"/lookup?of=view:{view}&user_id=1&item_id=1&budget=1.0")
            assert found.status_code in (200, 400), found.text
            assert (found.status_code == 400) == ("prune plans drop all of its features" in found.text)


_FIELDS = [
    ("stats", "orders"),
    ("stats", "mean_basket"),
    ("stats", "is_new"),
    ("about", "price"),
    ("activity", "price_mean_1h"),
    ("activity", "price_mean_1d"),
    ("activity", "bought_1h"),
    ("activity", "price_last3_1h"),
    ("affordability", "share"),
]


_texts = st.one_of(
    st.text(max_size=40), st.sampled_from(["stats", "views", "view:stats", "service:ranking", "1", HOSTILE])
)
_paths = st.one_of(
    st.sampled_from(["/", "/catalogue", "/lineage", "/lookup", "/prune", "/source"]),
    st.lists(_texts, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(quote(part, safe="") for part in parts)),
    st.tuples(st.sampled_from(["feature", "view", "service", "entity", "static"]), _texts, _texts).map(
        lambda parts: "/" + "/".join(quote(part, safe="") for part in parts)
    ),
)
_names = st.sampled_from(
    [
        "q",
        "kind",
        "owner",
        "tag",
        "entity",
        "page",
        "of",
        "name",
        "service",
        "direction",
        "point",
        "bytes",
        "n_user",
        "user_id",
    ]
)


@settings(max_examples=300)
@example(path="////", parameters={})
@given(_paths, st.dictionaries(_names, _texts, max_size=5))
def test_whatever_is_asked_gets_a_whole_answer(visitor: Visitor, path: str, parameters: dict[str, str]) -> None:
    found = visitor.get(f"{path}?{urlencode(parameters)}")
    assert found.status_code in (200, 303, 307, 400, 404), found.text
    if found.headers.get("content-type", "").startswith("text/html"):
        assert not [tag for tag, _ in Tags(found.text).found if tag == "img"]


@given(
    st.sampled_from(["", "features", "views", "services", "sources"]),
    st.sampled_from(["", "growth", HOSTILE, "nobody"]),
    st.sampled_from(["", "domain=orders", f"{HOSTILE}={HOSTILE}", "model=ranker"]),
    st.sampled_from(["", "user", "item", "shop"]),
    st.integers(1, 3),
)
def test_filters_give_what_fits_and_all_of_it(
    shop: FeatureStore, kind: str, owner: str, tag: str, entity: str, page: int
) -> None:
    latest = shop.registry.latest()
    assert latest is not None
    snapshot = _SNAPSHOTS.setdefault(latest.digest, Snapshot(latest))
    wanted = [
        entry
        for entry in snapshot.derived(entries).values()
        if (not kind or entry.kind == kind)
        and (not owner or entry.owner == owner)
        and (not tag or tag in [f"{name}={value}" for name, value in entry.tags.items()])
        and (not entity or entity in entry.entities)
    ]
    found = catalogue(snapshot, CatalogueQuery(kind=kind, owner=owner, tag=tag, entity=entity, page=page))
    assert [entry for entry, _ in found.entries] == wanted[(page - 1) * PER_PAGE : page * PER_PAGE]
    assert found.total == len(wanted)


_SNAPSHOTS: dict[str, Snapshot] = {}
