"""Kinds of definitions that packages may add to: sources and formats of messages.

A kind is a class, found by its name. Packages add kinds by an entry point group: the entry's name is the kind, its
object the class.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Generic, TypeVar

from feature_store.errors import DefinitionError, did_you_mean

T = TypeVar("T")


class Kinds(Generic[T]):
    """The classes of one base, by kind.

    Args:
        noun: what a kind is, for errors.
        group: the entry point group of other packages.
        built_in: `module:class` of this library's kinds. A class is imported when its kind is asked for.
        unnamed: the kind of stored documents that state none, as those of release 0.1.

    Attributes:
        group: as given.
        named: returns the class of a kind. It raises a DefinitionError if no installed package registers the kind.
    """

    def __init__(self, noun: str, group: str, built_in: Mapping[str, str], unnamed: str) -> None:
        self.group, self.unnamed = group, unnamed
        self._noun, self._built_in = noun, built_in
        self.named: Callable[[str], type[T]] = cache(self._named)

    def of_document(self, document: Mapping[str, Any]) -> T:
        """The definition of a stored document.

        Raises:
            DefinitionError: no installed package registers its kind.
        """
        about = dict(document)
        return self.named(about.pop("kind", self.unnamed))(**about)

    def check(self, kind: str, given: T) -> T:
        """The definition, whose class must be the one that is registered for its kind: a stored document has only the
        kind.

        Raises:
            DefinitionError: another class is, or none.
        """
        known = self.named(kind)
        if known is type(given):
            return given
        name = type(given).__name__
        raise DefinitionError(
            name,
            problem=f"its kind {kind!r} is registered for {known.__module__}.{known.__name__}",
            hint=f"register {name} under a kind of its own, in the group {self.group}",
        )

    def _named(self, kind: str) -> type[T]:
        if kind in self._built_in:
            module, _, name = self._built_in[kind].partition(":")
            built_in: type[T] = getattr(importlib.import_module(module), name)
            return built_in
        from importlib.metadata import entry_points

        registered = {point.name: point for point in entry_points(group=self.group)}
        if kind not in registered:
            kinds = [*self._built_in, *registered]
            raise DefinitionError(
                f"{self._noun} {kind!r}",
                problem=f"no installed package registers it under the entry point group {self.group}",
                hint=did_you_mean(kind, kinds)
                or f"install the package that has it; kinds are {', '.join(sorted(kinds))}",
            )
        loaded: type[T] = registered[kind].load()
        return loaded
