"""The base of all definitions: frozen, described, owned, and validated with errors that name the argument."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_origin

from pydantic import BaseModel, ConfigDict, Field as Attribute, StringConstraints, ValidationError

from feature_store.definitions.names import MOST_CHARACTERS, PATTERN
from feature_store.definitions.validation import as_definition_error, as_list
from feature_store.errors import DefinitionError


@dataclass(frozen=True)
class OnChange:
    """What a change of an attribute means, declared at the attribute: `Annotated[int, OnChange("…")]`.

    An attribute without it (a name, a type, an entity) may change the layout of rows: `registry/diff.py` compares it.

    Attributes:
        effect: what `plan` says of the change; empty: it has no effect on stored and served values.
        keeps_meaning: the features mean the same after the change, so that a prune plan still fits them.
    """

    effect: str = ""
    keeps_meaning: bool = False


DESCRIPTIVE = OnChange(keeps_meaning=True)
Name = Annotated[str, StringConstraints(pattern=PATTERN, max_length=MOST_CHARACTERS)]
Tags = Annotated[dict[str, str], Attribute(default_factory=dict), DESCRIPTIVE]


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _Metaclass
else:
    _Metaclass = type(BaseModel)


class _Shown(_Metaclass):
    """Lets `help` and completion show the names of this library, without the sixty of pydantic."""

    def __dir__(self) -> list[str]:
        own = {name for each in self.__mro__ if not issubclass(BaseModel, each) for name in vars(each)}
        return sorted(name for name in own if not name.startswith(("__pydantic", "model_", "_abc_", "_lists")))


class Model(BaseModel, metaclass=_Shown):
    """A frozen pydantic model whose validation errors are DefinitionErrors with the path of the wrong argument."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _lists: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **values: Any) -> None:
        cls = type(self)
        for argument in cls._lists:
            if argument in values:
                values[argument] = as_list(f"{_where(cls, values)}.{argument}", argument, values[argument])
        try:
            super().__init__(**values)
        except ValidationError as error:
            arguments = [field.alias or attribute for attribute, field in cls.model_fields.items()]
            raise as_definition_error(_where(cls, values), arguments, error) from None
        except TypeError as error:
            if "__init__() " not in str(error):
                raise
            # For a mapping in place of a nested definition, pydantic calls the class with the mapping's members.
            problem = f"a mapping is given in place of a definition: {error}"
            raise DefinitionError(_where(cls, values), problem=problem) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Note the arguments that take lists, and give `help` the signature of `__init__`: pydantic would show the
        fields, some of which are computed.
        """
        fields = cls.model_fields.items()
        cls._lists = tuple(field.alias or name for name, field in fields if get_origin(field.annotation) is tuple)
        signature = inspect.signature(cls.__init__)
        cls.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *type(self).model_fields})


class Definition(Model):
    """A model with a name, description, owner and tags."""

    name: Name
    description: Annotated[str, DESCRIPTIVE] = ""
    owner: Annotated[str, DESCRIPTIVE] = ""
    tags: Tags

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)

    def __hash__(self) -> int:
        return hash((type(self), self.name))


def on_change(*models: type[Model]) -> Iterator[tuple[str, OnChange]]:
    """The attributes of models that declare what a change means."""
    for model in models:
        for name, attribute in model.model_fields.items():
            yield from ((name, declared) for declared in attribute.metadata if isinstance(declared, OnChange))


def _where(cls: type[Model], values: dict[str, Any]) -> str:
    name = values.get("name")
    return f"{cls.__name__}({name!r})" if isinstance(name, str) else cls.__name__


def refuse_repeats(names: list[str], where: str) -> None:
    """Raise a DefinitionError if a name occurs twice."""
    if len(set(names)) == len(names):
        return
    for i, name in enumerate(names):
        if name in names[:i]:
            raise DefinitionError(f"{where}[{i}]", problem=f"{name!r} occurs twice")
