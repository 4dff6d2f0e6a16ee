"""The features that aggregations of events make, for stream views and batch views alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from feature_store.definitions.aggregation import Aggregation
from feature_store.definitions.dtypes import DType
from feature_store.definitions.entity import Entity
from feature_store.definitions.expression import expression
from feature_store.definitions.field import Field
from feature_store.definitions.validation import as_list, shown
from feature_store.errors import DataError, DefinitionError
from feature_store.functions._contract import Takes

# By `Function.takes`: the columns that the function takes, in words, and a check of a column's type.
_TAKES: dict[Takes, tuple[str, Callable[[DType], bool]]] = {
    "any": ("a column", lambda _: True),
    "numbers": ("numbers", lambda dtype: dtype.element is None and dtype.scalar.is_summed),
    "fixed width": ("a fixed width", lambda dtype: dtype.width is not None and dtype.element is None),
    # The types that a filter can compare, without floats: a category must equal a value exactly.
    "categories": (
        "texts, integers or booleans",
        lambda dtype: dtype.element is None and bool(dtype.scalar.constants) and dtype.numpy.kind != "f",
    ),
}


def aggregated_features(where: str, events: str, columns: Sequence[Field], aggregations: Any) -> list[Field]:
    """The features of aggregations, one per window, named `{column}_{function}_{window}`.

    Args:
        where: the path of the aggregations, for errors.
        events: the source's name, for errors.
        columns: the columns of the events.
        aggregations: the aggregations of the view.

    Raises:
        DefinitionError: an aggregation reads a column that the events do not have, or of a type that it does not take.
    """
    known = {field.name: field.dtype for field in columns}
    features = []
    for i, aggregation in enumerate(as_list(where, "aggregations", aggregations)):
        if not isinstance(aggregation, Aggregation):
            raise DefinitionError(f"{where}[{i}]", expected="an Aggregation", got=shown(aggregation))
        _check_columns(f"{where}[{i}]", events, known, aggregation)
        dtype = aggregation.dtype(known[aggregation.column])
        features += [
            Field(aggregation.feature_name(window), dtype, default=dtype.from_json(aggregation.default))
            for window in aggregation.windows
        ]
    return features


def aggregated_columns(columns: Iterable[Field], aggregations: Iterable[Aggregation]) -> dict[str, DType]:
    """The columns that aggregations and their filters read, and columns with expectations, with their types."""
    columns = list(columns)
    wanted = {field.name for field in columns if field.of_values} | {
        name
        for aggregation in aggregations
        for name in (*aggregation.columns, *(expression(aggregation.filter).names if aggregation.filter else []))
    }
    return {field.name: field.dtype for field in columns if field.name in wanted}


def check_keys(entities: Sequence[Entity], events: str, columns: Sequence[Field]) -> None:
    """Raise a DefinitionError unless the events have the join keys of the entities."""
    known = {field.name: field.dtype for field in columns}
    for i, entity in enumerate(entities):
        if known.get(entity.join_key) != entity.dtype:
            dtype = known.get(entity.join_key)
            raise DefinitionError(
                f"entities[{i}]",
                expected=f"{entity.join_key!r} ({entity.dtype}) in the schema of {events}",
                got="none" if dtype is None else str(dtype),
            )


def check_names(aggregations: Iterable[Aggregation]) -> None:
    """Raise a DefinitionError if two aggregations make features of the same name."""
    names: dict[str, int] = {}
    for i, aggregation in enumerate(aggregations):
        for window in aggregation.windows:
            name = aggregation.feature_name(window)
            if names.setdefault(name, i) != i:
                hint = "give one of the aggregations a name"
                raise DefinitionError(f"aggregations[{i}]", problem=f"another aggregation makes {name}, too", hint=hint)


def _check_columns(where: str, events: str, known: dict[str, DType], aggregation: Aggregation) -> None:
    filtered = expression(aggregation.filter) if aggregation.filter else None
    for name in (*aggregation.columns, *(filtered.names if filtered else [])):
        if name not in known:
            raise DefinitionError(where, expected=f"a column of {events}: {', '.join(known)}", got=repr(name))
    function, dtype = aggregation.computes, known[aggregation.column]
    wanted, fits = _TAKES[function.takes]
    if not fits(dtype):
        hint = "declare the column as Float64, which takes decimals" if dtype.is_number and wanted == "numbers" else ""
        raise DefinitionError(f"{where}.column", expected=f"{wanted} for {function.name}", got=str(dtype), hint=hint)
    _check_categories(where, known, aggregation)
    for name in filtered.names if filtered else []:
        _check_constants(f"{where}.filter", name, known[name], filtered.constants_of(name) if filtered else [])


def _check_categories(where: str, known: dict[str, DType], aggregation: Aggregation) -> None:
    """Raise a DefinitionError unless the categories that a function counts are values of their column."""
    options = aggregation.options
    if "categories" not in options:
        return
    name = options.get("by") or aggregation.column
    wanted, fits = _TAKES["categories"]
    if not fits(known[name]):
        raise DefinitionError(f"{where}.by", expected=f"a column of {wanted}", got=f"{name}: {known[name]}")
    check_categories(f"{where}.categories", known[name], options["categories"])


def check_categories(where: str, dtype: DType, categories: Iterable[Any]) -> None:
    """Raise a DefinitionError unless a column of the type can have categories, and these are values of it."""
    wanted, fits = _TAKES["categories"]
    if not fits(dtype):
        raise DefinitionError(where, expected=f"a column of {wanted}", got=str(dtype))
    for i, category in enumerate(categories):
        try:
            dtype.fit(category, f"{where}[{i}]")
        except DataError as error:
            raise error.as_kind(DefinitionError) from None


def _check_constants(where: str, name: str, dtype: Any, constants: list[Any]) -> None:
    for constant in constants:
        if not isinstance(constant, dtype.scalar.constants):
            raise DefinitionError(where, expected=f"{name} compared with a value of {dtype}", got=repr(constant))
