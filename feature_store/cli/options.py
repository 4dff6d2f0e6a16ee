"""Options that several commands share, and how their text is parsed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.dtypes import DType
from feature_store.errors import DataError, RequestError, did_you_mean

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_time(text: str) -> datetime:
    """A time in ISO 8601, in UTC unless it names a zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"expected a time such as 2026-01-31 or 2026-01-31T12:00:00Z, got {text!r}") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def read_duration(text: str) -> timedelta:
    """A whole number and a unit: 90s, 30m, 36h, 7d, 2w."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if found is None:
        raise typer.BadParameter(f"expected a duration such as 30m, 36h or 7d, got {text!r}")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _time_option(about: str) -> Any:
    return typer.Option(parser=read_time, metavar="TIME", help=about)


Repo = Annotated[
    Path,
    typer.Option(
        "--repo",
        "-C",
        metavar="FOLDER",
        envvar="FEATURE_STORE_REPO",
        help="The folder of feature_store.yaml.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")]
Start = Annotated[datetime | None, _time_option("Start of the interval. Default: the end of the last run.")]
End = Annotated[datetime | None, _time_option("End of the interval. Default: now.")]
Now = Annotated[datetime | None, _time_option("Read as of this time.")]
Lookback = Annotated[
    timedelta | None,
    typer.Option(
        parser=read_duration,
        metavar="36h|7d",
        help="Read this much before the end of the last run again, for rows that changed in place.",
    ),
]


def read_counts(option: str, text: str, form: str = "ENTITY=COUNT, such as user=1,movie=200") -> dict[str, int]:
    """Numbers by name, from `ENTITY=COUNT[,…]`.

    Raises:
        RequestError: a part is not of this form, or a number is not positive.
    """
    counts = {}
    for part in text.split(","):
        name, _, count = part.partition("=")
        if not name or not count.isdigit() or int(count) < 1:
            raise RequestError(option, expected=form, got=repr(part))
        counts[name.strip()] = int(count)
    return counts


def read_entity_rows(arguments: Sequence[str], definitions: DefinitionSet) -> dict[str, Any]:
    """Entity rows from `name=value` or `name=value,value`. Texts with commas are given in JSON: `name=["a,b","c"]`.

    Raises:
        RequestError: an argument names neither a join key nor a request field, or its value is not of the type.
    """
    types = {entity.join_key: entity.dtype for entity in definitions.entities.values()}
    for view in definitions.on_demand_feature_views.values():
        types |= {field.name: field.dtype for request in view.requests for field in request.fields}
    return dict(_read_argument(argument, types) for argument in arguments)


def _read_argument(argument: str, types: Mapping[str, DType]) -> tuple[str, Any]:
    name, _, text = argument.partition("=")
    if name not in types:
        known = ", ".join(f"{known}=…" for known in types)
        hint = did_you_mean(name, types)
        raise RequestError(f"argument {argument}", expected=known or "no entity rows", got=repr(name), hint=hint)
    if text.startswith("["):
        import orjson

        try:
            return name, orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise RequestError(f"argument {name}", expected="a JSON list", got=f"{text}: {error}") from None
    values = [_read_value(name, part, types[name]) for part in text.split(",")]
    return name, values if len(values) > 1 else values[0]


def _read_value(name: str, text: str, dtype: DType) -> Any:
    try:
        return dtype.read(text, f"argument {name}")
    except DataError as error:
        raise error.as_kind(RequestError) from None
