"""Where a Redis server is, how its bytes are encrypted, and which commands a new connection sends first.

redis-py reads URLs and makes pools; this module reads their options. It follows the options for the server's place and
the user, ignores the options for redis-py's own I/O, and refuses all others: an unknown option may ask for more safety
than the connection would have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from feature_store.errors import ConfigError
from feature_store.online.redis.providers import credentials_of, provider_named
from feature_store.online.redis.resp import packed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

TCP, TLS, UNIX = "tcp", "tls", "unix"

# Options that this client follows, by redis-py's names.
_READ = {"host", "port", "path", "db", "username", "password", "credential_provider", "client_name"}
_TLS = {
    "ssl_keyfile",
    "ssl_certfile",
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_ca_certs",
    "ssl_ca_data",
    "ssl_ca_path",
    "ssl_include_verify_flags",
    "ssl_exclude_verify_flags",
    "ssl_min_version",
    "ssl_ciphers",
}
# Options of a URL for redis-py's own I/O. The client's `timeout_s` and `max_connections` replace them.
_OWN = {
    "protocol",
    "socket_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_read_size",
    "retry_on_timeout",
    "retry_on_error",
    "health_check_interval",
    "max_connections",
    "timeout",
    "encoding",
    "encoding_errors",
    "decode_responses",
    "legacy_responses",
    "lib_name",
    "lib_version",
}
# Options that change which bytes are sent or checked. Only redis-py's own connections follow them.
_REFUSED = {
    "redis_connect_func",
    "ssl_validate_ocsp",
    "ssl_validate_ocsp_stapled",
    "ssl_ocsp_context",
    "ssl_ocsp_expected_cert",
}


class Tls:
    """How connections are encrypted, and what the server's certificate must be: redis-py's `ssl_…` options."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The TLS context, made once, since that reads all certificates that the system trusts.

        Raises:
            ConfigError: a file of certificates or keys cannot be read.
        """
        try:
            return _tls_context(self.options)
        except (OSError, ValueError) as error:
            files = ", ".join(str(value) for name, value in self.options.items() if name in _FILES) or "none"
            raise ConfigError(
                "TLS of the online store",
                expected="certificates and keys that can be read",
                got=f"{error} (files: {files})",
            ) from None


@dataclass(frozen=True)
class Address:
    """A Redis server and how to connect to it.

    Attributes:
        transport: TCP, TLS or UNIX.
        host, port: the server's, for TCP and TLS.
        path: the socket's path, for UNIX.
        db: the number of the database.
        username, password: for AUTH; empty for none.
        credential_provider: a redis-py object that gives user and password for each new connection, or None.
        client_name: for CLIENT SETNAME; empty for none.
        tls: the TLS options; None unless the transport is TLS.
        is_master: whether the server must be a master. A server that a Sentinel named is asked for its role.
        is_readonly: whether a replica of a Cluster is asked to answer reads, rather than to name its primary.
    """

    transport: str = TCP
    host: str = "localhost"
    port: int = 6379
    path: str = ""
    db: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    credential_provider: Any = field(default=None, repr=False)
    client_name: str = ""
    tls: Tls | None = field(default=None, repr=False)
    is_master: bool = False
    is_readonly: bool = False

    @classmethod
    def of(cls, transport: str, options: Mapping[str, Any], where: str, *, known_only: bool) -> Address:
        """An address from redis-py's options.

        Args:
            transport: TCP, TLS or UNIX.
            options: the options of a redis-py connection class.
            where: the origin of the options, for errors.
            known_only: refuse every unknown option, as for a URL. A pool may have new options for redis-py's I/O.

        Raises:
            ConfigError: an option is unknown, cannot be followed, or has a wrong value, the host is no host name, or
                there is no credential provider of the name.
        """
        for name, value in options.items():
            if (name in _REFUSED and value) or _is_unknown(name, known_only=known_only):
                known = ", ".join(sorted(_READ | _TLS))
                raise ConfigError(where, expected=f"options that this client follows: {known}", got=name)
        given: dict[str, Any] = {n: value for n, value in options.items() if n in _READ and value is not None}
        tls = {name: value for name, value in options.items() if name in _TLS and value is not None}
        if transport != TLS and tls and known_only:
            raise ConfigError(where, expected="rediss:// with TLS options", got=", ".join(tls))
        try:
            given |= {name: int(given[name]) for name in ("db", "port") if name in given}
        except (TypeError, ValueError):
            raise ConfigError(where, expected="numbers for db and port", got="others") from None
        if "host" in given:
            check_host(given["host"], where)
        if isinstance(given.get("credential_provider"), str):  # of a URL
            if "username" in given or "password" in given:
                raise ConfigError(where, expected="a password or a credential provider", got="both")
            given["credential_provider"] = provider_named(given["credential_provider"], where)
        return cls(transport, tls=Tls(tls) if transport == TLS else None, **given)

    @property
    def shown(self) -> str:
        """A URL without a user and a password."""
        if self.transport == UNIX:
            return f"unix://{self.path}"
        scheme = "rediss" if self.transport == TLS else "redis"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    def credentials(self) -> tuple[str, ...]:
        """The arguments of AUTH; empty without a user and password. A credential provider may take long.

        Raises:
            StoreConnectionError: the credential provider raises an error, or returns something else than a password
                with or without a user.
        """
        if self.credential_provider is not None:
            return credentials_of(self.credential_provider)
        if self.username:
            return self.username, self.password
        return (self.password,) if self.password else ()

    @property
    def provider(self) -> Any:
        """The credential provider for redis-py's own connections: its errors are this library's too."""
        provider = self.credential_provider
        # redis-py calls other methods of a provider of streams, by which it authenticates open connections again.
        return provider if provider is None or hasattr(provider, "on_next") else _Provider(self)

    def greeting(self, credentials: Sequence[str]) -> list[bytes]:
        """The first commands of a connection. They are sent at once, and each has one reply.

        The connection stays in RESP 2, in which every connection begins: there nil is the same for every type, and the
        server sends only replies.
        """
        commands: list[tuple[str, ...]] = []
        if credentials:
            commands.append(("AUTH", *credentials))
        if self.client_name:
            commands.append(("CLIENT", "SETNAME", self.client_name))
        if self.db:
            commands.append(("SELECT", str(self.db)))
        if self.is_readonly:
            commands.append(("READONLY",))
        if self.is_master:
            commands.append(("ROLE",))
        return [packed(*(word.encode() for word in command)) for command in commands]


class _Provider:
    """A credential provider of redis-py that gives the credentials of an address."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def get_credentials(self) -> tuple[str, ...]:
        """See redis.CredentialProvider."""
        return self._address.credentials()


_FILES = ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_path")


def is_replica(replies: Sequence[Any]) -> bool:
    """Whether the replies to a greeting tell that a server is a replica or a Sentinel. A user without permission for
    ROLE does not learn the role; a replica then refuses writes."""
    role = replies[-1] if replies else None
    return isinstance(role, list) and bool(role) and role[0] in (b"slave", b"replica", b"sentinel")


def _is_unknown(name: str, *, known_only: bool) -> bool:
    known = name in _READ or name in _TLS or name in _OWN or name in _REFUSED
    return not known and (known_only or name.startswith("ssl"))


def _tls_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    import ssl

    required = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
    wanted = options.get("ssl_cert_reqs", "required")
    mode = required[wanted] if isinstance(wanted, str) and wanted in required else ssl.VerifyMode(wanted)
    context = ssl.create_default_context()
    context.check_hostname = mode != ssl.CERT_NONE and bool(options.get("ssl_check_hostname", True))
    context.verify_mode = mode
    for flag in options.get("ssl_include_verify_flags") or ():
        context.verify_flags |= flag
    for flag in options.get("ssl_exclude_verify_flags") or ():
        context.verify_flags &= ~flag
    if "ssl_certfile" in options or "ssl_keyfile" in options:
        certificate = options.get("ssl_certfile") or options["ssl_keyfile"]
        context.load_cert_chain(certificate, options.get("ssl_keyfile"), options.get("ssl_password"))
    authorities = [options.get(name) for name in ("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data")]
    if any(item is not None for item in authorities):
        context.load_verify_locations(*authorities)
    if "ssl_min_version" in options:
        context.minimum_version = ssl.TLSVersion(options["ssl_min_version"])
    if "ssl_ciphers" in options:
        context.set_ciphers(options["ssl_ciphers"])
    return context


def check_host(host: str, where: str) -> None:
    """Check that a resolver takes a text as a host: Python encodes it by IDNA first, and raises a UnicodeError.

    Args:
        host: a name or an IP address.
        where: the origin of the host, for errors.

    Raises:
        ConfigError: it cannot be the name of a host, such as `a..b`.
    """
    try:
        host.encode("idna")
    except UnicodeError:
        raise ConfigError(where, expected="a host name, whose parts have 1 to 63 characters", got=repr(host)) from None
