"""Transports, certificates and a filled store for the tests of connections."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import redis
import trustme

from feature_store.definitions import FeatureService
from feature_store.online import OnlineStore
from tests.online.proxy import Certificates
from tests.online.worlds import NOW_US, numbers, plan_of, write

if TYPE_CHECKING:
    from pathlib import Path

TRANSPORTS = ("tcp", "tls", "unix")
SERVICE = FeatureService("service", features=[numbers])
USER, PASSWORD, DATABASE = "model", "S3CR3T", 1
ENTITIES = 20_000


def certificates(folder: Path) -> Certificates:
    """A certificate for `localhost` by an authority that no system trusts."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    file = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    return Certificates(context, file)


def fill(url: str, database: int = 0) -> None:
    """Publish a plan, write `numbers` of all entities, and add a user with a password."""
    store = OnlineStore(f"{url}?db={database}", "test")
    store.publish(plan_of(SERVICE), over=store.published())
    write(store, numbers, [{"movie_id": i, "event_ts": NOW_US, "a": 1.0, "b": 2.0, "c": i} for i in range(ENTITIES)])
    store.close()
    with redis.Redis.from_url(url) as admin:
        admin.acl_setuser(USER, enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], commands=["+@all"])


def ask(client: Any, movies: Any = (1, 2, 3), **options: Any) -> Any:
    return client.get_online_features("service", {"movie_id": movies}, now=NOW_US, **options)
