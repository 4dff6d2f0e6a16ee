"""On-demand views: features computed when they are asked for, by the same function offline."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field as Attribute
from pydantic import PrivateAttr, field_validator, model_validator

from feature_store.definitions.definition import refuse_repeats
from feature_store.definitions.feature_view import FeatureView, Projectable, Projection
from feature_store.definitions.field import refuse_expectations
from feature_store.definitions.source import RequestSource
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feature_store.definitions.field import Field

    Columns = dict[str, np.ndarray[Any, Any]]
    Transform = Callable[[Columns], Columns]


class OnDemandFeatureView(Projectable):
    """Features that a numpy function computes from other features and from request fields.

    The function takes `{input: array of n values}` and returns `{output: array of n values}`. It is strict: where an
    input is null and has no default, the outputs of that row are null whatever the function made of the placeholder
    it was shown (NaN for floats, zero for the rest).

    Args:
        name: the view's name.
        sources: views, projections of views, and request sources whose fields are the function's inputs.
        schema: what the function returns.
        function: a function at the top level of an importable module.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: an argument is not allowed, or two inputs have the same name.
    """

    projections: tuple[Projection, ...]
    requests: tuple[RequestSource, ...]
    function: str = Attribute(description="module:qualname of the function")
    digest: str = Attribute(description="hash of the function's code, so that serving runs what was applied")
    _transform: Transform | None = PrivateAttr(default=None)

    def __init__(
        self,
        name: str,
        *,
        schema: Sequence[Field],
        function: Transform | str,
        sources: Sequence[FeatureView | StreamFeatureView | Projection | RequestSource] = (),
        **stored: Any,
    ) -> None:
        if callable(function):
            stored |= {"digest": code_digest(function), **_split(name, sources)}
            function_name = f"{_module_of(function)}:{function.__qualname__}"
            super().__init__(name=name, schema=schema, function=function_name, **stored)
            self._transform = function
        else:  # a document: the function is found by its name when it is needed
            super().__init__(name=name, schema=schema, function=function, **stored)

    @field_validator("fields")
    @classmethod
    def _outputs_have_fixed_width(cls, fields: tuple[Field, ...]) -> tuple[Field, ...]:
        for i, field in enumerate(fields):
            if field.dtype.element is not None:
                raise DefinitionError(f"schema[{i}].dtype", expected="a scalar type", got=str(field.dtype))
        return fields

    @model_validator(mode="after")
    def _inputs_are_unique(self) -> OnDemandFeatureView:
        refuse_repeats([field.name for field in self.fields], "schema")
        refuse_expectations(self.fields, "schema")
        names = [served for projection in self.projections for _, served in projection.columns]
        names += [field.name for request in self.requests for field in request.fields]
        try:
            refuse_repeats(names, "sources")
        except DefinitionError as error:
            raise DefinitionError(
                error.where, expected=error.expected, got=error.got, hint='rename one: view[["a"]].rename({"a": "b"})'
            ) from None
        return self

    def __call__(self, inputs: Columns) -> Columns:
        """Run the function.

        Raises:
            DefinitionError: the view was read from a registry, which holds no code.
        """
        if self._transform is None:
            raise DefinitionError(f"{self.name}()", expected="its function", got=f"only its name, {self.function}")
        return self._transform(inputs)


def on_demand_feature_view(
    *,
    sources: Sequence[FeatureView | StreamFeatureView | Projection | RequestSource],
    schema: Sequence[Field],
    name: str | None = None,
    **about: Any,
) -> Callable[[Transform], OnDemandFeatureView]:
    """Decorate the function of an on-demand view; the view takes the function's name and docstring unless given.

    Raises:
        DefinitionError: as OnDemandFeatureView.
    """

    def decorate(function: Transform) -> OnDemandFeatureView:
        described = {"description": inspect.getdoc(function) or ""} | about
        return OnDemandFeatureView(
            name or function.__name__, sources=sources, schema=schema, function=function, **described
        )

    return decorate


def code_digest(function: Transform) -> str:
    """A hash of a function's code that does not change with its comments, layout or place in the file."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):  # typed in at a prompt: there is no source to read
        return (
            "bytecode:"
            + hashlib.sha256(function.__code__.co_code + repr(function.__code__.co_consts).encode()).hexdigest()[:32]
        )
    definition = tree.body[0]
    if isinstance(definition, (ast.FunctionDef, ast.AsyncFunctionDef)):
        definition.decorator_list = []
        if ast.get_docstring(definition) is not None:
            definition.body = definition.body[1:] or [ast.Pass()]
    return "source:" + hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:32]


def _module_of(function: Transform) -> str:
    """The module of a function as its project imports it: definition files are loaded under private names."""
    name: str = getattr(function, "__globals__", {}).get("__definitions_name__", function.__module__)
    return name


def _split(name: str, sources: Sequence[Any]) -> dict[str, Any]:
    projections, requests = [], []
    for i, source in enumerate(sources):
        match source:
            case FeatureView() | StreamFeatureView():
                projections.append(source.project())
            case Projection():
                projections.append(source)
            case RequestSource():
                requests.append(source)
            case _:
                raise DefinitionError(
                    f"OnDemandFeatureView({name!r}).sources[{i}]",
                    expected="a view, a projection of one, or a RequestSource",
                    got=repr(source),
                )
    return {"projections": projections, "requests": requests}
