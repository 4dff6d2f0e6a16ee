"""The command doctor."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.markup import escape

from feature_store.cli.exit_codes import FINDING
from feature_store.cli.options import AsJson, Repo
from feature_store.cli.output import console, print_json
from feature_store.cli.text import visible
from feature_store.monitoring.checks import Finding
from feature_store.project.store import FeatureStore

_SIGNS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[red]✗[/]"}


def doctor(repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Check definitions, registry, sources, Kafka, Redis and stored data. Exits with 3 if a check fails."""
    findings: list[Finding] = []
    with FeatureStore(repo) as store:
        for finding in store.monitoring.diagnose():
            findings.append(finding)
            if not as_json:
                _show(finding)
    if as_json:
        print_json([finding._asdict() for finding in findings])
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(FINDING)


def _show(finding: Finding) -> None:
    out = console()
    out.print(f"{_SIGNS[finding.state]} {finding.check:<13}{escape(visible(finding.about))}", soft_wrap=True)
    if finding.hint:
        out.print(f"  {'':<13}→ {escape(visible(finding.hint))}", soft_wrap=True)
    out.file.flush()


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "doctor": ("Watch", "doctor", "Check definitions, registry, sources, Kafka, Redis and stored data."),
}
