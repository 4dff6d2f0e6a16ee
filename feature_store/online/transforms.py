"""On-demand functions, at serving time and in training: found by name, shown columns, run, their results checked."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.definitions.dtypes import DType
from feature_store.errors import TransformError
from feature_store.online.codec import object_column

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from feature_store.online.columns import TransformInput
    from feature_store.registry.serving_plan import TransformPlan

    Columns = dict[str, np.ndarray[Any, Any]]
    Transform = Callable[[Columns], Columns]


def find_transform(plan: TransformPlan, given: Mapping[str, Transform]) -> Transform:
    """The function that was applied: from `given` by the view's name, else imported as `module:qualname`.

    Raises:
        TransformError: it is not there, or its code is not what was applied.
    """
    from feature_store.definitions.on_demand import OnDemandFeatureView, code_digest

    function: Any = given.get(plan.name) or _imported(plan)
    digest = function.digest if isinstance(function, OnDemandFeatureView) else code_digest(function)
    if digest != plan.digest:
        raise TransformError(
            f"on-demand view {plan.name}",
            expected=f"the function as applied ({plan.digest})",
            got=f"{plan.function} with other code ({digest})",
            hint="apply the changed definitions, or deploy the code that was applied",
        )
    return function  # type: ignore[no-any-return]


def shown_input(
    item: TransformInput, values: np.ndarray[Any, Any] | Sequence[Any], absent: np.ndarray[Any, np.dtype[np.bool_]]
) -> np.ndarray[Any, Any]:
    """An input as its function is shown it: where there is no value its default, else a placeholder.

    Args:
        item: the input.
        values: (n,) of its numpy dtype, (n, length) of fixed-size arrays; Python values of what has no fixed width.
        absent: (n,) where there is no value.
    """
    if item.dtype.width is None:
        placeholder = item.default if item.default is not None else "" if item.dtype.name == "String" else []
        return object_column(
            [placeholder if gone else value for value, gone in zip(values, absent.tolist(), strict=True)]
        )
    shown = np.asarray(values)
    if absent.any():
        shown = shown.copy()
        shown[absent] = _placeholder(item)
    return shown


def decides_absence(item: TransformInput) -> bool:
    """Whether a function's results are no values where this input is none: it is strict in what has no default."""
    return item.stored is not None and item.default is None


def run_transform(plan: TransformPlan, function: Transform, inputs: Columns, count: int) -> Columns:
    """Call the function on `{input: (n,) array}`; returns `{output: (n,) array of its declared dtype}`.

    Raises:
        TransformError: it raised, or returned other names, lengths or types than its schema says.
    """
    try:
        outputs = function(inputs)
    except Exception as error:
        raise TransformError(f"on-demand view {plan.name}", got=f"{type(error).__name__}: {error}") from error
    wanted = [field.name for field in plan.outputs]
    if not isinstance(outputs, dict) or sorted(outputs) != sorted(wanted):
        got = sorted(outputs) if isinstance(outputs, dict) else type(outputs).__name__
        raise TransformError(f"on-demand view {plan.name}", expected=f"a dict of {wanted}", got=str(got))
    return {
        field.name: _fitted(f"{plan.name}.{field.name}", DType.parse(field.dtype), outputs[field.name], count)
        for field in plan.outputs
    }


def _placeholder(item: TransformInput) -> Any:
    if item.default is not None:
        is_time = (item.dtype.element or item.dtype).name == "Timestamp"
        return item.dtype.to_json(item.default) if is_time else item.default
    return np.nan if item.dtype.numpy.kind == "f" else 0


def _imported(plan: TransformPlan) -> Any:
    module, _, qualname = plan.function.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise TransformError(
            f"on-demand view {plan.name}",
            expected=f"its function, {plan.function}",
            got=str(error),
            hint=f"put the module on the path, or pass transforms={{{plan.name!r}: function}} to the client",
        ) from None
    return found


def _fitted(where: str, dtype: DType, output: Any, count: int) -> np.ndarray[Any, Any]:
    array = np.asarray(output)
    if array.shape != (count,):
        raise TransformError(where, expected=f"an array of shape ({count},)", got=str(array.shape))
    if dtype.name == "String":
        return array.astype(object)
    if dtype.name == "Timestamp" and array.dtype.kind == "M":
        return array.astype("datetime64[us]").astype(np.int64)
    if not np.can_cast(array.dtype, dtype.numpy, "same_kind"):
        raise TransformError(where, expected=f"values of {dtype}", got=str(array.dtype))
    with np.errstate(over="ignore"):  # beyond float32 is inf, as numpy users expect
        fitted = array.astype(dtype.numpy)
    if dtype.numpy.kind == "i" and not np.array_equal(fitted, array):
        raise TransformError(where, expected=f"values of {dtype}", got=f"{array.dtype} values beyond it")
    return fitted
