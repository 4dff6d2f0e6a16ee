"""Suggestions for mistyped commands, options and choices."""

from __future__ import annotations

import re
from typing import Any

from feature_store.errors import did_you_mean


def suggestion(error: BaseException) -> str:
    """The hint `did you mean 'features'?` for a usage error, or an empty text."""
    known, typed = _choices(error)
    return did_you_mean(typed, known)


def plain(message: str) -> str:
    """A usage error's message without its own suggestions and without pydantic's wording."""
    message = message.replace(": Value error, ", ": ")
    return re.sub(r"\s*(\(Possible options: [^)]*\)|Did you mean .*)$", "", message)


def _choices(error: Any) -> tuple[list[str], str]:
    """The valid words in place of the wrong one, and the word that was typed."""
    context, option = getattr(error, "ctx", None), getattr(error, "option_name", None)
    if option is not None and context is not None:
        return [name for one in context.command.params for name in one.opts], str(option)
    message = str(getattr(error, "message", ""))
    if choice := re.search(r"'([^']*)' is not one of (.*)", message):
        return re.findall(r"'([^']*)'", choice[2]), choice[1]
    if (command := re.search(r"No such command '([^']*)'", message)) and context is not None:
        return list(context.command.list_commands(context)), command[1]
    return [], ""
