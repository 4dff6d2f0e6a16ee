"""Views with sources in a folder, and what an engine joins to labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.sources.opening import open_view
from feature_store.definitions import FeatureView
from feature_store.engines.join import Finished, JoinEngine, JoinRequest, ViewJoin
from feature_store.engines.local import join as local_join
from feature_store.engines.report import Report, Silent


class Plain:
    """A finish that changes nothing."""

    def __init__(self, labels: pa.Schema, *names: str) -> None:
        self.features, self._labels = names, labels
        self.schema = pa.schema([])

    def typed(self, *types: pa.DataType) -> Plain:
        fields = [pa.field(name, kind) for name, kind in zip(self.features, types, strict=True)]
        self.schema = pa.schema([*self._labels, *fields])
        return self

    def check(self, labels: pa.RecordBatch, first: int) -> None:
        """See Finish. The labels of these tests have no request fields."""

    def __call__(self, labels: pa.RecordBatch, joined: Sequence[pa.Array], first: int) -> Finished:
        assert "number" not in labels.schema.names or labels["number"][0].as_py() == first
        batch = pa.RecordBatch.from_arrays([*labels.columns, *joined], schema=self.schema)
        return Finished(batch, [column.null_count for column in joined])


class World:
    """Views with sources in a folder, and what an engine joins to labels."""

    def __init__(self, engine: JoinEngine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.quarantines: dict[str, Quarantine] = {}
        self.report: Report = Silent()

    def join(
        self, labels: Any, *views: FeatureView, timestamp: str = "at", wanted: dict[str, Any] | None = None
    ) -> Any:
        held = self.engine.labels(labels)
        joins, names, types = [], [], []
        for view in views:
            fields = tuple((wanted or {}).get(view.name, [field.name for field in view.fields]))
            self.quarantines[view.name] = Quarantine(self.folder / "quarantine", self.folder, view.name)
            rows = open_view(view.history, view, self.folder)
            joins.append(ViewJoin(view, rows, fields, self.quarantines[view.name]))
            names += [f"{view.name} {name}" for name in fields]
            types += [local_join.storage_type(view.field(name).dtype) for name in fields]
        finish = Plain(held.schema, *names).typed(*types)
        joined = self.engine.join(JoinRequest(held, timestamp, tuple(joins), finish, self.folder, self.report))
        for quarantine in self.quarantines.values():
            quarantine.close()
        return joined

    def table(self, labels: Any, *views: FeatureView, **options: Any) -> pa.Table:
        joined = self.join(labels, *views, **options)
        table = pa.Table.from_batches(joined.batches(), joined.schema)
        assert joined.rows == len(table)
        assert list(joined.missing.values()) == [column.null_count for column in table.columns[-len(joined.missing) :]]
        return table
