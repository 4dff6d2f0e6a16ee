from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from feature_store.ui.app import create_app
from tests.servers import redis_server
from tests.ui.ui_worlds import Visitor, make_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feature_store import FeatureStore


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    """The project, on a server of its own. These tests only read it."""
    with redis_server() as server, make_project(tmp_path_factory.mktemp("ui") / "shop", server.url) as store:
        yield store


@pytest.fixture(scope="session")
def visit() -> Iterator[Callable[..., Visitor]]:
    """Visitors of a project's pages, with the options of `create_app`."""
    with contextlib.ExitStack() as stack:

        def visitor(store: FeatureStore, **options: Any) -> Visitor:
            return stack.enter_context(contextlib.closing(Visitor(create_app(store, **options))))

        yield visitor


@pytest.fixture(scope="session")
def visitor(shop: FeatureStore, visit: Callable[..., Visitor]) -> Visitor:
    return visit(shop)
