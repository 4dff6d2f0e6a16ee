"""On-demand functions, in serving and in training: prepare their inputs, call them, check their results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.definitions.dtypes import DType
from feature_store.errors import TransformError
from feature_store.online.codec import object_column
from feature_store.online.outputs import fitted_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.online.column import ServedColumn
    from feature_store.online.offered import Transform
    from feature_store.registry.serving_plan import TransformPlan

    Columns = dict[str, np.ndarray[Any, Any]]


class TransformInput(NamedTuple):
    """An input of an on-demand function.

    Attributes:
        name: the name of the input in the function.
        column: the column that is read; None for a field of the request.
        dtype: the type of the input.
        default: the value that the function gets for an absent value; None when there is no default.
    """

    name: str
    column: ServedColumn | None
    dtype: DType
    default: Any


class CompiledTransform(NamedTuple):
    """An on-demand view with its function and inputs.

    Attributes:
        plan: the view in the serving plan.
        function: the function that this process offers.
        inputs: the inputs of the function.
        digest: the digest of the function, one of those that the plan lists.
    """

    plan: TransformPlan
    function: Transform
    inputs: list[TransformInput]
    digest: str


def shown_input(
    item: TransformInput, values: np.ndarray[Any, Any] | Sequence[Any], absent: np.ndarray[Any, np.dtype[np.bool_]]
) -> np.ndarray[Any, Any]:
    """An input as its function gets it: an absent value is the default or, without a default, a placeholder.

    The array is a copy, so that a function may change it in place. For 1 row and for 200, the copy costs about as much
    as the search for absent values.

    Args:
        item: the input.
        values: (n,) of its numpy dtype, (n, length) for fixed-size arrays; Python values for types without fixed width.
        absent: (n,) bool, True where there is no value.
    """
    if item.dtype.width is None:
        return _own_objects(item, values, absent)
    shown = np.array(values)
    if absent.any():
        shown[absent] = _placeholder(item)
    return shown


def _own_objects(
    item: TransformInput, values: np.ndarray[Any, Any] | Sequence[Any], absent: np.ndarray[Any, np.dtype[np.bool_]]
) -> np.ndarray[Any, Any]:
    if item.dtype.element is None:
        blank = item.dtype.scalar.blank if item.default is None else item.default
        return object_column([blank if gone else value for value, gone in zip(values, absent.tolist(), strict=True)])
    blank = item.default or []
    # Rows of one entity share a list, and all rows share the default: each row gets a list of its own.
    return object_column([[*(blank if gone else value)] for value, gone in zip(values, absent.tolist(), strict=True)])


def decides_absence(transform: TransformPlan, item: TransformInput) -> bool:
    """Whether results are absent where this input is absent: the view is strict and the input has no default."""
    return transform.nulls == "strict" and item.column is not None and item.default is None


def run_transform(transform: CompiledTransform, inputs: Columns, nulls: Columns, count: int) -> Columns:
    """Call a function; returns `{output: (n,) array of its declared dtype}`.

    Args:
        transform: the on-demand view.
        inputs: `{input: array of n values}`, copies that the function may change.
        nulls: `{input: (n,) bool array}`, True where there is no value; used if the view declares `nulls="shown"`.
        count: n.

    Raises:
        TransformError: the function raised, or returned other names, lengths or types than its schema declares.
    """
    plan = transform.plan
    where = f"on-demand view {plan.name}"
    try:
        outputs = transform.function(inputs, nulls) if plan.nulls == "shown" else transform.function(inputs)
    except (Exception, SystemExit) as error:
        raise TransformError(where, problem=f"its function raised {type(error).__name__}: {error}") from error
    wanted = [field.name for field in plan.outputs]
    if not isinstance(outputs, dict) or outputs.keys() != set(wanted):
        got = list(outputs) if isinstance(outputs, dict) else type(outputs).__name__
        raise TransformError(where, expected=f"a dict of {wanted}", got=str(got)[:200])
    return {
        field.name: fitted_output(f"{plan.name}.{field.name}", DType.parse(field.dtype), outputs[field.name], count)
        for field in plan.outputs
    }


def _placeholder(item: TransformInput) -> Any:
    if item.default is not None:
        return item.dtype.to_stored(item.default)
    return item.dtype.scalar.blank
