"""The contract of a scalar type: which Python values fit it, and how a value is parsed, stored and written to JSON.

A value has three forms, and each scalar type converts between them:

    canonical   the Python value that users see: an int, a str, a datetime
    stored      one element of a numpy array of `code`, as rows and tiles hold it: a Timestamp is an int64
    JSON        as definitions and serving plans hold a default
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

Stored = np.ndarray[Any, np.dtype[Any]]


class Scalar(ABC):
    """A scalar type.

    Attributes:
        name: the type as users write it.
        kind: the name without parameters, by which tables of other packages know the type.
        code: numpy code of one stored value, little-endian; empty when values have no fixed width.
        expected: the values that fit, as an error names them.
        is_number: a range (`min`, `max`) can be declared.
        is_summed: sums, means, minima and maxima can be computed.
        is_listed: a list of `allowed` values can be declared.
        key_code: of a type that entity keys may have, the `struct` code of a key; empty for text. None: no key type.
        constants: the Python types that a filter may compare values with.
        not_in_matrix: a hint, if a float32 matrix cannot hold values of the type; else empty.
        is_stored_as_is: the stored form of a value is the canonical one.
        is_text_in_json: JSON has values as text, which `parse` reads.
        zero: an example of a canonical value.
        blank: the stored value that an on-demand function sees in place of a missing one.
    """

    is_number: ClassVar[bool] = False
    is_summed: ClassVar[bool] = False
    is_listed: ClassVar[bool] = False
    constants: ClassVar[tuple[type, ...]] = ()
    is_stored_as_is: ClassVar[bool] = True
    is_text_in_json: ClassVar[bool] = False
    zero: Any = 0
    blank: ClassVar[Any] = 0

    def __init__(
        self, name: str, code: str, expected: str, *, key_code: str | None = None, not_in_matrix: str = ""
    ) -> None:
        self.name, self.code, self.expected = name, code, expected
        self.kind = name.partition("(")[0]
        self.key_code, self.not_in_matrix = key_code, not_in_matrix

    @abstractmethod
    def fit(self, value: Any) -> Any:
        """The canonical form of a Python or numpy value; None: it does not fit."""

    @abstractmethod
    def parse(self, text: str) -> Any:
        """Parse a typed value to a form that `fit` takes.

        Raises:
            ValueError: the text is not such a value.
        """

    def to_json(self, value: Any) -> Any:
        """The JSON form of a canonical value."""
        return value

    def from_json(self, value: Any) -> Any:
        """The inverse of `to_json`."""
        return value

    def to_stored(self, value: Any) -> Any:
        """The stored form of a canonical value."""
        return value

    def from_stored(self, values: Iterable[Any]) -> list[Any]:
        """Stored values, as `ndarray.tolist()` returns them, as canonical values.

        Raises:
            OverflowError: a stored value is outside of the type's range.
        """
        return list(values)

    def to_numbers(self, stored: Stored) -> Stored:
        """Stored values as numbers, which a matrix rounds to float32. Only for types that a matrix can hold."""
        return stored

    def to_bytes(self, value: Any) -> bytes:
        """A canonical value without a fixed width, as its bytes in Redis.

        Raises:
            UnicodeEncodeError: UTF-8 cannot hold a text.
            TypeError: values have a fixed width.
        """
        raise TypeError(f"{self.name} has a fixed width")

    def from_bytes(self, encoded: bytes) -> Any:
        """The inverse of `to_bytes`.

        Raises:
            ValueError: the bytes are not a value of the type.
            TypeError: values have a fixed width.
        """
        raise TypeError(f"{self.name} has a fixed width")
