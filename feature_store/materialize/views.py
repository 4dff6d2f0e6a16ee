"""Materializes and pushes the views of a project."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.names import given_name, given_names
from feature_store.engines.report import Report
from feature_store.errors import DefinitionError, OnlineStoreError
from feature_store.materialize import job
from feature_store.materialize.job import Target
from feature_store.materialize.span import Span
from feature_store.materialize.summary import Summary
from feature_store.online.store import OnlineStore

if TYPE_CHECKING:
    from feature_store.project.context import Project

_LOG = logging.getLogger("feature_store")


def materialize(
    project: Project,
    views: Sequence[str] | None,
    span: Span,
    *,
    engine: str | None = None,
    report: Report | None = None,
) -> list[Summary]:
    """Write the latest rows of views to the online store; see `FeatureStore.materialize`.

    Args:
        project: the project.
        views: names of views. None: all views with a source.
        span: the event times to read.
        engine: the name of the engine. None: the configured one.
        report: gets the progress.
    """
    version, _ = project.served()
    computing = project.engine(engine)
    return [
        _materialized(project, view, span, engine=computing, digest=version.digest, report=report)
        for view in _chosen(version.served_definitions(), views)
    ]


def push(project: Project, view: str, table: Any, *, report: Report | None = None) -> Summary:
    """Write the rows of a table to the online store; see `FeatureStore.push`."""
    version, _ = project.served()
    definition = version.served_definitions().view(given_name(view, "view"))
    # The rows are in this process, so the local engine reads them.
    local, destination = project.engine("local"), project.online.destination(view)
    return job.push(definition, table, destination, folders=project.folders, engine=local, report=report)


def _materialized(project: Project, view: FeatureView, span: Span, **how: Any) -> Summary:
    target = Target(project.online.destination(view.name), project.online.progress(view.name))
    with _evictions_logged(project.online, view.name):
        summary = job.materialize(view, span, target, folders=project.folders, **how)
    for interval in summary.intervals:
        project.registry.note_materialized(view.name, *interval)
    return summary


@contextlib.contextmanager
def _evictions_logged(online: OnlineStore, view: str) -> Iterator[None]:
    """Log an error if Redis evicts keys during the block, whether the job fails or not."""
    before = online.evicted_keys()
    try:
        yield
    finally:
        with contextlib.suppress(OnlineStoreError):
            evicted = online.evicted_keys() - before
            if evicted > 0:
                _LOG.error(
                    "Redis evicted %d keys for lack of memory while %s was written: rows are missing. Set "
                    "maxmemory-policy noeviction, raise maxmemory, then materialize again",
                    evicted,
                    view,
                )


def _chosen(definitions: DefinitionSet, views: Sequence[str] | None) -> list[FeatureView]:
    if views is None:
        return [view for view in definitions.feature_views.values() if view.source is not None]
    chosen = [definitions.view(name) for name in given_names(views, "views")]
    for view in chosen:
        if view.source is None:
            raise DefinitionError(f"{view.name}.source", expected="a source", got="none", hint="push its rows")
    return chosen
