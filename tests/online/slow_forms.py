"""The forms of an answer made value by value, which is slow and obviously right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from feature_store.online.arrow import arrow_type
from feature_store.online.codec import python_values
from feature_store.online.decode import row_status
from feature_store.online.status import Status

if TYPE_CHECKING:
    from feature_store.online import OnlineResponse
    from feature_store.online.answer import Answer
    from feature_store.online.column import ServedColumn


def python_column(column: ServedColumn, answer: Answer) -> list[Any]:
    """The n exact values as Python has them; where there is no value, the default or None."""
    values = column.values(answer)
    listed = answer.per_row(column.group, values if isinstance(values, list) else python_values(column.dtype, values))
    statuses = row_status(column, answer).tolist()
    return [
        value if status == Status.PRESENT else column.default for value, status in zip(listed, statuses, strict=True)
    ]


def slow_dict(response: OnlineResponse) -> dict[str, list[Any]]:
    """What `to_dict()` must return."""
    return {name: python_column(column, response.answer) for name, column in response.service.columns.items()}


def slow_table(response: OnlineResponse) -> pa.Table:
    """What `to_arrow()` must return."""
    types = {name: arrow_type(column.dtype) for name, column in response.service.columns.items()}
    return pa.table({name: pa.array(values, types[name]) for name, values in slow_dict(response).items()})
