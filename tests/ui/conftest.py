from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from servers import redis_server
from ui_worlds import Visitor, make_project

from feature_store.ui.app import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store import FeatureStore


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    """The project, which these tests read alone, on a server of its own."""
    with redis_server() as server, make_project(tmp_path_factory.mktemp("ui") / "shop", server.url) as store:
        yield store


@pytest.fixture(scope="session")
def visitor(shop: FeatureStore) -> Visitor:
    return Visitor(create_app(shop))
