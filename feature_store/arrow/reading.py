"""The errors of reading and writing data: what Arrow and the file system raise becomes a DataError."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from feature_store.errors import DataError


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Around code that reads or writes data.

    Args:
        where: what is read, for the error.

    Raises:
        DataError: Arrow, the file system or a decoder of text raised an error.
    """
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataError(where, expected="readable data", got=str(error)) from error
