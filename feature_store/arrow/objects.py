"""Objects in S3, Google Cloud Storage, Azure and on web servers: the door of obstore, which lists and reads them.

Credentials, endpoints and regions come from the environment, under the names that obstore documents
(`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_KEY`, …). Requests that fail
for a time are repeated by obstore.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from feature_store._redaction import hide, without_secrets
from feature_store.definitions.file_url import WEB, check_file_url, scheme_of
from feature_store.errors import DataError

_STORES: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "http": HTTPStore, "https": HTTPStore}
_VARIABLES = {"s3": "AWS_", "gs": "GOOGLE_"}
_AZURE_VARIABLES = "AZURE_"
_SECRET = re.compile(r"(?i)pass|secret|token|key|credential|sig")
CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S, RETRY_TIMEOUT_S, MOST_RETRIES = 5, 60, 30, 5
_REFUSED = re.compile(r"status code: (40[13])")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_CAUSE = re.compile(r"(?:HTTP error: |status code: )([^:<\n]+)")
_BUCKETS = ("NoSuchBucket", "ContainerNotFound")


class StoredObject(NamedTuple):
    """An object, as its store describes it.

    Attributes:
        url: the URL.
        size: the size in bytes.
        modified_ns: the time of the last change, in nanoseconds since 1970, rounded down to seconds.
        etag: the entity tag of the content, empty if the store has none.
    """

    url: str
    size: int
    modified_ns: int
    etag: str


def listed(url: str) -> Iterator[StoredObject]:
    """The objects below a folder, in no particular order.

    Args:
        url: the folder, without a slash at its end.

    Raises:
        DataError: the store cannot be reached, refuses access, has no such bucket, or cannot list.
    """
    if scheme_of(url) in WEB:
        problem = "a web server does not list its files"
        raise DataError(
            f"source {url}", problem=problem, hint="name one file, or read the folder from its object store"
        )
    root, key = _split(url)
    with _object_errors(url):
        for chunk in obstore.list(_store(root), key or None):
            for about in chunk:
                yield _described(f"{root}/{about['path']}", about)


def described(url: str) -> StoredObject | None:
    """An object, or None if there is none of this URL.

    Raises:
        DataError: the store cannot be reached, or refuses access.
    """
    root, key = _split(url)
    if not key:
        return None
    try:
        with _object_errors(url):
            return _described(url, obstore.head(_store(root), key))
    except FileNotFoundError:
        return None


def range_of(url: str, begin: int, end: int, etag: str = "") -> memoryview:
    """Some bytes of an object.

    Args:
        url: the URL.
        begin, end: the range `[begin, end)`.
        etag: the tag that the object must have. Empty: it is not compared.

    Raises:
        DataError: the object is missing or has another tag, or the store cannot be reached or refuses access.
    """
    root, key = _split(url)
    options: Any = {"range": (begin, end)} | ({"if_match": etag} if etag else {})
    try:
        with _object_errors(url):
            return memoryview(obstore.get(_store(root), key, options=options).bytes())
    except FileNotFoundError as error:
        raise changed(url, "removed") from error


def lake_options(url: str) -> dict[str, str]:
    """The options with which deltalake reads a table at a URL. It takes credentials from the environment itself."""
    settings = _settings(url)
    return {
        "allow_http": str(_is_plain(url, settings)).lower(),
        "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
        "timeout": f"{REQUEST_TIMEOUT_S}s",
        "max_retries": str(MOST_RETRIES),
        "retry_timeout": f"{RETRY_TIMEOUT_S}s",
    }


def is_compared(url: str, etag: str) -> bool:
    """Whether a store compares the tag of an object in each request, so that no read sees another version."""
    return bool(etag) and not etag.startswith("W/") and scheme_of(url) not in WEB


def changed(url: str, what: str) -> DataError:
    """The error for an object that was not the same during a read."""
    problem = f"{url.rpartition('/')[2]} was {what} while it was read, so nothing of it is recorded as done"
    hint = "run this again when no program writes to the object; write a new version under a new name"
    return DataError(url, problem=problem, hint=hint)


def _described(url: str, about: Any) -> StoredObject:
    modified_ns = int(about["last_modified"].timestamp()) * 1_000_000_000
    return StoredObject(url, about["size"], modified_ns, about["e_tag"] or "")


def _split(url: str) -> tuple[str, str]:
    """The URL of a bucket or server, and the key of the object in it."""
    scheme, _, rest = check_file_url(f"source {url}", url).partition("://")
    place, _, key = rest.partition("/")
    return f"{scheme}://{place}", (unquote(key) if scheme.lower() in WEB else key).rstrip("/")


def _store(root: str) -> Any:
    return _opened(root, _settings(root))


def _settings(url: str) -> tuple[tuple[str, str], ...]:
    """The variables of the environment for a URL. No error shows their secrets from now on."""
    prefix = _prefix(url)
    found = tuple(sorted((name, value) for name, value in os.environ.items() if prefix and name.startswith(prefix)))
    for name, value in found:
        if _SECRET.search(name):
            hide(value)
    return found


def _prefix(root: str) -> str:
    scheme = scheme_of(root)
    return "" if scheme in WEB else _VARIABLES.get(scheme, _AZURE_VARIABLES)


@lru_cache(maxsize=64)
def _opened(root: str, settings: tuple[tuple[str, str], ...]) -> Any:
    """The store of a URL. Its connections are used again until the settings in the environment change."""
    kind = _STORES.get(scheme_of(root), AzureStore)
    seconds = f"{REQUEST_TIMEOUT_S}s"
    options: Any = {
        "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
        "timeout": seconds,
        "allow_http": _is_plain(root, settings),
    }
    retries: Any = {"max_retries": MOST_RETRIES, "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S)}
    with _object_errors(root):
        return kind.from_url(root, client_options=options, retry_config=retries)


def _is_plain(root: str, settings: tuple[tuple[str, str], ...]) -> bool:
    """Whether connections need no TLS: the URL of the endpoint says so, or a setting."""
    texts = [value.lower() for name, value in settings if "ENDPOINT" in name]
    flags = [value.lower() for name, value in settings if name.endswith(("ALLOW_HTTP", "USE_EMULATOR"))]
    return root.startswith("http://") or any(text.startswith("http://") for text in texts) or "true" in flags


@contextlib.contextmanager
def _object_errors(url: str) -> Iterator[None]:
    """A block that calls obstore, whose errors become DataErrors. A missing object stays a FileNotFoundError."""
    try:
        yield
    except PreconditionError as error:
        raise changed(url, "changed") from error
    except (BaseError, OSError, ValueError) as error:
        if isinstance(error, (DataError, FileNotFoundError)):
            raise
        raise DataError(f"source {url}", problem=_problem(url, error), hint=_hint(url, error)) from None


def _problem(url: str, error: Exception) -> str:
    text = str(error)
    found = _CODE.search(text)
    code = f" ({found[1]})" if found else ""
    if _is_refused(error):
        return f"the store refuses access{code}"
    if found and found[1] in _BUCKETS:
        return f"there is no bucket {url.partition('://')[2].partition('/')[0]}"
    cause = _CAUSE.search(text)
    if cause:
        return f"the store cannot be read: {cause[1].strip()}{code}"
    return f"the store cannot be read: {without_secrets(text.partition(chr(10))[0])}"


def _hint(url: str, error: Exception) -> str:
    if _is_refused(error) or "169.254.169.254" in str(error):
        return f"set the credentials in the environment of the process ({_prefix(url)}…), and check their permissions"
    return (
        "check the URL, the endpoint and the region in the environment, and that the server runs; then run this again"
    )


def _is_refused(error: Exception) -> bool:
    return isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or bool(_REFUSED.search(str(error)))
