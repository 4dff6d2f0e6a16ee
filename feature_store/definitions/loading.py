"""Loading of definition files: by their paths, under private module names, again at each load.

The module of a definition file is separate from modules that the process imports, and leaves nothing in `sys.modules`.
So a file may have the name of any other module, two projects with a `features.py` each can be loaded in one process,
and the next load sees an edit.

Definition files import each other like scripts of one folder: `from shared import x` reads a file in the project's
    folder,
or else beside the importer; `from .shared import x` reads a file beside the importer. Each module has its own
`__import__` for this, so the imports of other code are resolved as usual. A name of the standard library always means
the standard library.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.util
import itertools
import linecache
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from feature_store.definitions.definition import Definition
from feature_store.definitions.definition_set import KINDS, DefinitionSet
from feature_store.definitions.files import definition_files, package_root
from feature_store.errors import DefinitionError

_PREFIX = "_feature_store_definitions_"
_numbers = itertools.count(1)
_loading = threading.local()


def load_definitions(folder: Path, names: str | Sequence[str] = ()) -> DefinitionSet:
    """Run a project's definition files and collect the definitions that their module-level names hold.

    Definitions inside of lists, tuples, sets and dicts count too. Output of the files goes to stderr.

    Args:
        folder: the project's folder.
        names: files, folders, globs, modules or packages; by default see `definition_files`.

    Raises:
        DefinitionError: there is no file, a file cannot be run, or the definitions do not fit each other.
    """
    folder = folder.expanduser().resolve()
    files = definition_files(folder, [names] if isinstance(names, str) else names)
    with _once(folder):
        project = _Project(folder)
        with project, contextlib.redirect_stdout(sys.stderr):
            modules = [project.run(path) for path in files]
    return DefinitionSet(item for module in modules for item in _definitions_in(vars(module)))


@contextlib.contextmanager
def _once(folder: Path) -> Iterator[None]:
    """Refuse to load a project's files while one of them is being loaded."""
    folders: set[Path] = _loading.__dict__.setdefault("folders", set())
    if folder in folders:
        raise DefinitionError(
            str(folder),
            problem="a definition file opens its own project while it is loaded",
            hint='move that code under `if __name__ == "__main__":`, or into a file without definitions',
        )
    folders.add(folder)
    try:
        yield
    finally:
        folders.remove(folder)


class _Project:
    """The modules of one load, by path. As a context it keeps them in `sys.modules` under their private names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"{_PREFIX}{next(_numbers)}"
        self._modules: dict[Path, ModuleType] = {}
        self._tops: dict[str, Path] = {}  # packages that are imported by their full names
        self._lock = threading.RLock()
        self._note_package(folder)

    def __enter__(self) -> None:
        """Modules are registered as they are run."""

    def __exit__(self, *_: object) -> None:
        for name in [name for name in list(sys.modules) if f"{name}.".startswith(f"{self._name}.")]:
            del sys.modules[name]

    def run(self, path: Path) -> ModuleType:
        """The module of a definition file, run once.

        Raises:
            DefinitionError: the file raises an exception.
        """
        self._note_package(path.parent)
        try:
            return self._module(path)
        except KeyboardInterrupt:  # the user's
            raise
        except DefinitionError as error:
            raise self._at_place(error, path) from error
        except BaseException as error:  # any exception of a user's file, sys.exit() included
            problem = f"cannot be loaded, {type(error).__name__}: {error}".rstrip(": ")
            raise DefinitionError(self._place(error, path), problem=problem, hint=_hint(error)) from error

    def _note_package(self, folder: Path) -> None:
        """Let the files of a package import it by its full name."""
        root = package_root(folder)
        if root != folder:
            self._tops.setdefault(folder.relative_to(root).parts[0], root)

    def _module(self, path: Path) -> ModuleType:
        if path in self._modules:
            return self._modules[path]
        package = path.parent if path.name == "__init__.py" else None
        name = self._private_name(path.parent if package else path.with_suffix(""))
        spec = importlib.util.spec_from_file_location(
            name, path, submodule_search_locations=[str(package)] if package else None
        )
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        if not package:
            module.__package__ = self._private_name(path.parent)
        vars(module)["__definitions_name__"] = self._public_name(path.parent if package else path.with_suffix(""))
        vars(module)["__builtins__"] = vars(builtins) | {"__import__": self._import}
        self._modules[path] = sys.modules[name] = module
        try:
            linecache.cache.pop(str(path), None)
            # Compiled from source: cached bytecode is compared by a time in whole seconds and may be stale.
            exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
        except BaseException:
            del self._modules[path]
            raise
        finally:
            if not getattr(_loading, "folders", None):  # an import inside a function, after the load
                sys.modules.pop(name, None)
        return module

    def _package(self, folder: Path) -> ModuleType:
        """The module of a folder: its __init__.py, or an empty module."""
        if (folder / "__init__.py").is_file():
            return self._module(folder / "__init__.py")
        if folder not in self._modules:
            name = self._private_name(folder)
            module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, None, is_package=True))
            module.__path__ = [str(folder)]
            self._modules[folder] = module
        return self._modules[folder]

    def _private_name(self, path: Path) -> str:
        return f"{self._name}.{self._public_name(path)}".rstrip(".")

    def _public_name(self, path: Path) -> str:
        """The name under which the project's files import a path."""
        for root in (self._folder, package_root(path.parent)):
            if path.is_relative_to(root):
                return ".".join(path.relative_to(root).parts)
        return path.name

    # -- imports that the files make --------------------------------------------------------------------------------

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """`__import__` of the definition files."""
        importer = Path((globals or {}).get("__file__") or self._folder / "features.py")
        parts = name.split(".") if name else []
        base = importer.parents[level - 1] if level else self._base_of(parts[0], importer.parent)
        if base is None:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        with self._lock:
            modules = self._walk(base, parts, is_relative=level > 0)
            for item in fromlist or ():
                self._load_submodule(modules[-1], item)
        return modules[-1] if fromlist else modules[0]

    def _base_of(self, top: str, beside: Path) -> Path | None:
        """The folder in which a top-level name is a file or package of the project; None: it is other code."""
        if top in sys.stdlib_module_names or top == "feature_store":
            return None
        for folder in (self._folder, beside):
            if (folder / f"{top}.py").is_file() or self._is_package(folder / top):
                return folder
        return self._tops.get(top)

    def _is_package(self, folder: Path) -> bool:
        if (folder / "__init__.py").is_file():
            return True
        # As in Python, a folder without __init__.py is imported only if no installed package has its name.
        if not folder.is_dir() or not any(folder.glob("*.py")):
            return False
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(folder.name)
            return spec is None or spec.origin is None
        return True

    def _walk(self, base: Path, parts: Sequence[str], *, is_relative: bool) -> list[ModuleType]:
        """Run the modules of a dotted name that starts in a folder, from the first to the last."""
        modules = [self._package(base)] if is_relative else []
        place = base
        for part in parts:
            place = place / part
            module = self._child(place)
            if module is None:
                dotted = ".".join(parts)
                raise ModuleNotFoundError(f"No module named {dotted!r} in {base}", name=dotted)
            if modules:
                setattr(modules[-1], part, module)
            modules.append(module)
        return modules

    def _child(self, path: Path) -> ModuleType | None:
        if path.is_dir() and ((path / "__init__.py").is_file() or not path.with_suffix(".py").is_file()):
            return self._package(path)
        file = path.with_name(f"{path.name}.py")
        return self._module(file) if file.is_file() else None

    def _load_submodule(self, module: ModuleType, name: str) -> None:
        """For `from package import name`: a name that the package lacks may be a file in its folder."""
        wanted = getattr(module, "__all__", ()) if name == "*" else (name,)
        for item in wanted:
            if not hasattr(module, item) and hasattr(module, "__path__"):
                child = self._child(Path(next(iter(module.__path__)), item))
                if child is not None:
                    setattr(module, item, child)

    # -- errors ---------------------------------------------------------------------------------------------------

    def _at_place(self, error: DefinitionError, path: Path) -> DefinitionError:
        return error.as_kind(DefinitionError, where=f"{self._place(error, path)}: {error.where}")

    def _place(self, error: BaseException, path: Path) -> str:
        """The file and line of the project's own code that raised."""
        if isinstance(error, SyntaxError) and error.filename:
            return self._shown(Path(error.filename), error.lineno)
        own = {str(one) for one in (*self._modules, path)}
        places = [
            (frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if frame.f_code.co_filename in own or frame.f_globals.get("__definitions_name__")
        ]
        file, line = places[-1] if places else (str(path), None)
        return self._shown(Path(file), line)

    def _shown(self, file: Path, line: int | None) -> str:
        shown = file.relative_to(self._folder) if file.is_relative_to(self._folder) else file
        return f"{shown}, line {line}" if line else str(shown)


def _hint(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "scripts are not definition files: list the files under `definitions:` in feature_store.yaml"
    if isinstance(error, ImportError) and error.name in sys.stdlib_module_names:
        return (
            f"{error.name} is a module of the standard library; write `from .{error.name} import …` for your own file"
        )
    return ""


def _definitions_in(value: Any) -> Iterator[Definition]:
    """The definitions of a module, also those in collections. A collection is searched once."""
    waiting, seen = [item for name, item in value.items() if not name.startswith("__")], {id(value)}
    while waiting:
        item = waiting.pop(0)
        if isinstance(item, Definition):
            if type(item) in KINDS.values():
                yield item
        elif type(item) in (list, tuple, dict, set, frozenset) and id(item) not in seen:
            seen.add(id(item))
            waiting[:0] = item.values() if isinstance(item, dict) else item
