"""The base of everything that users define: frozen, described, owned, and validated with errors that say where."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_origin

from pydantic import BaseModel, ConfigDict, Field as Attribute, StringConstraints, ValidationError

from feature_store.definitions.names import MOST_CHARACTERS, PATTERN
from feature_store.definitions.validation import as_definition_error, as_list
from feature_store.errors import DefinitionError

Name = Annotated[str, StringConstraints(pattern=PATTERN, max_length=MOST_CHARACTERS)]
Tags = Annotated[dict[str, str], Attribute(default_factory=dict)]


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _Metaclass
else:
    _Metaclass = type(BaseModel)


class _Shown(_Metaclass):
    """Lets `help` and completion show what this library defines, and not the sixty names of pydantic's."""

    def __dir__(self) -> list[str]:
        own = {name for each in self.__mro__ if not issubclass(BaseModel, each) for name in vars(each)}
        return sorted(name for name in own if not name.startswith(("__pydantic", "model_", "_abc_")))


class Model(BaseModel, metaclass=_Shown):
    """A frozen pydantic model whose validation errors are DefinitionErrors with the path of what is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str] = "definition"

    def __init__(self, **values: Any) -> None:
        cls, name = type(self), values.get("name")
        where = f"{cls.__name__}({name!r})" if isinstance(name, str) else cls.__name__
        for attribute, field in cls.model_fields.items():
            argument = field.alias or attribute
            if get_origin(field.annotation) is tuple and argument in values:
                values[argument] = as_list(f"{where}.{argument}", argument, values[argument])
        try:
            super().__init__(**values)
        except ValidationError as error:
            arguments = [field.alias or attribute for attribute, field in cls.model_fields.items()]
            raise as_definition_error(where, arguments, error) from None
        except TypeError as error:
            if "__init__() " not in str(error):
                raise
            # Of a part that is given as a mapping, pydantic calls the class with what is in it.
            raise DefinitionError(where, expected="definitions", got=f"a mapping of arguments: {error}") from None

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Show the arguments of `__init__` where pydantic would show the fields, some of which follow from others."""
        signature = inspect.signature(cls.__init__)
        cls.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *type(self).model_fields})


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
