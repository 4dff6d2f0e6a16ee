"""What stands before every page: reading alone, a known host, a token, and headers that bind the browser."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "feature_store_ui"
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
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                # Pages show the values of people: no cache may keep them.
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._loopback and not is_loopback(_host_name(headers.get("host", ""))):
            return PlainTextResponse("These pages are served to this machine alone: use 127.0.0.1.", 400)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("These pages can be read, nothing else.", 405, {"allow": "GET, HEAD"})
        return self._without_token(scope, headers) if self._token is not None else None

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """None when the visitor has shown the token."""
        assert self._token is not None
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _equal(shown.strip().encode("latin-1"), self._token):
            return None
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if _equal(cookie.encode("latin-1", "replace"), _cookie_value(self._token)):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if any(name == "token" and _equal(value.encode("utf-8", "replace"), self._token) for name, value in query):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            # A path that starts with two slashes would lead to another host.
            path = "/" + scope["raw_path"].decode("latin-1").lstrip("/\\") if "raw_path" in scope else "/"
            response = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
            response.set_cookie(COOKIE, _cookie_value(self._token), httponly=True, samesite="strict", path="/")
            return response
        told = "These pages need a token: open the address that ends in ?token=…, or send Authorization: Bearer …"
        return PlainTextResponse(told, 401, {"www-authenticate": 'Bearer realm="feature-store"'})


def _equal(shown: bytes, wanted: str) -> bool:
    """Compared in a time that does not tell how much of it is right."""
    return hmac.compare_digest(shown, wanted.encode())


def _cookie_value(token: str) -> str:
    """What stands for the token in a cookie, from which nobody can find it."""
    return hmac.new(token.encode(), b"feature-store ui", hashlib.sha256).hexdigest()


def _host_name(host: str) -> str:
    """`localhost:8420` and `[::1]:8420` without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host
