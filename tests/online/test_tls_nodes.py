"""TLS and mTLS on a Cluster and on Sentinels: clients and writers encrypt what they send to every node.

The servers are Redis from the system's packages: the other tests' binary has no TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trustme

from feature_store.errors import StoreConnectionError
from feature_store.online import OnlineStore
from tests.online.clients import CLIENTS
from tests.online.node_worlds import ages, expected, publish, write
from tests.redis_nodes import SERVICE, RedisNode, free_ports, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BINARY = "/usr/bin/redis-server"


class Tls:
    """The files of an authority, and of a certificate that servers and clients use."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        self.authority, self.certificate, self.key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(self.authority)
        certificate.cert_chain_pems[0].write_to_path(self.certificate)
        certificate.private_key_pem.write_to_path(self.key)

    def of_server(self, port: int, *, is_mutual: bool) -> list[str]:
        """The options of a server. It takes commands of the tests on its other port, without TLS."""
        files = ("--tls-cert-file", self.certificate, "--tls-key-file", self.key, "--tls-ca-cert-file", self.authority)
        return [*files, "--tls-port", str(port), "--tls-auth-clients", "yes" if is_mutual else "no"]

    def of_url(self, *, is_mutual: bool) -> str:
        """The options of a client's URL."""
        options = f"ssl_ca_certs={self.authority}"
        return f"{options}&ssl_certfile={self.certificate}&ssl_keyfile={self.key}" if is_mutual else options


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path)


@pytest.fixture(params=["tls", "mtls"])
def is_mutual(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "mtls")


@pytest.fixture
def cluster(tmp_path: Path, tls: Tls, is_mutual: bool) -> Iterator[tuple[list[RedisNode], list[int]]]:
    """Three primaries: their nodes, and their ports with TLS."""
    ports = free_ports(9)
    plain, secure, buses = ports[:3], ports[3:6], ports[6:]
    nodes = []
    for port, over, bus in zip(plain, secure, buses, strict=True):
        options = (
            *tls.of_server(over, is_mutual=is_mutual),
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            str(bus),
            "--tls-cluster",
            "yes",
        )
        nodes.append(RedisNode(tmp_path / str(port), port, *options, "--save", "", binary=BINARY))
    for i, node in enumerate(nodes):
        node("CLUSTER", "ADDSLOTSRANGE", 16_384 * i // 3, 16_384 * (i + 1) // 3 - 1)
        node("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
    for node in nodes[1:]:
        node("CLUSTER", "MEET", "127.0.0.1", secure[0], buses[0])
    wait_until(lambda: all("cluster_state:ok" in node("CLUSTER", "INFO") for node in nodes), "a Cluster that serves")
    wait_until(lambda: all(len(node("CLUSTER", "SLOTS")) == 3 for node in nodes), "nodes that know each other")
    yield nodes, secure
    for node in nodes:
        node.kill()


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_cluster_over_tls(cluster: tuple[list[RedisNode], list[int]], tls: Tls, is_mutual: bool, kind: str) -> None:
    """The nodes name each other's ports with TLS."""
    _, secure = cluster
    url = f"rediss+cluster://127.0.0.1:{secure[0]}"
    check(f"{url}?{tls.of_url(is_mutual=is_mutual)}", kind)
    refused(url, tls, is_mutual=is_mutual)


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_sentinels_over_tls(tmp_path: Path, tls: Tls, is_mutual: bool, kind: str) -> None:
    """The Sentinels name the servers' ports with TLS. Clients use TLS for Sentinels too."""
    plain_primary, primary_port, plain_sentinel, sentinel_port = free_ports(4)
    options = tls.of_server(primary_port, is_mutual=is_mutual)
    nodes = [RedisNode(tmp_path / "primary", plain_primary, *options, "--save", "", binary=BINARY)]
    try:
        file = tmp_path / "sentinel.conf"
        file.write_text(f"tls-replication yes\nsentinel monitor {SERVICE} 127.0.0.1 {primary_port} 1\n")
        options = [str(file), "--sentinel", *tls.of_server(sentinel_port, is_mutual=is_mutual)]
        nodes.append(RedisNode(tmp_path / "sentinel", plain_sentinel, *options, binary=BINARY))
        url = f"rediss+sentinel://127.0.0.1:{sentinel_port}/{SERVICE}"
        check(f"{url}?{tls.of_url(is_mutual=is_mutual)}", kind)
        refused(url, tls, is_mutual=is_mutual)
    finally:
        for node in nodes:
            node.kill()


def check(url: str, kind: str) -> None:
    """Check that a writer and a client of a URL work."""
    store = OnlineStore(url, "shop", timeout_s=10.0)
    publish(store, 1)
    client: Any = CLIENTS[kind](url, "shop", timeout_s=10.0)
    assert ages(client) == expected(1)
    publish(store, 2)
    write(store, 2)
    assert ages(client) == expected(2)
    client.close()
    store.close()


def refused(url: str, tls: Tls, *, is_mutual: bool) -> None:
    """Check that a client that does not know the authority connects to no server, nor one without a certificate."""
    options = [""] + ([f"?{tls.of_url(is_mutual=False)}"] if is_mutual else [])
    for one in options:
        store = OnlineStore(url + one, "shop", timeout_s=10.0)
        with pytest.raises(StoreConnectionError):
            store.published()
        store.close()
