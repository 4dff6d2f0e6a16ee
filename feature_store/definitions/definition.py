"""The base of everything that users define: frozen, described, owned, and validated with errors that say where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic import Field as Attribute

from feature_store.definitions.names import MOST_CHARACTERS, PATTERN
from feature_store.errors import DefinitionError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Name = Annotated[str, StringConstraints(pattern=PATTERN, max_length=MOST_CHARACTERS)]
Tags = Annotated[dict[str, str], Attribute(default_factory=dict)]


class Model(BaseModel):
    """A frozen pydantic model whose validation errors are DefinitionErrors with the path of what is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str] = "definition"

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _as_definition_error(type(self).__name__, values.get("name"), error) from None


class Definition(Model):
    """What has a name and can be listed, described and owned."""

    name: Name
    description: str = ""
    owner: str = ""
    tags: Tags

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)

    def __hash__(self) -> int:
        return hash((type(self), self.name))


def refuse_repeats(names: list[str], where: str) -> None:
    """Raise a DefinitionError when a name occurs twice."""
    for i, name in enumerate(names):
        if name in names[:i]:
            raise DefinitionError(f"{where}[{i}]", expected="names that differ", got=f"{name!r} twice")


def _as_definition_error(model: str, name: Any, error: ValidationError) -> DefinitionError:
    detail = error.errors(include_url=False)[0]
    nested = detail.get("ctx", {}).get("error")
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    where = f"{model}({name!r}){path}" if isinstance(name, str) else f"{model}{path}"
    if isinstance(nested, DefinitionError):
        return DefinitionError(f"{where}.{nested.where}", expected=nested.expected, got=nested.got, hint=nested.hint)
    return DefinitionError(where, expected=_expectation(detail), got=_shown(detail["input"]))


def _expectation(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "missing":
            return "a value"
        case "extra_forbidden":
            return "no such argument"
        case "string_pattern_mismatch":
            return "a name of letters, digits and underscores that does not start with a digit"
        case _:
            return detail["msg"].removeprefix("Value error, expected ").removeprefix("Value error, ")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
