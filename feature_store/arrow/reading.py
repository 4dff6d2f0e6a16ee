"""Maps errors of Arrow and of the file system, raised while data is read or written, to DataError."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from feature_store.errors import DataError


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """A block that reads or writes data.

    Args:
        where: names the data in the error.

    Raises:
        DataError: Arrow, the file system or a decoder of text raised an error.
    """
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataError(where, expected="readable data", got=str(error)) from error
