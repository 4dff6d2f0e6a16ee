"""The command doctor: shows what the doctor finds, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.markup import escape

from feature_store.cli.options import AsJson, Repo
from feature_store.cli.output import console, print_json, visible
from feature_store.doctor import diagnose
from feature_store.store import FeatureStore

_SIGNS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[red]✗[/]"}


def doctor(repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Check definitions, registry, sources, Kafka, Redis and what they hold. Exit code 1 when something is broken."""
    with FeatureStore(repo) as store:
        findings = list(diagnose(store))
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        out = console()
        for finding in findings:
            about = escape(visible(finding.about))
            out.print(f"{_SIGNS[finding.state]} {finding.check:<13}{about}", soft_wrap=True)
            if finding.hint:
                out.print(f"  {'':<13}→ {escape(visible(finding.hint))}", soft_wrap=True)
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(1)
