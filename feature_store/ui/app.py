"""The application: its routes, and the answers to errors."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from feature_store.errors import FeatureStoreError
from feature_store.ui.pages import all_pages
from feature_store.ui.rendering import shortened
from feature_store.ui.security import Guard
from feature_store.ui.site import Site, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from feature_store.project.store import FeatureStore
    from feature_store.ui.pages import Page


def create_app(store: FeatureStore, *, token: str | None = None, loopback: bool = True) -> ASGIApp:
    """The pages of a project, as an ASGI application.

    Args:
        store: the project; the application does not close it.
        token: what a visitor must present; None: nothing.
        loopback: whether the pages are for this machine alone; see `security.Guard`.
    """
    pages = all_pages()
    site = Site(store, pages)
    errors = _Errors(site)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        site.close()

    routes: list[Route | Mount] = [Route(page.path, _endpoint(site, page), methods=["GET"]) for page in pages]
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
    app.router.redirect_slashes = False  # it would make an address of the Host that the browser names
    return Guard(app, token=token, loopback=loopback)


def _endpoint(site: Site, page: Page) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        content = page.content(site, request)
        return content if isinstance(content, Response) else site.render(page.template, content)

    return endpoint


class _Errors:
    """The pages that answer errors."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def failed(self, _request: Request, error: Exception) -> Response:
        """An error of the library: what it says, and what to do."""
        assert isinstance(error, FeatureStoreError)
        status = status_of(error)
        return self._site.templates.page(
            "error.html",
            status=status,
            title="Not found" if status == 404 else "This cannot be shown",
            reason=shortened(error.reason),
            hint=shortened(error.hint),
            **_NO_PAGE,
        )

    def refused(self, _request: Request, error: Exception) -> Response:
        """An address that leads nowhere."""
        assert isinstance(error, HTTPException)
        title = "Not found" if error.status_code == 404 else error.detail
        hint = "the catalogue lists all there is"
        return self._site.templates.page(
            "error.html", status=error.status_code, title=title, reason="There is no such page.", hint=hint, **_NO_PAGE
        )

    def broken(self, _request: Request, _error: Exception) -> Response:
        """A fault of these pages: the log has it, the browser is told nothing of it."""
        reason = "Something is wrong with this page."
        return self._site.templates.page(
            "error.html", status=500, title="This cannot be shown", reason=reason, hint="see the log", **_NO_PAGE
        )


# What a page without a snapshot gives its layout.
_NO_PAGE: dict[str, Any] = {"snapshot": None, "is_waiting": False}
