"""Which limits the clients of tests have: see tests/limits.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from feature_store import FeatureStore
from feature_store.errors import StoreTimeoutError
from feature_store.online import OnlineClient
from feature_store.project.config import OnlineStoreConfig
from tests.limits import KINDS, LONG_S, OF_PROJECTS_S, OWN_S
from tests.online.proxy import Silent

if TYPE_CHECKING:
    from pathlib import Path


def test_the_library_has_its_own_limits() -> None:
    assert OWN_S == [1.0, 1.0, 5.0]
    assert OnlineStoreConfig().timeout_ms / 1000 == OF_PROJECTS_S


def test_a_client_of_a_test_has_a_long_limit_unless_it_is_given_one(tmp_path: Path) -> None:
    silent = Silent()
    for kind in KINDS[:2]:
        assert kind(silent.url(), "test")._limit().seconds == LONG_S
    with OnlineClient(silent.url(), "test", timeout_s=0.1) as client, pytest.raises(StoreTimeoutError, match="100 ms"):
        client.plan()
    (tmp_path / "features.py").write_text("from feature_store import Entity\nuser = Entity('user')\n")
    for given, seconds in (("", LONG_S), (", timeout_ms: 200", 0.2)):
        text = f"project: shop\nonline_store: {{url: '{silent.url()}'{given}}}\n"
        (tmp_path / "feature_store.yaml").write_text(text)
        with FeatureStore(tmp_path) as store:
            assert store.context.client._limit().seconds == seconds
    silent.close()
