"""The serving plan as the JSON document that Redis holds.

A document may come from another release, from a damaged Redis, or from anyone who can write to it. It is read only if
its format is known, its parts have the right types, and `soundness.py` finds nothing that no definitions can have made.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from feature_store.errors import DamagedPlanError, NotPublishedError
from feature_store.registry.serving_plan import FORMAT, ServingPlan
from feature_store.registry.soundness import MOST_BYTES, UnsoundError, refuse_unsound

if TYPE_CHECKING:  # pydantic is loaded when the first plan is read
    from pydantic import TypeAdapter, ValidationError

# Format 1 states for no segment that it has no creation times; such a plan is read as it was meant.
_READABLE = (1, FORMAT)
_STATED_FORMAT = re.compile(rb'"format"\s*:\s*(\d{1,6})')
_END_BYTES = 1_000
_MOST_ERRORS = 1_000


def plan_to_json(plan: ServingPlan) -> bytes:
    """The document that Redis holds."""
    return _adapter().dump_json(plan)


def plan_from_json(document: bytes) -> ServingPlan:
    """Read a document that `plan_to_json` wrote.

    Raises:
        NotPublishedError: the plan has a format that this release does not read.
        DamagedPlanError: the document is not a plan, or one that no definitions can have made.
    """
    from pydantic import ValidationError

    if len(document) > MOST_BYTES:
        raise _damaged(f"{len(document):,} bytes, more than {MOST_BYTES:,}")
    try:
        plan = _adapter().validate_json(document)
    except ValidationError as error:
        _refuse_other_format(_format_of(document))
        raise _damaged(_first_error(error)) from None
    except RecursionError:
        raise _damaged("one that is nested too deep") from None
    _refuse_other_format(plan.format)
    try:
        refuse_unsound(plan)
    except UnsoundError as error:
        raise _damaged(str(error)) from None
    return plan


def _refuse_other_format(number: int) -> None:
    if number not in _READABLE:
        raise NotPublishedError(
            "serving plan",
            expected=f"format {FORMAT}",
            got=f"format {number}",
            hint="run the library version that applied it; or tear down, apply and materialize with this one",
        )


def _format_of(document: bytes) -> int:
    """The format that a document states at its end; the current one if it states none there."""
    numbers = _STATED_FORMAT.findall(document[-_END_BYTES:])
    return int(numbers[-1]) if numbers else FORMAT


def _damaged(got: str) -> DamagedPlanError:
    return DamagedPlanError(
        "serving plan",
        expected="a plan that this version of the library reads",
        got=got,
        hint="run `feature-store apply`: it publishes the plan again and keeps what is stored",
    )


def _first_error(error: ValidationError) -> str:
    """The first part that does not fit. Beyond 1,000 parts only their number: pydantic makes all texts at once."""
    if error.error_count() > _MOST_ERRORS:
        return f"{error.error_count():,} parts that do not fit"
    first = error.errors(include_url=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc']))[:200]}: {first['msg'][:200]}".removeprefix(": ")


@cache
def _adapter() -> TypeAdapter[ServingPlan]:
    from pydantic import TypeAdapter

    return TypeAdapter(ServingPlan)
