"""redis-py's own client for any URL of a topology: what tests look at and change behind the library's back."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from redis.sentinel import Sentinel


class _ClusterClient(redis.RedisCluster):
    """redis-py asks one node of a Cluster for what each has of its own; this asks all primaries."""

    def keys(self, pattern: str | bytes = "*", **options: Any) -> list[bytes]:
        return list(self.scan_iter(pattern, count=1000, **options))

    def config_set(self, *arguments: Any, **options: Any) -> Any:
        return self._on_all_nodes("config_set", *arguments, **options)

    def acl_setuser(self, *arguments: Any, **options: Any) -> Any:
        return self._on_all_nodes("acl_setuser", *arguments, **options)

    def acl_deluser(self, *arguments: Any, **options: Any) -> Any:
        return self._on_all_nodes("acl_deluser", *arguments, **options)

    def _on_all_nodes(self, command: str, *arguments: Any, **options: Any) -> list[Any]:
        """The replies of all nodes. CLUSTER SLOTS, which redis-py reads, names a replica only after the first write."""
        replies = []
        for place in self.execute_command("CLUSTER NODES", target_nodes=self.get_random_node()):
            host, _, port = place.rpartition(":")
            with redis.Redis(host=host, port=int(port)) as node:
                replies.append(getattr(node, command)(*arguments, **options))
        return replies


def raw_client(url: str, **options: Any) -> redis.Redis:
    """A client of one server, of the primary that Sentinels name, or of a Cluster, with the commands of all three.

    Keys of several slots of a Cluster are for commands that redis-py splits itself, such as DELETE of several keys.
    """
    scheme = urlsplit(url).scheme
    if scheme == "redis+cluster":
        return _of_cluster(url, options)
    if scheme == "redis+sentinel":
        return _of_sentinels(url, options)
    return redis.Redis.from_url(url, **options)


def with_user(url: str, user: str) -> str:
    """The URL for a user of the servers, such as `reader:password`."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user}@{rest.rpartition('@')[2]}"


def _of_cluster(url: str, options: dict[str, Any]) -> redis.Redis:
    host, _, port = urlsplit(url).netloc.split(",")[0].rpartition(":")
    # It has the commands of Redis, but not its type.
    client: redis.Redis = _ClusterClient(host=host, port=int(port), **options)
    return client


def _of_sentinels(url: str, options: dict[str, Any]) -> redis.Redis:
    parts = urlsplit(url)
    password, _, places = parts.netloc.rpartition("@")
    nodes = [(host, int(port)) for host, _, port in (place.rpartition(":") for place in places.split(","))]
    (sentinel_password,) = parse_qs(parts.query)["sentinel_password"]
    sentinels: Any = Sentinel(nodes, sentinel_kwargs={"password": sentinel_password})
    client: redis.Redis = sentinels.master_for(parts.path.strip("/"), password=password.lstrip(":"), **options)
    return client
