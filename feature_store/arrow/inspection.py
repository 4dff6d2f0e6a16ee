"""Counts the values of staged rows that break the expectations of their fields. The rows are not changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from feature_store.definitions.expected import unexpected
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.field import Field
from feature_store.online.batch import RowBatch, Values

_SHOWN = 200  # characters of an example


@dataclass(frozen=True)
class FieldCounts:
    """Counts of one field: rows without a value, unexpected values, and the first unexpected value as an example."""

    nulls: int = 0
    unexpected: int = 0
    example: str = ""

    def plus(self, other: FieldCounts) -> FieldCounts:
        """The sum of both counts."""
        return FieldCounts(self.nulls + other.nulls, self.unexpected + other.unexpected, self.example or other.example)


@dataclass(frozen=True)
class Breach:
    """An expectation that the rows break.

    Attributes:
        field: the name of the field.
        expected: the expectation, in words.
        got: the difference, in words, with an example.
        rows: the number of rows that differ.
        of: the number of all rows.
    """

    field: str
    expected: str
    got: str
    rows: int
    of: int

    def __str__(self) -> str:
        return f"{self.field}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True)
class Inspection:
    """Counts over rows: their number, and the counts of each field with an expectation. Plain, picklable data."""

    rows: int = 0
    fields: Mapping[str, FieldCounts] = field(default_factory=dict)

    def plus(self, other: Inspection) -> Inspection:
        """The sum of both inspections. The first example of a field is kept."""
        names = dict.fromkeys([*self.fields, *other.fields])
        none = FieldCounts()
        counts = {name: self.fields.get(name, none).plus(other.fields.get(name, none)) for name in names}
        return Inspection(self.rows + other.rows, counts)

    def breaches(self, view: FeatureView) -> list[Breach]:
        """The expectations of the view's fields that the rows break."""
        found = []
        for declared in view.fields:
            counts = self.fields.get(declared.name, FieldCounts())
            if counts.unexpected:
                got = f"another value in {counts.unexpected:,} of {self.rows:,} rows, such as {counts.example}"
                found.append(Breach(declared.name, _values_expected(declared), got, counts.unexpected, self.rows))
            most = declared.max_null_rate
            if most is not None and counts.nulls > most * self.rows:
                got = f"{counts.nulls:,} of {self.rows:,}"
                expected = f"null in at most {most:g} of rows"
                found.append(Breach(declared.name, expected, got, counts.nulls, self.rows))
        return found


def expects(view: FeatureView) -> bool:
    """Whether a field of a view has an expectation."""
    return any(declared.expectation for declared in view.fields)


def inspect(batch: RowBatch, view: FeatureView) -> Inspection:
    """The inspection of a batch."""
    found = {}
    for declared in view.fields:
        if declared.expectation:
            values = batch.columns[declared.name]
            wrong = unexpected(values.values, values.nulls, declared)
            nulls = 0 if values.nulls is None else int(np.count_nonzero(values.nulls))
            places = np.flatnonzero(wrong)
            example = _example(batch, values, int(places[0])) if len(places) else ""
            found[declared.name] = FieldCounts(nulls, len(places), example)
    return Inspection(len(batch), found)


def _example(batch: RowBatch, values: Values, place: int) -> str:
    key = ", ".join(f"{name}={column[place]}" for name, column in batch.keys.items())
    value = values.values[place]
    shown = value.item() if isinstance(value, np.generic) else value
    return f"{shown!r} of {key}"[:_SHOWN]


def _values_expected(declared: Field) -> str:
    return declared.of_values
