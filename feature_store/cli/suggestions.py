"""What somebody may have meant who mistyped a command, an option or a choice."""

from __future__ import annotations

import re
from typing import Any

from feature_store.errors import did_you_mean


def suggestion(error: BaseException) -> str:
    """`did you mean 'features'?` of a usage error, or nothing."""
    known, typed = _choices(error)
    return did_you_mean(typed, known)


def plain(message: str) -> str:
    """A usage error's message without guesses of its own and without words of pydantic's."""
    message = message.replace(": Value error, ", ": ")
    return re.sub(r"\s*(\(Possible options: [^)]*\)|Did you mean .*)$", "", message)


def _choices(error: Any) -> tuple[list[str], str]:
    """What would have been right where the error is, and what was typed."""
    context, option = getattr(error, "ctx", None), getattr(error, "option_name", None)
    if option is not None and context is not None:
        return [name for one in context.command.params for name in one.opts], str(option)
    message = str(getattr(error, "message", ""))
    if choice := re.search(r"'([^']*)' is not one of (.*)", message):
        return re.findall(r"'([^']*)'", choice[2]), choice[1]
    if (command := re.search(r"No such command '([^']*)'", message)) and context is not None:
        return list(context.command.list_commands(context)), command[1]
    return [], ""
