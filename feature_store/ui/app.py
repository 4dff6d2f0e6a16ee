"""The application: its routes, how pages become answers, and the pages of errors."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from feature_store.errors import FeatureStoreError
from feature_store.project.store import FeatureStore
from feature_store.ui.definition_pages import MOST_ROWS
from feature_store.ui.pages import Content, Page, all_pages
from feature_store.ui.rendering import Templates, shortened
from feature_store.ui.security import Guard
from feature_store.ui.site import Site, status_of

# While a page waits for a value, the browser asks again after this many seconds.
_AGAIN_S = 1
# The first pages of the menu. Pages that are not listed here follow.
_MENU = ("Overview", "Catalogue", "Lineage", "Pruning", "Look up")


def create_app(store: FeatureStore, *, token: str | None = None, loopback: bool = True) -> ASGIApp:
    """The pages of a project, as an ASGI application.

    Args:
        store: the project. The application does not close it.
        token: the token that visitors must present; None: no token is needed.
        loopback: whether the pages are for this machine alone; see `security.Guard`.
    """
    pages = all_pages()
    site = Site(store)
    answers = _Answers(site, pages)
    errors = _Errors(answers.templates)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        site.close()

    routes: list[Route | Mount] = [Route(page.path, answers.endpoint(page), methods=["GET"]) for page in pages]
    static = Mount("/static", StaticFiles(packages=[("feature_store.ui", "static")]))
    app = Starlette(
        routes=[*routes, static],
        exception_handlers={
            FeatureStoreError: errors.failed,
            HTTPException: errors.refused,
            Exception: errors.broken,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would use the Host header of the browser
    return Guard(app, token=token, loopback=loopback)


class _Answers:
    """Turns pages into answers of HTTP.

    Attributes:
        templates: all templates, with the menu.
    """

    def __init__(self, site: Site, pages: Sequence[Page]) -> None:
        menu = [(page.path, page.menu) for name in _MENU for page in pages if page.menu == name]
        menu += [(page.path, page.menu) for page in pages if page.menu and page.menu not in _MENU]
        self.templates = Templates(project=site.store.project, again_s=_AGAIN_S, most_rows=MOST_ROWS, menu=menu)
        self._site = site
        self._fixed: dict[str, tuple[str, bytes]] = {}  # path -> digest of the version, body

    def endpoint(self, page: Page) -> Callable[[Request], Response]:
        """The function that Starlette calls for a page."""

        def endpoint(request: Request) -> Response:
            content = page.content(self._site, request)
            return self._fixed_page(page, content) if content.is_fixed else self._rendered(page, content)

        return endpoint

    def _rendered(self, page: Page, content: Content) -> HTMLResponse:
        is_waiting = any(computed.is_pending for computed in content.waiting)
        return self.templates.page(
            page.template, status=content.status, snapshot=content.snapshot, is_waiting=is_waiting, **content.data
        )

    def _fixed_page(self, page: Page, content: Content) -> HTMLResponse:
        digest, body = self._fixed.get(page.path, ("", b""))
        if digest != content.snapshot.version.digest:
            digest, body = content.snapshot.version.digest, bytes(self._rendered(page, content).body)
            self._fixed[page.path] = digest, body
        return HTMLResponse(body)


class _Errors:
    """The pages that answer errors."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates

    def failed(self, _request: Request, error: Exception) -> Response:
        """An error of the library: its reason and hint."""
        assert isinstance(error, FeatureStoreError)
        status = status_of(error)
        return self._templates.page(
            "error.html",
            status=status,
            title="Not found" if status == 404 else "This page cannot be shown",
            reason=shortened(error.reason),
            hint=shortened(error.hint),
            **_NO_PAGE,
        )

    def refused(self, _request: Request, error: Exception) -> Response:
        """An unknown address, or a method that is not allowed."""
        assert isinstance(error, HTTPException)
        title = "Not found" if error.status_code == 404 else error.detail
        hint = "the catalogue lists all definitions"
        return self._templates.page(
            "error.html", status=error.status_code, title=title, reason="There is no such page.", hint=hint, **_NO_PAGE
        )

    def broken(self, _request: Request, _error: Exception) -> Response:
        """A bug in these pages. The log has the traceback, the browser gets no details."""
        reason = "An unexpected error occurred."
        return self._templates.page(
            "error.html", status=500, title="This page cannot be shown", reason=reason, hint="see the log", **_NO_PAGE
        )


# The variables of the layout for a page without a snapshot.
_NO_PAGE: dict[str, Any] = {"snapshot": None, "is_waiting": False}
