"""The pages: one module and one template each.

A page is a function of the site and a request that returns the data of its template:

    @page("/costs", "costs.html", menu="Costs")
    def costs(site: Site, request: Request) -> Content:
        snapshot = site.snapshot()
        return Content(snapshot, {"rows": costs_of(snapshot)})

The application imports all modules of this folder.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from starlette.requests import Request

from feature_store.ui.background import Computed
from feature_store.ui.site import Site
from feature_store.ui.snapshot import Snapshot


class Content(NamedTuple):
    """What a page shows.

    Attributes:
        snapshot: the applied definitions.
        data: the variables of the template.
        waiting: values that are computed in the background. While one is pending, the browser asks again.
        status: the HTTP status.
        is_fixed: the page is the same until a new version is applied, so it is rendered once per version.
    """

    snapshot: Snapshot
    data: dict[str, Any]
    waiting: Sequence[Computed[Any]] = ()
    status: int = 200
    is_fixed: bool = False


MakesContent = Callable[[Site, Request], Content]


class Page(NamedTuple):
    """A page.

    Attributes:
        path: its path, as Starlette writes it.
        template: a file in `templates/`.
        content: the function that makes its content.
        menu: its name in the menu; empty: the menu does not list it.
    """

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
        menu: its name in the menu of every page; empty: the menu does not list it.
    """

    def register(content: MakesContent) -> MakesContent:
        _PAGES[path] = Page(path, template, content, menu)
        return content

    return register


def all_pages() -> list[Page]:
    """The pages of all modules in this folder."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return list(_PAGES.values())
