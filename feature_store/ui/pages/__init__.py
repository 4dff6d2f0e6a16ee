"""The pages: one module each, beside a template.

A page is a function of the site and a request that returns the data of its template:

    @page("/costs", "costs.html", menu="Costs")
    def costs(site: Site, request: Request) -> Content:
        snapshot = site.snapshot()
        return Content(snapshot, {"rows": costs_of(snapshot)})

Modules in this folder are found by themselves.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from feature_store.ui.background import Outcome
    from feature_store.ui.site import Site
    from feature_store.ui.snapshot import Snapshot

    MakesContent = Callable[[Site, Request], "Content | Response"]


class Content(NamedTuple):
    """What a page shows.

    Attributes:
        snapshot: the applied definitions that it is about.
        data: what its template is given.
        waiting: values that are computed in the background; while one is pending, the browser asks again.
        status: of HTTP.
    """

    snapshot: Snapshot
    data: dict[str, Any]
    waiting: Sequence[Outcome[Any]] = ()
    status: int = 200


class Page(NamedTuple):
    """A page: its path (starlette's form), its template, its function, and its name in the menu, if it is there."""

    path: str
    template: str
    content: MakesContent
    menu: str


_PAGES: dict[str, Page] = {}


def page(path: str, template: str, *, menu: str = "") -> Callable[[MakesContent], MakesContent]:
    """Make a function a page.

    Args:
        path: where it is served, such as `/view/{name}`.
        template: a file in `templates/`.
        menu: its name in the menu of every page; empty: it is not there.
    """

    def register(
        content: Callable[[Site, Request], Content | Response],
    ) -> Callable[[Site, Request], Content | Response]:
        _PAGES[path] = Page(path, template, content, menu)
        return content

    return register


def all_pages() -> list[Page]:
    """The pages of all modules in this folder."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return list(_PAGES.values())
