"""Fields that are parts of the Kafka message around its value: its key, a header, its place and its time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from feature_store.definitions.dtypes import Timestamp
from feature_store.definitions.field import Field
from feature_store.errors import DefinitionError, did_you_mean

HEADER = "headers."
# By part, the kinds of types that its field may have; None: any, since the part is bytes.
_TYPES: dict[str, frozenset[str] | None] = {
    "key": None,
    "topic": frozenset({"String"}),
    "partition": frozenset({"Int32", "Int64"}),
    "offset": frozenset({"Int64"}),
    "timestamp": frozenset({"Timestamp"}),
}
_PARTS = re.compile(rf"{'|'.join(_TYPES)}|headers\..+")


def check_metadata(metadata: Mapping[str, str], fields: Sequence[Field], event_timestamp: str) -> None:
    """Raise a DefinitionError if a name is no field, a part does not exist, or the field's type does not fit it."""
    types = {field.name: field.dtype for field in fields} | {event_timestamp: Timestamp}
    for name, part in metadata.items():
        where = f"metadata[{name!r}]"
        if name not in types:
            hint = did_you_mean(name, list(types)) or "add a Field of that name to schema"
            raise DefinitionError(where, problem="neither schema nor event_timestamp has that name", hint=hint)
        if not _PARTS.fullmatch(part):
            known = [*_TYPES, f"{HEADER}<name>"]
            raise DefinitionError(where, expected=f"one of {', '.join(known)}", got=repr(part))
        allowed = _TYPES.get(part)
        if allowed is not None and types[name].scalar.kind not in allowed:
            expected = f"a field of {' or '.join(sorted(allowed))}, as the {part} of a message is"
            raise DefinitionError(where, expected=expected, got=str(types[name]))
