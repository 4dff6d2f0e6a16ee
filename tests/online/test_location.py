"""URLs of one server, of a Cluster and of Sentinels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from feature_store.errors import (
    ConfigError,
)
from feature_store.online.redis.location import Location
from feature_store.online.redis.topology import connect

if TYPE_CHECKING:
    pass


def test_urls_name_nodes_services_and_options() -> None:
    found = Location.of("rediss+cluster://reader:p%40ss@a:7000,[::1]:7001,b/0?read_from=replica&max_connections=5")
    assert [(one.host, one.port) for one in (found.address, *found.others)] == [("a", 7000), ("::1", 7001), ("b", 6379)]
    assert (found.address.username, found.address.password, found.address.transport) == ("reader", "p@ss", "tls")
    assert (found.read_from, found.most_connections) == ("replica", 5)
    found = Location.of("redis+sentinel://:secret-of-it@a,b:1/main/3?sentinel_username=u&sentinel_password=s%2Fs-long")
    assert [(one.host, one.port, one.username, one.password, one.db) for one in found.others] == [
        ("a", 26379, "u", "s/s-long", 0),
        ("b", 1, "u", "s/s-long", 0),
    ]
    assert (found.service, found.address.db, found.address.password) == ("main", 3, "secret-of-it")
    assert "secret-of-it" not in found.shown
    assert "s/s-long" not in found.shown and "s%2Fs-long" not in found.shown


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://a:7000/1",
        "redis+cluster://a:7000,,b",
        "redis+cluster://a:70000",
        "redis+cluster://a?read_from=anywhere",
        "redis+cluster://a?read_from=replica&hedge=often",
        "redis+cluster://a?hedge=true",
        "redis+cluster://a?read_from=primary&hedge=true",
        "redis+cluster://a?sentinel_password=x",
        "redis+cluster://a?ssl_check_hostname=false",
        "redis+cluster://a?speed=high",
        "redis+sentinel://a:1",
        "redis+sentinel://a:1/main/x",
        "redis://a..b:6379",
        f"redis://{'x' * 64}:6379",
        "redis+cluster://a:7000,b..c:7000",
        "redis+sentinel://a..b:1/main",
    ],
)
def test_wrong_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="online store URL"):
        connect(url, 1.0)
