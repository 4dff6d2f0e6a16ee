from __future__ import annotations

from collections.abc import Callable

import pytest
from ui_worlds import Visitor

from feature_store import FeatureStore
from feature_store.ui.security import COOKIE, is_loopback

TOKEN = "k0-ſecret token &=+"


@pytest.fixture(scope="module")
def guarded(visit: Callable[..., Visitor], shop: FeatureStore) -> Visitor:
    return visit(shop, token=TOKEN)


@pytest.mark.parametrize(
    "path", ["/catalogue", "/nowhere", "/static/style.css", "/view/nothing", "/prune?service=ranking&point=x"]
)
def test_headers_bind_the_browser(visitor: Visitor, path: str) -> None:
    headers = visitor.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "WHATEVER"])
@pytest.mark.parametrize("path", ["/catalogue", "/lookup?of=view:stats&user_id=1", "/static/style.css", "/nowhere"])
def test_nothing_but_reading(visitor: Visitor, method: str, path: str) -> None:
    found = visitor.ask(method, path)
    assert found.status_code == 405
    assert found.headers["allow"] == "GET, HEAD"
    assert "content-security-policy" in found.headers


def test_head_is_get_without_a_body(visitor: Visitor) -> None:
    assert visitor.ask("HEAD", "/catalogue").status_code == 200


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8420", True),
        ("localhost", True),
        ("localhost:1", True),
        ("[::1]:8420", True),
        ("127.9.9.9", True),
        ("evil.example", False),
        ("evil.example:8420", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8420", False),
        ("10.0.0.1", False),
        ("0.0.0.0:8420", False),
        ("", False),
        ("a]b", False),
    ],
)
def test_only_names_of_this_machine_are_answered(
    visit: Callable[..., Visitor], visitor: Visitor, shop: FeatureStore, host: str, allowed: bool
) -> None:
    assert (visitor.get("/catalogue", host=host).status_code == 200) is allowed
    # Who serves others has a token for it, and any name.
    anywhere = visit(shop, token=TOKEN, loopback=False)
    assert anywhere.get("/catalogue", host=host, authorization=f"Bearer {TOKEN}".encode()).status_code == 200  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("x", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic k0-secret"},
        {"authorization": "Bearer \xff\xfe"},
        {"cookie": f"{COOKIE}=wrong"},
        {"cookie": f"{COOKIE}="},
        {"cookie": "\xff=\xff"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/catalogue", "/static/style.css", "/nowhere", "/catalogue?token=wrong", "/catalogue?token="]
)
def test_without_the_token_nothing_is_shown(guarded: Visitor, headers: dict[str, str], path: str) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    found = guarded.ask("GET", path, encoded)  # type: ignore[arg-type]
    assert found.status_code == 401
    assert found.headers["www-authenticate"].startswith("Bearer")
    assert "stats" not in found.text
    assert TOKEN not in found.text


def test_a_token_in_the_address_becomes_a_cookie(guarded: Visitor) -> None:
    from urllib.parse import quote

    found = guarded.get(f"/catalogue?q=basket&token={quote(TOKEN)}&kind=features")
    assert found.status_code == 303
    assert found.headers["location"] == "/catalogue?q=basket&kind=features"
    cookie = found.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    value = cookie.split(";")[0]
    assert guarded.get("/catalogue", cookie=value).status_code == 200
    assert guarded.get("/catalogue", cookie=f"other=1; {value}; more=2").status_code == 200


def test_the_redirect_stays_here(guarded: Visitor) -> None:
    from urllib.parse import quote

    for path in ("//evil.example/", "/\\evil.example", "///evil.example"):
        found = guarded.get(f"{path}?token={quote(TOKEN)}")
        assert found.status_code == 303
        assert not found.headers["location"].startswith(("//", "/\\", "http"))


def test_the_token_in_a_header(guarded: Visitor) -> None:
    for scheme in ("Bearer", "bearer"):
        found = guarded.ask("GET", "/catalogue", {"authorization": f"{scheme} {TOKEN}".encode()})  # type: ignore[arg-type]
        assert found.status_code == 200


def test_a_fault_is_not_shown(visitor: Visitor, shop: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from feature_store.ui import app

    def fails(*_: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(app, "view_page", fails)
    found = visitor.get("/view/stats")
    assert found.status_code == 500
    assert "hunter2" not in found.text
    assert "content-security-policy" in found.headers
