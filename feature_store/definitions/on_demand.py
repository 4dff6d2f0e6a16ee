"""On-demand views: features that a function computes at the request, and the same function for training."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, Literal

import numpy as np
from pydantic import Field as Attribute, PrivateAttr, field_validator, model_validator

from feature_store.definitions.code_digest import source_digest
from feature_store.definitions.definition import refuse_repeats
from feature_store.definitions.feature_view import FeatureView, Projectable, Projection
from feature_store.definitions.field import Field, refuse_expectations
from feature_store.definitions.source import RequestSource
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.definitions.validation import as_list, shown
from feature_store.errors import DefinitionError

Columns = dict[str, np.ndarray[Any, Any]]
Transform = Callable[..., Columns]

Nulls = Literal["strict", "shown"]
_PARAMETERS = {"strict": ("inputs",), "shown": ("inputs", "nulls")}


class OnDemandFeatureView(Projectable):
    """Features that a numpy function computes from other features and from request fields.

    The function takes `{input: array of n values}` and returns `{output: array of n values}`, for any n, including 0.
    It may change the arrays in place. The inputs are:

    | input | array |
    |---|---|
    | Bool, Int8 to Int64, Float16 to Float64 | (n,) of that numpy type |
    | Decimal(p, s) | (n,) int64, units of 10**-s |
    | Date | (n,) int32, days since 1970 |
    | Timestamp | (n,) int64, microseconds since 1970 |
    | Array(T, length), T of fixed width | (n, length), elements as above |
    | String, Bytes | (n,) object, a str or bytes each |
    | Array(T), Array(String, length) | (n,) object, a list each |

    In place of a missing value, the function sees the input's default, else a placeholder: NaN, zero, an empty text or
    an empty list. With `nulls="strict"` the outputs of a row with a missing input are null, unless that input has a
    default. With `nulls="shown"` the function takes a second argument, `{input: (n,) bool array}`, True where the input
    is missing (even if it has a default), and its outputs are served as returned:

        @on_demand_feature_view(sources=[stats], schema=[Field("a_or_b", Float32)], nulls="shown")
        def either(inputs, nulls):
            return {"a_or_b": np.where(nulls["a"], inputs["b"], inputs["a"])}

    Outputs are arrays, or lists, of n values that fit the schema: no null, no NaT, no integer beyond the type. NaN is a
    float. A bool fits a number, an integer fits a float; a float does not fit an integer.

    Args:
        name: the view's name.
        sources: views, projections of views, and request sources whose fields are the function's inputs.
        schema: the outputs of the function.
        function: a function that is defined with `def` at the top level of a file.
        nulls: `strict` or `shown`, see above.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: an argument is not allowed, two inputs have the same name, or the function cannot be served.

    Example:
        >>> from feature_store import FeatureStore
        >>> with FeatureStore(".") as store:
        ...     basket = store.definitions.on_demand_feature_views["basket"]
        >>> [field.name for field in basket.schema]
        ['share_of_basket']
    """

    projections: tuple[Projection, ...]
    requests: tuple[RequestSource, ...]
    function: str = Attribute(description="module:name of the function, for display only")
    digest: str = Attribute(description="digest of the function's code, so that serving runs the applied function")
    nulls: Nulls = "strict"
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
            nulls = stored.get("nulls", "strict")
            if nulls not in _PARAMETERS:
                raise DefinitionError(
                    f"OnDemandFeatureView({name!r}).nulls", expected="strict or shown", got=repr(nulls)
                )
            inner = refuse_unservable(function, nulls)
            stored |= {"digest": code_digest(function, nulls), **_split(name, sources)}
            super().__init__(name=name, schema=schema, function=f"{_module_of(inner)}:{inner.__qualname__}", **stored)
            self._transform = function
        else:  # a document of a registry, which holds no code
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
            raise error.as_kind(DefinitionError, hint='rename one: view[["a"]].rename({"a": "b"})') from None
        return self

    def __call__(self, *arguments: Columns) -> Columns:
        """Run the function on its arguments.

        Raises:
            DefinitionError: the view was read from a registry, which holds no code.
        """
        if self._transform is None:
            problem = f"a view that was read from a registry has no function, only its name, {self.function}"
            raise DefinitionError(f"{self.name}()", problem=problem)
        return self._transform(*arguments)

    @property
    def has_function(self) -> bool:
        """Whether the view can be called. A view that was read from a registry cannot."""
        return self._transform is not None


def on_demand_feature_view(
    *,
    sources: Sequence[FeatureView | StreamFeatureView | Projection | RequestSource],
    schema: Sequence[Field],
    name: str | None = None,
    **about: Any,
) -> Callable[[Transform], OnDemandFeatureView]:
    """Decorate the function of an on-demand view. By default the view has the function's name and docstring.

    Raises:
        DefinitionError: as for OnDemandFeatureView.

    Example:
        >>> from feature_store import Field, Float32, RequestSource, on_demand_feature_view
        >>> request = RequestSource("request", [Field("price", Float32), Field("budget", Float32)])
        >>> @on_demand_feature_view(sources=[request], schema=[Field("share", Float32)])
        ... def affordability(inputs):
        ...     return {"share": inputs["price"] / inputs["budget"]}
        >>> affordability.name
        'affordability'
    """

    def decorate(function: Transform) -> OnDemandFeatureView:
        described = {"description": inspect.getdoc(function) or ""} | about
        return OnDemandFeatureView(
            name or function.__name__, sources=sources, schema=schema, function=function, **described
        )

    return decorate


def code_digest(function: Any, nulls: Nulls = "strict") -> str:
    """The digest of a function's code; see definitions/code_digest.py.

    Args:
        function: the function, or an on-demand view, which holds its digest.
        nulls: as for OnDemandFeatureView.

    Raises:
        DefinitionError: the function cannot be served.
    """
    if isinstance(function, OnDemandFeatureView):
        return function.digest
    return source_digest(refuse_unservable(function, nulls), "" if nulls == "strict" else f"nulls={nulls}")


def refuse_unservable(function: Any, nulls: Nulls | None = None) -> FunctionType:
    """The function without its decorators, if servers can run it.

    Args:
        function: the function to serve.
        nulls: as for OnDemandFeatureView; None: not known yet.

    Raises:
        DefinitionError: it is not a function at the top level of a file, or takes other arguments.
    """
    inner = inspect.unwrap(function) if callable(function) else function
    where = f"function {getattr(inner, '__qualname__', None) or repr(function)}"
    problem = _wrong_kind(function) or _wrong_kind(inner) or _wrong_place(inner)
    if not problem and nulls is not None:
        problem = _wrong_parameters(function, nulls)
    if problem:
        hint = "define it with `def` at the top level of a Python file: servers must find the same function again"
        raise DefinitionError(where, problem=problem, hint=hint)
    assert isinstance(inner, FunctionType)  # `_wrong_place` has checked it
    return inner


def _wrong_kind(function: Any) -> str:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "an async function cannot be served"
    if inspect.isgeneratorfunction(function):
        return "a generator cannot be served"
    return "a method cannot be served" if inspect.ismethod(function) else ""


def _wrong_place(function: Any) -> str:
    if not isinstance(function, FunctionType):
        return "an object that is called like a function cannot be served"
    if function.__name__ == "<lambda>":
        return "a lambda cannot be served"
    if "<locals>" in function.__qualname__:
        return "a function defined inside another function cannot be served"
    return "a method cannot be served" if "." in function.__qualname__ else ""


def _wrong_parameters(function: Any, nulls: Nulls) -> str:
    wanted = _PARAMETERS[nulls]
    try:
        inspect.signature(function).bind(*wanted)
    except TypeError:
        return f"it does not take the arguments of nulls={nulls!r}: ({', '.join(wanted)})"
    return ""


def has_digest(function: Any, digest: str, nulls: Nulls) -> bool:
    """Whether a function has a digest, of this release's kind or of an earlier release's."""
    if digest.startswith(("source:", "bytecode:")):
        return legacy_digest(function) == digest
    try:
        return code_digest(function, nulls) == digest
    except DefinitionError:  # it does not take the arguments for these nulls
        return False


def legacy_digest(function: Any) -> str:
    """The digest of releases before `v2:`, which starts with `source:` or `bytecode:`. Stored plans and registries
    hold it.

    It covers only the function itself and depends on the version of Python. Empty: the function has none.
    """
    function = function._transform if isinstance(function, OnDemandFeatureView) else function
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        code = getattr(function, "__code__", None)
        if code is None:
            return ""
        return "bytecode:" + hashlib.sha256(code.co_code + repr(code.co_consts).encode()).hexdigest()[:32]
    definition = tree.body[0]
    if isinstance(definition, (ast.FunctionDef, ast.AsyncFunctionDef)):
        definition.decorator_list = []
        if ast.get_docstring(definition) is not None:
            definition.body = definition.body[1:] or [ast.Pass()]
    return "source:" + hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:32]


def _module_of(function: FunctionType) -> str:
    """The module of a function under the name that its project imports: definition files have private names."""
    name: str = getattr(function, "__globals__", {}).get("__definitions_name__", function.__module__)
    return name


def _split(name: str, sources: Sequence[Any]) -> dict[str, Any]:
    projections, requests = [], []
    for i, source in enumerate(as_list(f"OnDemandFeatureView({name!r}).sources", "sources", sources)):
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
                    got=shown(source),
                )
    return {"projections": projections, "requests": requests}
