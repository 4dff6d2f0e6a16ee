"""One run of the command line: start, interrupt, exit code, error message. It imports only what every run needs.

Commands print through `output`, to stdout. Everything else that the process prints, such as `print` in definitions,
goes to stderr, so that programs can read stdout.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
from collections.abc import Sequence

from feature_store._extras import missing_dependency, requires_extra
from feature_store._redaction import redacted
from feature_store.cli.exit_codes import DONE, FAILED, INTERRUPTED, USAGE
from feature_store.cli.interrupts import interrupts_end_at_once
from feature_store.cli.text import visible, visible_line
from feature_store.errors import FeatureStoreError

# Commands that resume when they are run again.
_RESUMING = frozenset({"apply", "backfill", "materialize", "rollback", "run-due", "stream"})


def run(arguments: Sequence[str]) -> int:
    """Run a command. Returns the exit code, and never raises.

    Args:
        arguments: those of the command line, without the program's name.
    """
    given = list(arguments)
    options = given[: given.index("--")] if "--" in given else given
    as_json, debug = "--json" in options, "--debug" in options or bool(os.environ.get("FEATURE_STORE_DEBUG"))
    given = [one for i, one in enumerate(given) if one != "--debug" or i >= len(options)]
    _show_unencodable()
    if sys.stdout is None:
        _say("error: output: stdout is closed")
        return FAILED
    with interrupts_end_at_once():
        try:
            code = _called(given)
            _flush()
        except KeyboardInterrupt:
            code = _interrupted(given)
        except SystemExit as error:  # raised by shell completion
            code = error.code if isinstance(error.code, int) else FAILED if error.code else DONE
        except BaseException as error:
            code = _failed(error, as_json=as_json, debug=debug)
        return code


def _called(arguments: list[str]) -> int:
    if arguments == ["--version"]:  # scripts call it often; it needs no other import
        from importlib.metadata import version

        print(f"feature-store {version('feature-store')}")
        return DONE
    with requires_extra("cli", "feature-store"):
        import typer

        from feature_store.cli.app import command
    try:
        result = command.main(args=arguments, prog_name="feature-store", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.Exit as ended:
        return ended.exit_code
    if result == INTERRUPTED:  # typer returns this after Ctrl-C
        raise KeyboardInterrupt
    return result if isinstance(result, int) else DONE


def _interrupted(arguments: list[str]) -> int:
    resumes = next((one for one in arguments if not one.startswith("-")), "") in _RESUMING
    _say(f"Interrupted.{' Run the command again: it resumes.' if resumes else ''}")
    return INTERRUPTED


def _failed(error: BaseException, *, as_json: bool, debug: bool) -> int:
    if isinstance(error, BrokenPipeError):  # the reader has closed the pipe, as `| head` does
        _drop_output()
        return FAILED
    if debug:
        import traceback

        _say(redacted("".join(traceback.format_exception(error))))
    code, document = _described(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        _say_bytes(f"{visible(document['problem'])}\n".encode())
    elif as_json:
        import orjson

        sys.stderr.flush()
        _say_bytes(orjson.dumps({"error": document}, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        reason = ": ".join(filter(None, (document["where"], document["problem"] or _expectation(document))))
        _say(f"error: {reason}")
        if document["hint"]:
            _say(f"hint: {document['hint']}")
    return code


def _described(error: BaseException) -> tuple[int, dict[str, str]]:
    """The exit code of an error, and its message."""
    empty = dict.fromkeys(("type", "where", "expected", "got", "problem", "hint"), "") | {"type": type(error).__name__}
    if isinstance(error, FeatureStoreError):
        parts = {name: getattr(error, name) for name in ("where", "expected", "got", "problem", "hint")}
        return FAILED, empty | parts
    usage = _usage(error)
    if usage is not None:
        return USAGE, empty | usage
    if isinstance(error, ModuleNotFoundError):
        return _described(missing_dependency(error, "feature-store"))
    if isinstance(error, OSError):
        _drop_output_if_full(error)
        where = redacted(str(error.filename or "output"))
        return FAILED, empty | {"where": where, "problem": redacted(error.strerror or str(error))}
    if type(error).__name__ == "ArrowCancelled":
        return INTERRUPTED, empty | {"where": "Interrupted."}
    problem = redacted(f"unexpected {type(error).__name__}: {error}".rstrip(": "))
    hint = "this is a bug in feature-store or in a library that it calls; `--debug` prints the traceback"
    return FAILED, empty | {"where": "feature-store", "problem": problem, "hint": hint}


def _usage(error: BaseException) -> dict[str, str] | None:
    """The message of a usage error; None for another error."""
    message = getattr(error, "format_message", None)
    if message is None:
        return None
    from feature_store.cli.suggestions import plain, suggestion

    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "feature-store"
    hint = suggestion(error) or f"`{where} --help` lists commands and options"
    return {"where": where, "problem": plain(message()), "hint": hint}


def _expectation(document: dict[str, str]) -> str:
    expected = f"expected {document['expected']}" if document["expected"] else ""
    return ", ".join(filter(None, (expected, f"got {document['got']}" if document["got"] else "")))


# -- output ---------------------------------------------------------------------------------------------------------


# Replacements of the characters that commands print themselves, for terminals with ASCII only.
_IN_ASCII = {"–": "-", "—": "-", "…": "...", "→": "->", "✓": "ok", "✗": "x", "×": "x", "µ": "u", "ε": "eps", "━": "="}


def _show_unencodable() -> None:
    """Show characters that the terminal's encoding lacks in ASCII or as escapes, instead of failing."""

    def replaced(error: UnicodeError) -> tuple[str | bytes, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        text = error.object[error.start]
        return _IN_ASCII.get(text) or text.encode("ascii", "backslashreplace").decode(), error.start + 1

    codecs.register_error("feature_store.shown", replaced)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="feature_store.shown")


def _flush() -> None:
    """Flush stdout now: an error at the interpreter's end would not change the exit code."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _say(text: str) -> None:
    _say_bytes(f"{visible_line(text)}\n".encode(getattr(sys.stderr, "encoding", None) or "utf-8", "backslashreplace"))


def _say_bytes(text: bytes) -> None:
    """Write to stderr. If stderr cannot be written to, the exit code stays that of the error."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        buffer = getattr(sys.stderr, "buffer", None)
        if buffer is None:
            sys.stderr.write(text.decode("utf-8", "backslashreplace"))
        else:
            sys.stderr.flush()
            buffer.write(text)
        sys.stderr.flush()


def _drop_output_if_full(error: OSError) -> None:
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EPIPE):
        _drop_output()


def _drop_output() -> None:
    """Discard buffered output, which the interpreter would try to write again at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        target = os.open(os.devnull, os.O_WRONLY)
        os.dup2(target, sys.stdout.fileno())
        os.close(target)
