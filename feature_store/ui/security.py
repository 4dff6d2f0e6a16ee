"""Access control for all pages: read-only methods, host check, no cross-site requests, a token, and security headers.

A visitor who presents the token gets a session: a random id in a cookie, valid for SESSION_S seconds. Sessions are in
memory, so they end with the server.
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
# Wrong tokens of an address before further ones are answered late. Each is logged.
FREE_FAILURES, DELAY_S = 10, 1.0
# The most sessions and addresses in memory. The newest are kept.
MOST_SESSIONS = MOST_ADDRESSES = 1000
_STATIC_S = 600
_LOG = logging.getLogger("feature_store.ui")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?")
# Allow only what this server itself sends; no inline scripts or styles.
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
    """Whether a host is reachable from this machine only."""
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
        ConfigError: the token is shorter than FEWEST_CHARACTERS.
    """
    if len(token.strip()) < FEWEST_CHARACTERS:
        raise ConfigError(
            "token of the UI",
            expected=f"at least {FEWEST_CHARACTERS} characters",
            got=f"{len(token.strip())}",
            hint="omit it: a random token is made, and printed as part of the address",
        )


class Sessions:
    """Sessions of visitors who have presented the token: random ids and their expiry. Bounded."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()

    def begin(self) -> str:
        """Begin a session. Returns its id."""
        session = secrets.token_urlsafe(24)
        self._until[session] = time.monotonic() + SESSION_S
        while len(self._until) > MOST_SESSIONS:
            self._until.popitem(last=False)
        return session

    def has(self, session: str) -> bool:
        """Whether a session is valid. The time of a dictionary lookup does not reveal a random id."""
        until = self._until.get(session)
        if until is not None and until < time.monotonic():
            del self._until[session]
            return False
        return until is not None


class Failures:
    """The number of wrong tokens from each address. Bounded."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        """The number of addresses that are counted."""
        return len(self._counts)

    def delay_s(self, address: str) -> float:
        """Seconds by which the next answer to an address is delayed."""
        return DELAY_S if self._counts.get(address, 0) >= FREE_FAILURES else 0.0

    def add(self, address: str) -> None:
        """Count and log a wrong token."""
        count = self._counts[address] = self._counts.pop(address, 0) + 1
        while len(self._counts) > MOST_ADDRESSES:
            self._counts.popitem(last=False)
        _LOG.warning("wrong token from %s (number %d)", address, count)

    def forget(self, address: str) -> None:
        """Reset the count of an address, which has presented the right token."""
        self._counts.pop(address, None)


class Guard:
    """ASGI middleware that refuses requests that may not be answered.

    Args:
        app: the application that answers.
        token: the token that visitors must present; None: no token is needed.
        loopback: whether the pages are for this machine alone. Then the Host header must name a loopback address, which
            refuses other sites whose DNS name was rebound to 127.0.0.1.
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
                # Pages show personal values, so no cache may store them. Styles and scripts hold none.
                is_cached = is_static and message["status"] in (200, 304)
                headers.setdefault("cache-control", f"private, max-age={_STATIC_S}" if is_cached else "no-store")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None and self._token is not None:
            refusal = await self._without_token(scope, Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._loopback and not is_loopback(_host_name(headers.get("host", ""))):
            return PlainTextResponse("These pages are for this machine only: use 127.0.0.1.", 400)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("These pages are read-only.", 405, {"allow": "GET, HEAD"})
        if _is_of_another_site(headers):
            return PlainTextResponse("Cross-site requests are refused: open the page directly.", 403)
        return None

    async def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """The refusal of a visitor without the token; None if the token was presented, now or in this session."""
        cookie = _cookie_name(scope)
        if self._sessions.has(cookie_parser(headers.get("cookie", "")).get(cookie, "")):
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        in_query = [value.encode("utf-8", "replace") for name, value in query if name == "token"]
        in_header = [bearer.strip().encode("latin-1")] if scheme.lower() == "bearer" else []
        address = str((scope.get("client") or ("unknown",))[0])
        if in_header or in_query:
            await asyncio.sleep(self._failures.delay_s(address))
        if any(self._is_right(one) for one in in_header):
            self._failures.forget(address)
            return None
        if any(self._is_right(one) for one in in_query):
            self._failures.forget(address)
            return self._begun(scope, headers, query, cookie)
        if in_header or in_query:
            self._failures.add(address)
        problem = "These pages need a token: open the full address that was printed, or send Authorization: Bearer …"
        return PlainTextResponse(problem, 401, {"www-authenticate": 'Bearer realm="feature-store"'})

    def _begun(self, scope: Scope, headers: Headers, query: list[tuple[str, str]], cookie: str) -> Response:
        """Redirect to the same address without the token, and set the session cookie."""
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # A path that begins with two slashes would redirect to another host.
        path = "/" + scope["raw_path"].decode("latin-1").lstrip("/\\") if "raw_path" in scope else "/"
        response = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
        secure = "https" in (scope["scheme"], headers.get("x-forwarded-proto", "").strip().lower())
        response.set_cookie(
            cookie, self._sessions.begin(), max_age=SESSION_S, httponly=True, samesite="strict", path="/", secure=secure
        )
        return response

    def _is_right(self, shown: bytes) -> bool:
        """Compare in constant time."""
        assert self._token is not None
        return hmac.compare_digest(shown, self._token.encode())


def _is_of_another_site(headers: Headers) -> bool:
    """Whether the browser says that another site made the request, other than by a link that a person followed."""
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    return headers.get("sec-fetch-mode") != "navigate" or headers.get("sec-fetch-dest") != "document"


def _cookie_name(scope: Scope) -> str:
    """The name of the session cookie. It contains the port, since cookies are shared by all ports of a host."""
    return f"{COOKIE}_{(scope.get('server') or ('', ''))[1]}"


def _host_name(host: str) -> str:
    """The host of `localhost:8420` or `[::1]:8420` without the port. Empty if it is not a host."""
    found = _HOST.fullmatch(host)
    return found[1].strip("[]") if found is not None else ""
