"""What the columns of a service, and the inputs of its on-demand functions, are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from feature_store.aggregates.windows import Window
    from feature_store.definitions.dtypes import DType
    from feature_store.online.layout import FieldLayout, SegmentLayout


class StoredColumn(NamedTuple):
    """A column whose values are stored: which group, segment and field."""

    group: int
    segment: SegmentLayout
    field: FieldLayout

    @property
    def dtype(self) -> DType:
        """The declared type."""
        return self.field.dtype

    @property
    def default(self) -> Any:
        """What is served where there is no value."""
        return self.field.default


class WindowColumn(NamedTuple):
    """A column that is finalized from tiles when it is read: which group, and the window."""

    group: int
    window: Window
    dtype: DType
    default: Any


class ComputedColumn(NamedTuple):
    """A column that an on-demand function returns."""

    transform: str
    output: str
    dtype: DType
    default: Any


class PrunedColumn(NamedTuple):
    """A column that a prune plan dropped and that is still served, as its default."""

    dtype: DType
    default: Any


class TransformInput(NamedTuple):
    """An input of an on-demand function: a column that is read, or (None) a field of the request."""

    name: str
    stored: StoredColumn | WindowColumn | None
    dtype: DType
    default: Any


Column = StoredColumn | WindowColumn | ComputedColumn | PrunedColumn
