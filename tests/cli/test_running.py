"""How a run of the command begins and ends, for a person and for a script."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from feature_store.cli.app import COMMANDS
from feature_store.cli.output import table

COMMAND = [sys.executable, "-c", "from feature_store.cli import main; main()"]


def command(*arguments: str, cwd: Path | None = None, **how: Any) -> subprocess.CompletedProcess[str]:
    how = {"capture_output": True} | how
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, text=True, check=False, **how)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_what_needs_no_command_loads_none(arguments: list[str]) -> None:
    program = (
        "import sys; from feature_store.cli.running import run; sys.argv[1:] = []; run(%r);"
        "heavy = {'rich.console', 'pydantic', 'sqlalchemy', 'pandas', 'pyarrow', 'numpy', 'redis', 'yaml', 'duckdb'};"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program % arguments], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("[]")


def test_completion_loads_no_command() -> None:
    how = {"_FEATURE_STORE_COMPLETE": "complete_bash", "COMP_WORDS": "feature-store mat", "COMP_CWORD": "1"}
    program = "import sys; from feature_store.cli.running import run; run([]); print('sqlalchemy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | how, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["materialize", "False"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_is_true(name: str) -> None:
    """Its summaries have the meaning of the commands' own help, in fewer words."""
    module, _, attribute = COMMANDS[name].home.partition(":")
    found = getattr(importlib.import_module(f"feature_store.cli.{module}"), attribute)
    own = found.info.help if isinstance(found, typer.Typer) else inspect.getdoc(found)
    assert isinstance(own, str)
    assert own.split()[0].rstrip(".,") == COMMANDS[name].summary.split()[0].rstrip(".,")
    assert len(COMMANDS[name].summary) <= 78


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (["gte"], "No such command 'gte'", "did you mean 'get'?"),
        (["prune", "aply"], "No such command 'aply'", "did you mean 'apply'?"),
        (["list", "featuers"], "'featuers' is not one of", "did you mean 'features'?"),
        (["plan", "--jsn"], "No such option: --jsn", "did you mean '--json'?"),
        (["get"], "Missing argument", "`feature-store get --help`"),
    ],
)
def test_wrong_usage_is_told_with_what_may_be_meant(run: Any, arguments: list[str], says: str, hint: str) -> None:
    code, out, error = run(*arguments)
    assert (code, out) == (2, "")
    assert says in error
    assert f"hint: {hint}" in error
    assert error.count("\n") == 2
    assert "Value error" not in error


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["get", "ranking", "user_id=1", "--json"], 1, "NotFoundError"),
        (["describe", "x", "--json"], 1, "NotFoundError"),
        (["list", "--json", "--nonsense"], 2, "NoSuchOption"),
        (["push", "product_stats", "/nowhere.parquet", "--json"], 1, None),
    ],
)
def test_errors_are_json_where_json_is_asked_for(run: Any, arguments: list[str], code: int, kind: str | None) -> None:
    ended, out, error = run(*arguments)
    assert (ended, out) == (code, "")
    document = json.loads(error)["error"]
    assert document.keys() == {"type", "where", "expected", "got", "problem", "hint"}
    assert document["where"]
    assert document["expected"] or document["got"] or document["problem"]
    assert kind in (None, document["type"])


def test_what_definitions_print_does_not_reach_stdout(run: Any, project: Path) -> None:
    run("apply")
    with (project / "features.py").open("a") as file:
        file.write("\nimport sys\nprint('from the definitions')\nsys.stdout.write('and more')\n")
    code, out, error = run("plan", "--json")
    assert code == 0
    json.loads(out)
    assert "from the definitions\nand more" in error


def test_an_unexpected_error_is_a_line_and_a_traceback_on_request(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from feature_store.cli import registry

    def broken(*_: object) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(registry, "_document", broken)
    code, out, error = run("describe", "ranking")
    assert (code, out) == (1, "")
    assert error.splitlines()[0] == "error: feature-store: unexpected KeyError: 'a fault'"
    assert "--debug" in error.splitlines()[1]
    code, _, error = run("describe", "ranking", "--debug")
    assert code == 1
    assert "Traceback" in error
    assert "in broken" in error


@pytest.mark.parametrize("text", ["\x1b[31mred", "\x1b]0;title\x07", "\u202eabc", "\u2066abc", "\x9b31m", "a\rb"])
def test_nothing_in_an_error_steers_the_terminal(run: Any, project: Path, text: str) -> None:
    (project / "features.py").write_text(f"raise ValueError({text!r})\n")
    for arguments in (["plan"], ["plan", "--debug"], ["describe", text], [text], ["get", f"x{text}=1"]):
        code, out, error = run(*arguments)
        assert code in (1, 2)
        assert not any(one in out + error for one in "\x1b\x07\x9b\r\u202e\u2066")


def test_a_full_disk_is_told_in_a_line(project: Path) -> None:
    command("apply", cwd=project)
    with Path("/dev/full").open("w") as full:
        done = command("list", cwd=project, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "error: output: No space left on device\n"


def test_a_reader_that_goes_ends_it_quietly(project: Path) -> None:
    command("apply", cwd=project)
    reader, writer = os.pipe()
    os.close(reader)
    done = command("list", "--json", cwd=project, capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_closed_stdout_is_told() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "error: output: stdout is closed\n")


def test_a_terminal_without_unicode_is_no_reason_to_fail(project: Path) -> None:
    text = (project / "features.py").read_text()
    (project / "features.py").write_text(text.replace("What a user has bought", "Käufe →"))
    command("apply", cwd=project)
    done = command("list", "views", cwd=project, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "K\\xe4ufe ->" in done.stdout
    done = command("list", "views", "--json", cwd=project, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert "Käufe →" in str(json.loads(done.stdout)), "JSON is UTF-8"


def test_a_folder_that_cannot_be_written_is_named(run: Any) -> None:
    code, _, error = run("init", "/proc/shop")
    assert code == 1
    assert error.startswith("error: /proc/shop: ")
    assert error.count("\n") == 1


# -- Ctrl-C ---------------------------------------------------------------------------------------------------------

# Sends SIGINT to itself at a step: when a module begins to be imported, or a function to be called.
INTERRUPTED = """
import os, signal, sys
import importlib.abc
signal.signal(signal.SIGINT, signal.default_int_handler)
step, arguments = sys.argv[1], sys.argv[2:]
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == step:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
if ":" in step:
    import importlib
    module, name = step.split(":")
    home = importlib.import_module(module)
    owner, _, method = name.rpartition(".")
    owner = getattr(home, owner) if owner else home
    real = getattr(owner, method)
    def then(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)
    setattr(owner, method, then)
from feature_store.cli import main
sys.argv[1:] = arguments
main()
"""


@pytest.mark.parametrize(
    ("step", "arguments", "goes_on"),
    [
        ("typer", ["list"], False),
        ("feature_store.cli.app", ["list"], False),
        ("feature_store.project.store", ["list"], False),
        ("pydantic", ["list"], False),
        ("numpy", ["list"], False),
        ("rich.table", ["list"], False),
        ("pyarrow.dataset", ["materialize"], True),
        ("duckdb", ["materialize"], True),
        ("feature_store.registry.store:Registry.latest", ["apply"], True),
        ("feature_store.engines.local.latest:check", ["materialize"], True),
        ("feature_store.engines.local.latest:connected", ["materialize"], True),
        ("feature_store.materialize.job:locked", ["materialize"], True),
        ("feature_store.online.client:OnlineClient.get_online_features", ["get", "ranking", "user_id=1"], False),
    ],
)
def test_an_interrupt_ends_in_a_line(project: Path, step: str, arguments: list[str], goes_on: bool) -> None:
    command("apply", cwd=project)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, step, *arguments], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last in ("Interrupted.", "Interrupted. Run the command again: it resumes.")
    if goes_on and ":" in step:
        assert last.endswith("it resumes.")
    assert command("materialize", cwd=project).returncode == 0


WITHIN_A_QUERY = """
import signal, threading
from feature_store.engines.sql.duck import connected
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start the tests with SIGINT ignored
with connected(AssertionError) as connection:
    main = threading.main_thread().ident
    threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
    connection.execute("SELECT sum(a.range * b.range) FROM range(10000000) a, range(1000000) b")
"""


def test_an_interrupt_within_a_query_of_duckdb_is_one() -> None:
    """In a process of its own: while DuckDB ends a query, no time limit of this process would be heard."""
    done = subprocess.run(
        [sys.executable, "-c", WITHIN_A_QUERY], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"


def test_an_interrupt_at_a_question_changes_nothing(project: Path) -> None:
    command("apply", cwd=project)
    here, there = pty.openpty()
    # A shell may start the tests with SIGINT ignored, which children inherit.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + COMMAND[-1]
    asked = subprocess.Popen(
        [*COMMAND[:-1], program, "teardown"],
        cwd=project,
        stdin=there,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert asked.stderr is not None
    shown = ""
    while "?" not in shown:
        shown += asked.stderr.read(1)
    asked.send_signal(signal.SIGINT)
    out, error = asked.communicate(timeout=60)
    os.close(here)
    os.close(there)
    assert (asked.returncode, out) == (130, "")
    assert error.endswith("Interrupted.\n")
    assert command("get", "ranking", "user_id=1", "product_id=1", "basket_price=1", cwd=project).returncode == 0


# -- tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
@pytest.mark.parametrize("columns", [2, 5, 11])
def test_no_number_and_no_name_is_split(width: int, columns: int) -> None:
    words = ["568,000", "user_activity", "movie_mean_1d", "0.123456", "a text of several words"]
    rows = [[words[(i + j) % len(words)] for j in range(columns)] for i in range(4)]
    out = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    out.print(table("title", {f"column_{i}": "right" for i in range(columns)}, rows))
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= width
    found = shown.split()
    for word in " ".join(cell for row in rows for cell in row).split():
        assert word in found


def test_a_pipe_gets_cells_with_tabs_between() -> None:
    out = Console(file=io.StringIO(), width=100_000)
    out.print(table("things", {"name": "left", "size": "right"}, [["a [b] c", 1200], ["d\te", None]]))
    assert out.file.getvalue() == "things\nname\tsize\na [b] c\t1200\nd\\u0009e\t–\n"  # type: ignore[attr-defined]
