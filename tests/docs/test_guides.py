"""The blocks of the guides that are marked `run` are run in the project of `init shop`, as a scheduler runs them."""

from __future__ import annotations

import configparser
import re
import shlex
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.docs.pages import DOCS, PAGES, ROOT, blocks

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]

GUIDES = sorted((DOCS / "guides").glob("*.md"))
WITH_RUNS = [page for page in GUIDES if any(block.runs for block in blocks(page))]


@pytest.mark.parametrize("page", WITH_RUNS, ids=[page.stem for page in WITH_RUNS])
def test_the_blocks_of_a_guide_run(page: Path, shop: Path, run: Run) -> None:
    for block in blocks(page):
        if block.file:
            (shop / block.file).write_text(block.text.replace("start_http_server(9100", "start_http_server(0"))
        if not block.runs:
            continue
        if block.file and block.language == "bash":
            run("bash", shop / block.file, cwd=shop.parent)  # in another folder, as cron does
        elif block.language == "bash":
            run("bash", "-euo", "pipefail", "-c", block.text, cwd=shop)
        else:
            run("python", "-W", "error", block.file, cwd=shop)


def test_the_test_file_of_the_guide_passes(shop: Path, run: Run) -> None:
    (block,) = (one for one in blocks(DOCS / "guides/testing-features.md") if one.file)
    (shop / block.file).write_text(block.text)
    (shop / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    said = run(
        "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", block.file, cwd=shop
    ).stdout
    assert "3 passed" in said


def test_the_person_of_the_guide_is_deleted(shop: Path, run: Run) -> None:
    (block,) = (one for one in blocks(DOCS / "guides/deleting-a-person.md") if one.runs)
    said = run("bash", "-euo", "pipefail", "-c", block.text, cwd=shop).stdout
    assert "MISSING" in said


def test_the_dag_compiles_and_its_commands_are_those_of_the_page(shop: Path) -> None:
    (block,) = (one for one in blocks(DOCS / "guides/scheduling.md") if one.file.endswith("_dag.py"))
    compile(block.text, block.file, "exec")
    assert len(re.findall(r'bash_command="feature-store \w+ --repo /srv/shop"', block.text)) == 2


def test_the_manifests_are_yaml_whose_commands_exist() -> None:
    (block,) = (one for one in blocks(DOCS / "guides/deploying.md") if one.file.endswith(".yaml"))
    documents = list(yaml.safe_load_all(block.text))
    assert [one["kind"] for one in documents] == ["Deployment", "CronJob", "Deployment"]
    containers = [
        container
        for one in documents
        for container in one["spec"].get("jobTemplate", one)["spec"]["template"]["spec"]["containers"]
    ]
    for container in containers:
        if "args" in container:
            check("feature-store " + shlex.join(container["args"]))


def test_the_unit_is_one_whose_command_exists() -> None:
    (block,) = (one for one in blocks(DOCS / "guides/deploying.md") if one.file.endswith(".service"))
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.text)
    check(unit["Service"]["ExecStart"].rpartition("/")[2])


# -- every command on every page ------------------------------------------------------------------------------------------

COMMAND = re.compile(r"(?<![\w/'.-])feature-store ([a-z][^`\n|;#>&)\"]*)")


def check(line: str) -> None:
    """Assert that a command line names a command and options that exist."""
    import typer

    from feature_store.cli.app import COMMANDS, app

    words = line.split()[1:]
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="feature-store")
    while words and hasattr(command, "resolve_command"):
        assert words[0] in (COMMANDS if context.parent is None else command.commands), f"no such command: {line}"
        name, command, _ = command.resolve_command(context, [words.pop(0)])
        context = typer.Context(command, info_name=name, parent=context)
    known = {name for parameter in command.get_params(context) for name in parameter.opts}
    unknown = {word.partition("=")[0].strip("[],.:…") for word in words if word.startswith(("-", "[-"))} - known
    assert not unknown, f"no such options: {unknown} in {line}"


def command_lines(page: Path) -> list[str]:
    text = page.read_text().replace("\\\n", " ")
    code = re.findall(r"`(feature-store [^`\n]+)`", text)
    code += [
        line.strip()
        for block in blocks(page)
        if block.language in ("bash", "sh", "text", "console")
        for line in block.text.splitlines()
    ]
    return [f"feature-store {words}" for line in code for words in COMMAND.findall(line)]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_on_a_page_exist(page: Path) -> None:
    for line in command_lines(page):
        if line.split()[1] not in ("COMMAND", "init"):
            check(line)


def test_pages_have_commands_to_check() -> None:
    assert sum(len(command_lines(page)) for page in PAGES) > 50
