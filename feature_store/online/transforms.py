"""On-demand functions, in serving and in training: they are shown their inputs, run, and their results checked."""

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
        name: the name that the function knows it by.
        column: the column that is read; None: it is a field of the request.
        dtype: its type.
        default: the value that the function is shown where there is none, or None.
    """

    name: str
    column: ServedColumn | None
    dtype: DType
    default: Any


class CompiledTransform(NamedTuple):
    """An on-demand view with its function and inputs.

    Attributes:
        plan: the view in the serving plan.
        function: the process's own function.
        inputs: its inputs.
        digest: the digest of the function, one of those that the plan lists.
    """

    plan: TransformPlan
    function: Transform
    inputs: list[TransformInput]
    digest: str


def shown_input(
    item: TransformInput, values: np.ndarray[Any, Any] | Sequence[Any], absent: np.ndarray[Any, np.dtype[np.bool_]]
) -> np.ndarray[Any, Any]:
    """An input as its function is shown it: where there is no value its default, else a placeholder.

    It is a copy of the function's own, so that a function may work in place and nothing else changes. For 1 row and for
    200, copying costs about as much as the look for absent values does.

    Args:
        item: the input.
        values: (n,) of its numpy dtype, (n, length) of fixed-size arrays; Python values of what has no fixed width.
        absent: (n,) where there is no value.
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
    # Rows of one entity share a list, and all rows the default: each row gets one of its own.
    return object_column([[*(blank if gone else value)] for value, gone in zip(values, absent.tolist(), strict=True)])


def decides_absence(transform: TransformPlan, item: TransformInput) -> bool:
    """Whether a function's results are no values where this input is none: it is strict in what has no default."""
    return transform.nulls == "strict" and item.column is not None and item.default is None


def run_transform(transform: CompiledTransform, inputs: Columns, nulls: Columns, count: int) -> Columns:
    """Call a function; returns `{output: (n,) array of its declared dtype}`.

    Args:
        transform: what to call.
        inputs: `{input: array of n values}`, the function's own.
        nulls: `{input: (n,) bool array}`, where there is no value, for a function that is shown it; see the definition.
        count: n.

    Raises:
        TransformError: it raised, or returned other names, lengths or types than its schema says.
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
