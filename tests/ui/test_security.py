from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

import httpx
import pytest

from feature_store import FeatureStore
from feature_store.errors import ConfigError
from feature_store.ui import security, server
from feature_store.ui.app import create_app
from feature_store.ui.security import COOKIE, is_loopback
from tests.ui.ui_worlds import Visitor

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
    assert headers["cache-control"] == ("private, max-age=600" if path.startswith("/static/") else "no-store")


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
        ("LOCALHOST:8420", True),
        ("127.0.0.1:8420@evil.example", False),
        ("evil.example@127.0.0.1", False),
    ],
)
def test_only_names_of_this_machine_are_answered(
    visit: Callable[..., Visitor], visitor: Visitor, shop: FeatureStore, host: str, allowed: bool
) -> None:
    assert (visitor.get("/catalogue", host=host).status_code == 200) is allowed
    # A server for other machines needs a token, and takes any host name.
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
        {"cookie": f"{COOKIE}_8420=wrong"},
        {"cookie": f"{COOKIE}_8420="},
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
    from feature_store.ui.pages import definitions

    def fails(*_: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(definitions, "view_page", fails)
    found = visitor.get("/view/stats")
    assert found.status_code == 500
    assert "hunter2" not in found.text
    assert "content-security-policy" in found.headers


# -- other sites ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "mode", "destination", "allowed"),
    [
        ("none", "navigate", "document", True),
        ("same-origin", "no-cors", "style", True),
        ("same-origin", "navigate", "document", True),
        ("cross-site", "navigate", "document", True),  # a person follows a link
        ("cross-site", "no-cors", "image", False),
        ("cross-site", "cors", "empty", False),
        ("cross-site", "navigate", "iframe", False),
        ("same-site", "no-cors", "image", False),  # another port of this machine
    ],
)
def test_another_site_asks_for_nothing(visitor: Visitor, site: str, mode: str, destination: str, allowed: bool) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": destination}
    for path in ("/catalogue", "/static/style.css"):
        assert visitor.ask("GET", path, headers).status_code == (200 if allowed else 403)


def test_slashes_lead_nowhere_else(visitor: Visitor) -> None:
    for path in ("/static", "/catalogue/", "/entity/user/"):
        found = visitor.get(path)
        assert found.status_code == 404
        assert "location" not in found.headers


def test_what_is_searched_for_is_shown_in_part(visitor: Visitor) -> None:
    assert len(visitor.get(f"/catalogue?q={'x' * 60_000}").text) < 20_000


# -- sessions and wrong tokens ----------------------------------------------------------------------------------------


def session_of(visitor: Visitor, **headers: str) -> tuple[str, str]:
    """The cookie that the token is exchanged for, and its whole Set-Cookie header."""
    from urllib.parse import quote

    found = visitor.get(f"/catalogue?token={quote(TOKEN)}", **headers)
    assert found.status_code == 303
    said = found.headers["set-cookie"]
    return said.split(";")[0], said


def test_each_visitor_has_a_session_that_ends(guarded: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine, said), (theirs, _) = session_of(guarded), session_of(guarded)
    assert mine != theirs
    assert f"Max-Age={security.SESSION_S}" in said
    assert mine.startswith(f"{COOKIE}_8420="), "each server of a host has a cookie of its own"
    assert guarded.get("/catalogue", cookie=mine).status_code == 200
    later = time.monotonic() + security.SESSION_S + 1
    monkeypatch.setattr(security.time, "monotonic", lambda: later)
    assert guarded.get("/catalogue", cookie=mine).status_code == 401


def test_a_cookie_is_secure_where_the_page_is(guarded: Visitor) -> None:
    assert "Secure" not in session_of(guarded)[1]
    assert "Secure" in session_of(guarded, **{"x-forwarded-proto": "https"})[1]


def test_wrong_tokens_are_logged_and_slow(
    visit: Callable[..., Visitor], shop: FeatureStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(security.asyncio, "sleep", sleep)
    guarded = visit(shop, token=TOKEN)
    for i in range(15):
        assert guarded.get(f"/catalogue?token=wrong{i}").status_code == 401
    assert slept == [0.0] * security.FREE_FAILURES + [security.DELAY_S] * 5
    assert "(number 15)" in caplog.text
    assert "wrong14" not in caplog.text, "what was shown may be the token of another server"
    assert guarded.ask("GET", "/catalogue", {"authorization": f"Bearer {TOKEN}".encode()}).status_code == 200  # type: ignore[dict-item]
    assert guarded.get("/catalogue?token=wrong").status_code == 401
    assert slept[-2:] == [security.DELAY_S, 0.0], "the right one makes up for the wrong ones"


def test_sessions_and_addresses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MOST_SESSIONS", 5)
    monkeypatch.setattr(security, "MOST_ADDRESSES", 5)
    sessions, failures = security.Sessions(), security.Failures()
    ids = [sessions.begin() for _ in range(50)]
    for i in range(50):
        failures.add(f"10.0.0.{i}")
    assert [sessions.has(one) for one in ids] == [False] * 45 + [True] * 5
    assert len(failures) == 5


def test_tokens_that_can_be_guessed_are_refused() -> None:
    for weak in ("", "a", " " * 40, "fifteen letters"):
        with pytest.raises(ConfigError, match="at least 16 characters"):
            security.refuse_weak(weak)
    security.refuse_weak(security.new_token())
    assert security.new_token() != security.new_token()


def test_half_a_request_is_not_waited_for(shop: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a socket: connections that send nothing, half of a head or single bytes are closed. Others are answered."""
    monkeypatch.setattr(server, "REQUEST_S", 0.5)
    config = server.uvicorn.Config(create_app(shop), http=server.PatientProtocol, log_level="error", ws="none")
    running = server.uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        thread = threading.Thread(target=running.run, args=([bound],))
        thread.start()
        try:
            late = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(3)]
            for one, head in zip(
                late, (b"", b"GET / HT", b"GET /catalogue HTTP/1.1\r\nhost: 127.0.0.1\r\nx: "), strict=True
            ):
                one.sendall(head)
            page = httpx.get(f"http://127.0.0.1:{port}/catalogue", timeout=30)
            assert page.status_code == 200
            for one in late:
                with contextlib.suppress(ConnectionResetError):
                    assert one.recv(100) == b"", "closed by the server"
                one.close()
        finally:
            running.should_exit = True
            thread.join()
