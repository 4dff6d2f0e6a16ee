"""What stands before every page: reading alone, a known host, no other site's request, a token, and headers that bind
the browser.

A visitor who shows the token is given a session: a random id in a cookie, for SESSION_S. Sessions are kept in memory,
so they end with the server.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import re
import secrets
import time
from collections import OrderedDict
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feature_store.errors import ConfigError

COOKIE = "feature_store_ui"
SESSION_S = 12 * 3600
# A shorter token can be guessed.
FEWEST_CHARACTERS = 16
# Wrong tokens of one address before each further one is answered late, and logged.
FREE_FAILURES, DELAY_S = 10, 1.0
# Sessions and addresses that are kept in mind, the newest ones.
MOST_SESSIONS = MOST_ADDRESSES = 1000
_STATIC_S = 600
_LOG = logging.getLogger("feature_store.ui")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?")
# Nothing but what this server sends itself; no script or style within a page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A random token."""
    return secrets.token_urlsafe(24)


def refuse_weak(token: str) -> None:
    """Refuse a token that can be guessed.

    Raises:
        ConfigError: it is shorter than FEWEST_CHARACTERS.
    """
    if len(token.strip()) < FEWEST_CHARACTERS:
        raise ConfigError(
            "token of the pages",
            expected=f"at least {FEWEST_CHARACTERS} characters",
            got=f"{len(token.strip())}",
            hint="leave it out: a random one is made, and printed as part of the address",
        )


class Sessions:
    """Visitors who have shown the token: random ids, and until when each is good. Bounded."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()

    def begin(self) -> str:
        """A new id."""
        found = secrets.token_urlsafe(24)
        self._until[found] = time.monotonic() + SESSION_S
        while len(self._until) > MOST_SESSIONS:
            self._until.popitem(last=False)
        return found

    def has(self, session: str) -> bool:
        """Whether an id is good. A random id cannot be found out from how long a look into a dictionary takes."""
        until = self._until.get(session)
        if until is not None and until < time.monotonic():
            del self._until[session]
            return False
        return until is not None


class Failures:
    """How many wrong tokens each address has shown. Bounded."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def delay_s(self, address: str) -> float:
        """How long an address waits for its next answer."""
        return DELAY_S if self._counts.get(address, 0) >= FREE_FAILURES else 0.0

    def add(self, address: str) -> None:
        """One more; it is logged."""
        count = self._counts[address] = self._counts.pop(address, 0) + 1
        while len(self._counts) > MOST_ADDRESSES:
            self._counts.popitem(last=False)
        _LOG.warning("a wrong token from %s, its number %d", address, count)

    def forget(self, address: str) -> None:
        """The address has shown the right one."""
        self._counts.pop(address, None)


class Guard:
    """Middleware that lets through what may be answered.

    Args:
        app: what answers.
        token: what a visitor must show; None: nothing.
        loopback: whether the pages are for this machine alone. Then the name that a browser used must be a loopback's:
            a page of elsewhere whose name was rebound to 127.0.0.1 is refused.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, loopback: bool) -> None:
        self._app, self._token, self._loopback = app, token, loopback
        self._sessions, self._failures = Sessions(), Failures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_static = str(scope["path"]).startswith("/static/")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                # Pages show the values of people: no cache may keep them. Styles and scripts show nothing.
                keeps = is_static and message["status"] in (200, 304)
                headers.setdefault("cache-control", f"private, max-age={_STATIC_S}" if keeps else "no-store")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None and self._token is not None:
            refusal = await self._without_token(scope, Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._loopback and not is_loopback(_host_name(headers.get("host", ""))):
            return PlainTextResponse("These pages are served to this machine alone: use 127.0.0.1.", 400)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("These pages can be read, nothing else.", 405, {"allow": "GET, HEAD"})
        if _is_of_another_site(headers):
            return PlainTextResponse("Another site asks for this: open it yourself.", 403)
        return None

    async def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """None when the visitor has shown the token, now or in this session."""
        cookie = _cookie_name(scope)
        if self._sessions.has(cookie_parser(headers.get("cookie", "")).get(cookie, "")):
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        asked = [value.encode("utf-8", "replace") for name, value in query if name == "token"]
        shown = [bearer.strip().encode("latin-1")] if scheme.lower() == "bearer" else []
        address = str((scope.get("client") or ("unknown",))[0])
        if shown or asked:
            await asyncio.sleep(self._failures.delay_s(address))
        if any(self._is_right(one) for one in shown):
            self._failures.forget(address)
            return None
        if any(self._is_right(one) for one in asked):
            self._failures.forget(address)
            return self._begun(scope, headers, query, cookie)
        if shown or asked:
            self._failures.add(address)
        told = "These pages need a token: open the whole address that was printed, or send Authorization: Bearer …"
        return PlainTextResponse(told, 401, {"www-authenticate": 'Bearer realm="feature-store"'})

    def _begun(self, scope: Scope, headers: Headers, query: list[tuple[str, str]], cookie: str) -> Response:
        """The same page without the token in its address, and a cookie."""
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # A path that starts with two slashes would lead to another host.
        path = "/" + scope["raw_path"].decode("latin-1").lstrip("/\\") if "raw_path" in scope else "/"
        response = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
        secure = "https" in (scope["scheme"], headers.get("x-forwarded-proto", "").strip().lower())
        response.set_cookie(
            cookie, self._sessions.begin(), max_age=SESSION_S, httponly=True, samesite="strict", path="/", secure=secure
        )
        return response

    def _is_right(self, shown: bytes) -> bool:
        """Compared in a time that does not tell how much of it is right."""
        assert self._token is not None
        return hmac.compare_digest(shown, self._token.encode())


def _is_of_another_site(headers: Headers) -> bool:
    """Whether a page of elsewhere asks, and not a person who follows a link; as browsers say themselves."""
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    return headers.get("sec-fetch-mode") != "navigate" or headers.get("sec-fetch-dest") != "document"


def _cookie_name(scope: Scope) -> str:
    """Cookies know no ports: each server has one of its own."""
    return f"{COOKIE}_{(scope.get('server') or ('', ''))[1]}"


def _host_name(host: str) -> str:
    """`localhost:8420` and `[::1]:8420` without the port; empty when it is no host."""
    found = _HOST.fullmatch(host)
    return found[1].strip("[]") if found is not None else ""
