"""Write the pages that are generated from the code: the API, errors, commands and the keys of feature_store.yaml."""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

_FIELD = type(NamedTuple("Any", [("field", int)]).field)

# The modules whose `__all__` is public, and what each page is called. See docs/compatibility.md.
PAGES = {
    "feature_store": "Definitions and the project",
    "feature_store.online": "Serving",
    "feature_store.monitoring": "Monitoring",
    "feature_store.streaming": "Streaming",
    "feature_store.pruning": "Pruning",
    "feature_store.functions": "Aggregation functions of your own",
    "feature_store.definitions": "More names of definitions",
    "feature_store.project": "Configuration",
    "feature_store.cli": "Output of commands",
}
# The contracts that another package implements to add a source or a topology, and the suites that it runs in its tests.
# CONTRIBUTING.md has the recipes. They are not in any `__all__`: a minor version may change them.
CONTRACTS = {
    "feature_store.definitions.batch_source": ("BatchSource",),
    "feature_store.arrow.sources.source": ("OfflineSource", "Piece", "Unread"),
    "feature_store.definitions.message_format": ("MessageFormat",),
    "feature_store.streaming.decoder": ("Decoder", "Members"),
    "feature_store.streaming.formats.documents": ("DocumentDecoder",),
    "feature_store.testing.formats": ("FormatSuite",),
    "feature_store.testing.sources": ("FillableSource", "OfflineSourceSuite", "SourceOnEngineSuite"),
    "feature_store.testing.functions": ("FunctionCase", "FunctionSuite"),
    "feature_store.online.redis.topology": ("Topology",),
    "feature_store.testing.topology": ("TopologySuite",),
}


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", _write)
    app.connect("autodoc-process-docstring", _show_drawings, priority=1)  # before napoleon
    app.connect("autodoc-skip-member", _skip_fields)
    return {"parallel_read_safe": True}


def _skip_fields(_app: Sphinx, _what: str, _name: str, item: object, _skip: bool, _options: object) -> bool | None:
    """Skip the fields of named tuples as members: `Attributes:` of the docstring describes them."""
    return True if isinstance(item, _FIELD) else None


def _write(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "generated"
    folder.mkdir(exist_ok=True)
    pages = {f"{module}.md": api_page(module, title) for module, title in PAGES.items()} | {
        "contracts.md": contracts_page()
    }
    pages |= {"errors.md": errors_page(), "cli.md": cli_page(), "configuration.md": configuration_page()}
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:  # an unchanged file is not read again
            path.write_text(text)
    for path in set(folder.iterdir()) - {folder / name for name in pages}:
        path.unlink()


def _show_drawings(_app: Sphinx, _what: str, _name: str, _item: object, _options: object, lines: list[str]) -> None:
    """Show tables and code of a docstring as they stand: reStructuredText would read them as something else."""
    shown: list[str] = []
    for i, line in enumerate(lines):
        before, after = lines[i - 1] if i else "", lines[i + 1 :]
        margin = len(line) - len(line.lstrip())
        is_drawing = line.lstrip().startswith("|")
        if is_drawing and not before.lstrip().startswith("|"):
            shown += ["", f"{' ' * margin}::", ""]
        elif before.lstrip().startswith("|") and not is_drawing and line.strip():
            shown.append("")
        begins_code = len(after) > 1 and not after[0].strip() and len(after[1]) - len(after[1].lstrip()) > margin
        if line.endswith(":") and not line.endswith("::") and begins_code:
            line += ":"
        shown.append(f"    {line}" if is_drawing else line)
    lines[:] = shown


# -- the API ---------------------------------------------------------------------------------------------------------


def api_page(module: str, title: str) -> str:
    """Each public name of a module, with its docstring."""
    names = [name for name in importlib.import_module(module).__all__ if not _is_shown_before(module, name)]
    parts = [f"# {title}", f"The public names of `{module}`: import them from there."]
    for name in names:
        item = getattr(importlib.import_module(module), name)
        if not (inspect.isclass(item) or inspect.isfunction(item)):
            is_type = module in ("feature_store", "feature_store.definitions")
            about = "A type of values: see [types](../types.md)." if is_type else "A type alias."
            parts += [f"## {name}", f"{about} `{item!r}`"]
            continue
        kind = "class" if inspect.isclass(item) else "function"
        parts += [f"## {name}", f"```{{eval-rst}}\n.. auto{kind}:: {module}.{name}\n   :no-index-entry:\n```"]
    return "\n\n".join(parts) + "\n"


def _is_shown_before(module: str, name: str) -> bool:
    """Whether an earlier page shows the same name."""
    earlier = list(PAGES)[: list(PAGES).index(module)]
    return any(name in importlib.import_module(one).__all__ for one in earlier)


def contracts_page() -> str:
    """The contracts of the seams, with their docstrings, and their suites."""
    parts = [
        "# Contracts and test suites",
        "A package of your own implements these to add a [source](../contributing.md#add-an-offline-source), an "
        "[aggregation](../contributing.md#add-an-aggregation) or a "
        "[topology of Redis](../contributing.md#add-a-topology-of-redis), and runs the suites in its tests. A minor "
        "version may change them; the [changelog](../changelog.md) says so.",
    ]
    for module, names in CONTRACTS.items():
        for name in names:
            about = f"```{{eval-rst}}\n.. autoclass:: {module}.{name}\n   :no-index:\n"
            parts += [f"## {name}", f"From `{module}`.", about + ("   :no-members:\n```" if "Suite" in name else "```")]
    return "\n\n".join(parts) + "\n"


# -- errors ----------------------------------------------------------------------------------------------------------


def errors_page() -> str:
    """The tree of errors, each with when it is raised and what to do."""
    from feature_store.errors import FeatureStoreError

    parts = [
        "# Errors and what to do",
        "Each error is a class in `feature_store.errors`, and a subclass of `FeatureStoreError`. Its text says where, "
        "what was expected, what there was, and what to do; the attributes `where`, `expected`, `got`, `problem` and "
        "`hint` hold the parts. No text holds a secret or an entity's key. This page is made from the classes.",
        "```text\n" + "\n".join(_tree(FeatureStoreError)) + "\n```",
    ]
    for error in _subclasses(FeatureStoreError):
        when, _, what_to_do = inspect.cleandoc(error.__doc__ or "").partition("\n\n")
        parts += [f"## {error.__name__}", _one_line(when)]
        what_to_do = what_to_do.partition("\n\nAttributes:")[0].removeprefix("Attributes:")
        if what_to_do and not what_to_do.startswith("\n"):
            parts.append(f"**What to do:** {_one_line(what_to_do)}")
    return "\n\n".join(parts) + "\n"


def _tree(error: type, depth: int = 0) -> Iterator[str]:
    yield "  " * depth + error.__name__
    for one in error.__subclasses__():
        if one.__module__ == error.__module__:
            yield from _tree(one, depth + 1)


def _subclasses(error: type) -> Iterator[type]:
    for one in error.__subclasses__():
        if one.__module__ == error.__module__:
            yield one
            yield from _subclasses(one)


def _one_line(text: str) -> str:
    return " ".join(text.split())


# -- feature_store.yaml ----------------------------------------------------------------------------------------------


def configuration_page() -> str:
    """Each key of feature_store.yaml, with its type, its default and what it means."""
    from feature_store.project.config import Config

    parts = [
        "# All keys of feature_store.yaml",
        "This page is generated from the classes that read the file. An example, variables and passwords: "
        "[feature_store.yaml](../configuration.md).",
    ]
    for prefix, section in _sections(Config):
        parts.append(f"## {prefix}" if prefix else "## Top level")
        about = _attributes(section)
        rows = []
        for name, field in section.model_fields.items():
            default = (
                "required" if field.is_required() else _shown_default(field.get_default(call_default_factory=True))
            )
            rows.append(
                f"| `{name}` | {_cell(_shown_type(field.annotation))} | {default} | {_cell(about.get(name, ''))} |"
            )
        parts.append("| key | value | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _sections(model: Any) -> list[tuple[str, Any]]:
    """The model of the file, and those of its keys that hold a mapping of known keys."""
    from pydantic import BaseModel

    found = [("", model)]
    for name, field in model.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            found.append((name, field.annotation))
    return found


def _attributes(section: type) -> dict[str, str]:
    """The descriptions in the `Attributes:` of a class's docstring."""
    _, _, listed = inspect.cleandoc(section.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+(?:, \w+)*): (.*?)(?=^    \w+(?:, \w+)*: |\Z)", listed, re.M | re.S)
    return {name: _one_line(text) for names, text in entries for name in names.split(", ")}


def _shown_type(annotation: Any) -> str:
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    if annotation in names:
        return names[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _shown_type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in arguments)
    if origin is tuple:
        return f"{_shown_type(arguments[0])}, or a list"
    if origin is dict:
        return "a mapping of settings"
    if inspect.isclass(annotation):
        return "a mapping: see below"
    return " or ".join(_shown_type(one) for one in arguments if one is not type(None))


def _shown_default(value: Any) -> str:
    if value is None or value in ((), {}):
        return "–"
    if isinstance(value, (bool, int, float, str)):
        return f"`{str(value).lower() if isinstance(value, bool) else value}`"
    return "–"


# -- the command line ------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Each command with its arguments and options, as `--help` has them."""
    import typer

    from feature_store.cli.app import COMMANDS, app

    root = typer.main.get_command(app)
    context = typer.Context(root, info_name="feature-store")
    parts = [
        "# Commands",
        "This page is made from the commands, as `--help` shows them. Exit codes and output: "
        "[the command line](../command-line.md).",
    ]
    for section in dict.fromkeys(about.section for about in COMMANDS.values()):
        parts.append(f"## {section}")
        for name, about in COMMANDS.items():
            if about.section == section:
                _, command, _ = root.resolve_command(context, [name])
                parts += _command(command, typer.Context(command, info_name=name, parent=context), 3)
    return "\n\n".join(parts) + "\n"


def _command(command: Any, context: Any, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {context.command_path.removeprefix('feature-store ')}"
    yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```"
    yield inspect.cleandoc(command.help or "").replace("\b\n", "")
    records = [record for one in command.get_params(context) if (record := one.get_help_record(context))]
    if records:
        rows = [f"| `{names}` | {_cell(text)} |" for names, text in records]
        yield "\n".join(["| | |", "|---|---|", *rows])
    for name in command.list_commands(context) if hasattr(command, "list_commands") else []:
        inner = command.get_command(context, name)
        yield from _command(inner, type(context)(inner, info_name=name, parent=context), depth + 1)


def _cell(text: str) -> str:
    """A text as a cell of a table: what Markdown would read as markup is escaped, outside of code."""
    parts = re.split(r"(`[^`]*`)", _one_line(text))
    escaped = [part if part.startswith("`") else re.sub(r"([<*\[])", r"\\\1", part) for part in parts]
    return "".join(escaped).replace("|", "\\|")
