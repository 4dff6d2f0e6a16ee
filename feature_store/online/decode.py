"""Bytes that came back → values: a matrix at once, or columns with the status of each value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.errors import CorruptRowError
from feature_store.online.codec import decode_variable, python_values, unbiased
from feature_store.online.columns import ComputedColumn, PrunedColumn, StoredColumn, WindowColumn
from feature_store.online.layout import encode_time
from feature_store.online.matrix import default_elements, refuse_identifiers
from feature_store.online.rows import StoredRows
from feature_store.online.status import STATUSES, Status
from feature_store.online.stored_tiles import StoredTiles
from feature_store.online.tile_layout import TileValueLayout
from feature_store.online.transforms import decides_absence, run_transform, shown_input

if TYPE_CHECKING:
    from feature_store.aggregates.arrays import Column
    from feature_store.online.columns import TransformInput
    from feature_store.online.layout import SegmentLayout
    from feature_store.online.matrix import MatrixPlan, ViewPlan
    from feature_store.online.service import CompiledService, CompiledTransform, Request
    from feature_store.registry.serving_plan import TransformPlan

NO_TIME = np.iinfo(np.int64).min  # the event time of what is missing; no datetime is so early


class Decoder:
    """The values of one answered request.

    Args:
        service: that was asked.
        request: as sent; its parser holds the reply.
        now_us: the time that ttls count from, microseconds since 1970.

    Attributes:
        count: rows of the response.
        rows: per group of the service, what is stored of the keys asked for.

    Raises:
        CorruptRowError: a stored row does not have the bytes that its layout demands.
    """

    def __init__(self, service: CompiledService, request: Request, now_us: int) -> None:
        self.service, self.count, self.request, self.now_us = service, request.size, request, now_us
        self._variables: dict[tuple[int, str], list[bytes | None]] = {}
        self._results: dict[str, dict[str, Column]] = {}
        self._tiles: dict[int, StoredTiles] = {}
        self.rows = self._rows_in_place() if request.parser.fixed else self._rows_of_values()

    # -- the matrix ---------------------------------------------------------------------------------------------

    def matrix(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(n, f) float32. See OnlineResponse.to_numpy."""
        plan = self.service.matrix_plan
        if self.count == 1 and plan.pieces is not None and self._is_whole(plan):
            # One entity, nothing to fill in: joined without numpy's cost per operation, 2.5 µs less.
            pieces = [self.rows[group].bytes_of_first(start, end) for group, start, end in plan.pieces]
            return np.frombuffer(bytearray().join(pieces), np.float32).reshape(1, plan.width)
        out = np.empty((self.count, plan.width), np.float32)
        raw = out.view(np.uint8)
        for view in plan.views:
            self._fill(view, out, raw)
        for name, column in plan.computed:
            length = self.service.columns[name].dtype.length
            place = column if length is None else slice(column, column + length)
            out[:, place] = self._computed_for_matrix(name)
        for columns, values in plan.constant:
            out[:, columns] = values
        return out

    def _is_whole(self, plan: MatrixPlan) -> bool:
        for view in plan.views:  # noqa: SIM110 - a generator for all() costs as much as the check itself
            if not self.rows[view.group].all_present(view.segment, self.oldest(view.segment)):
                return False
        return True

    def _fill(self, view: ViewPlan, out: np.ndarray[Any, Any], raw: np.ndarray[Any, Any]) -> None:
        rows = self.rows[view.group]
        inverse = self.request.asked[view.group].inverse
        oldest = self.oldest(view.segment)
        clean = rows.all_present(view.segment, oldest)
        for block in view.blocks:
            part = rows.part(block.offset, block.width)
            if block.raw and inverse is None:
                raw[:, block.raw_target] = part
                continue
            values = np.ascontiguousarray(part).view(block.code)
            if block.source is not None:
                values = values[:, block.source]
            if block.integers:
                refuse_identifiers(block.names, values)
            with np.errstate(over="ignore"):  # a float64 beyond float32 is inf
                out[:, block.target] = values if inverse is None else values[inverse]
        if not clean:
            empty = rows.status(view.segment, view.fields, oldest) != Status.PRESENT
            out[:, view.target] = np.where(
                empty if inverse is None else empty[inverse], view.defaults, out[:, view.target]
            )

    def _computed_for_matrix(self, name: str) -> Column:
        column = self.service.columns[name]
        if isinstance(column, WindowColumn):
            # Before keys become rows: of one user and 200 candidates, one number instead of 200.
            tiles = self.stored_tiles(column)
            return self.per_row(column.group, _numbers(name, column, tiles.values(column), tiles.absent(column)))
        assert isinstance(column, ComputedColumn)
        return _numbers(name, column, self.computed(column), self.status(name) != Status.PRESENT)

    # -- columns ------------------------------------------------------------------------------------------------

    def python_column(self, name: str) -> list[Any]:
        """n exact Python values; the default, or None, where there is no value."""
        column = self.service.columns[name]
        if isinstance(column, PrunedColumn):
            return [column.default] * self.count
        present = (self.status(name) == Status.PRESENT).tolist()
        if isinstance(column, ComputedColumn):
            listed = python_values(column.dtype, self.computed(column))
        elif column.dtype.width is None:
            listed = self._listed(column)
        else:
            listed = self._each_row(column.group, python_values(column.dtype, self._stored(column)))
        return [value if there else column.default for value, there in zip(listed, present, strict=True)]

    def status(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(n,) Status codes."""
        column = self.service.columns[name]
        if isinstance(column, PrunedColumn):
            return np.full(self.count, Status.PRUNED, np.uint8)
        if isinstance(column, ComputedColumn):
            return self._inputs_status(self.service.transforms[column.transform])
        return self._stored_status(column)

    def status_counts(self) -> list[int]:
        """How many values have each Status, by its code. Where a view is whole, nothing is looked at twice."""
        counts = [0] * len(STATUSES)
        for group, segment, fields in self.service.stored_parts:
            if group in self.request.skipped:
                counts[Status.SKIPPED] += self.count * len(fields)
            elif self.rows[group].all_present(segment, self.oldest(segment)):
                counts[Status.PRESENT] += self.count * len(fields)
            else:
                status = self.rows[group].status(segment, fields, self.oldest(segment))
                _count(counts, self.per_row(group, status))
        for column in self.service.other_columns:
            if isinstance(column, PrunedColumn):
                counts[Status.PRUNED] += self.count
            elif isinstance(column, WindowColumn):
                self._count_computed(counts, [column])
            else:
                computed = self.service.transforms[column.transform]
                deciding = [item.stored for item in computed.inputs if self._decides(computed.plan, item)]
                self._count_computed(counts, deciding)
        return counts

    def _count_computed(self, counts: list[int], inputs: list[StoredColumn | WindowColumn | None]) -> None:
        read = [column for column in inputs if column is not None]
        if all(self._is_present(column) for column in read):
            counts[Status.PRESENT] += self.count
            return
        _count(counts, np.maximum.reduce([self._stored_status(column) for column in read]))

    def _is_present(self, column: StoredColumn | WindowColumn) -> bool:
        """Whether it surely has a value in each row."""
        if column.group in self.request.skipped:
            return False
        if isinstance(column, WindowColumn):
            return not self.stored_tiles(column).absent(column).any()
        return self.rows[column.group].all_present(column.segment, self.oldest(column.segment))

    def traffic(self) -> tuple[int, int, int]:
        """Distinct keys asked for, bytes sent, bytes received."""
        request = self.request
        asked = request.asked
        if request.skipped:
            asked = [keys for group, keys in enumerate(asked) if group not in request.skipped]
        return sum([keys.size for keys in asked]), len(request.command), request.parser.bytes_received

    def skipped(self) -> list[str]:
        """The names of the groups that were not read."""
        return [self.service.groups[group].layout.name for group in sorted(self.request.skipped)]

    def event_times(self, name: str) -> Column | None:
        """(n,) int64 microseconds, NO_TIME where the row is missing; None when nothing stored is involved."""
        column = self.service.columns[name]
        if isinstance(column, PrunedColumn):
            return None
        if not isinstance(column, ComputedColumn):
            return self._stored_times(column)
        inputs = [item.stored for item in self.service.transforms[column.transform].inputs]
        times = [self._stored_times(item) for item in inputs if item is not None]
        return np.min(times, axis=0) if times else None

    def _stored_status(self, column: StoredColumn | WindowColumn) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if column.group in self.request.skipped:
            return np.full(self.count, Status.SKIPPED, np.uint8)
        if isinstance(column, WindowColumn):
            return self.per_row(column.group, self.stored_tiles(column).status(column))
        rows = self.rows[column.group]
        status = rows.status(column.segment, [column.field], self.oldest(column.segment))[:, 0]
        return self.per_row(column.group, status)

    def _stored_times(self, column: StoredColumn | WindowColumn) -> Column:
        if isinstance(column, WindowColumn):
            times = self.stored_tiles(column).event_times
            return self.per_row(column.group, np.where(times == 0, NO_TIME, times))
        return self.per_row(column.group, unbiased(self.rows[column.group].event_times(column.segment)))

    def stored_tiles(self, column: WindowColumn) -> StoredTiles:
        """The tiles that a window is read from."""
        tiles = self._tiles.get(column.group)
        if tiles is None:
            layout = self.service.groups[column.group].layout
            assert isinstance(layout, TileValueLayout)
            tiles = self._tiles[column.group] = StoredTiles(
                layout, self.rows[column.group], self.service.window_reader(column.group), self.now_us
            )
        return tiles

    def _listed(self, column: StoredColumn | WindowColumn) -> list[Any]:
        """What has no fixed width, a Python value per row."""
        if isinstance(column, WindowColumn):
            return self._each_row(column.group, self.stored_tiles(column).python_values(column))
        return self._variable_values(column)

    def _stored(self, column: StoredColumn | WindowColumn) -> Column:
        if isinstance(column, WindowColumn):
            return self.stored_tiles(column).values(column)
        return self.rows[column.group].values(column.segment, column.field)

    def _variable_values(self, column: StoredColumn) -> list[Any]:
        stored = self._variables[column.group, column.segment.view]
        status = self.rows[column.group].status(column.segment, [column.field], self.oldest(column.segment))[:, 0]
        decoded = [
            self._variable_value(column, i, stored[i]) if code == Status.PRESENT else None
            for i, code in enumerate(status.tolist())
        ]
        return self._each_row(column.group, decoded)

    def _variable_value(self, column: StoredColumn, row: int, value: bytes | None) -> Any:
        width = column.segment.times_bytes
        times = self.rows[column.group].part(column.segment.offset, width)[row].tobytes()
        if value is None or value[:width] != times:
            raise CorruptRowError(
                self._key_name(column.group, row, column.segment.view),
                expected=f"the variable value of the row's times, {times.hex()}",
                got="none" if value is None else value[:width].hex(),
                hint="delete the entity and materialize it again",
            )
        return decode_variable(value, column.segment, column.field)

    # -- on-demand functions ------------------------------------------------------------------------------------

    def computed(self, column: ComputedColumn) -> Column:
        """(n,) of what an on-demand function returned, whatever the status."""
        if column.transform not in self._results:
            compiled = self.service.transforms[column.transform]
            inputs = {item.name: self._input(item) for item in compiled.inputs}
            nulls = {item.name: self._nulls(item) for item in compiled.inputs} if compiled.plan.nulls == "shown" else {}
            self._results[column.transform] = run_transform(compiled, inputs, nulls, self.count)
        return self._results[column.transform][column.output]

    def _input(self, item: TransformInput) -> Column:
        if item.stored is None:
            return self.service.request_column(item, self.request.values, self.count)
        column = item.stored
        values = (
            self._listed(column) if column.dtype.width is None else self.per_row(column.group, self._stored(column))
        )
        return shown_input(item, values, self._stored_status(column) != Status.PRESENT)

    def _nulls(self, item: TransformInput) -> Column:
        if item.stored is None:
            return self.service.request_nulls(item, self.request.values, self.count)
        absent: Column = self._stored_status(item.stored) != Status.PRESENT
        return absent

    def _inputs_status(self, transform: CompiledTransform) -> np.ndarray[Any, np.dtype[np.uint8]]:
        status = np.zeros(self.count, np.uint8)
        for item in transform.inputs:
            if item.stored is not None and self._decides(transform.plan, item):
                np.maximum(status, self._stored_status(item.stored), out=status)
        return status

    def _decides(self, transform: TransformPlan, item: TransformInput) -> bool:
        """Whether results have the status of this input."""
        return item.stored is not None and (
            decides_absence(transform, item) or item.stored.group in self.request.skipped
        )

    # -- from the reply to rows ---------------------------------------------------------------------------------

    def _rows_in_place(self) -> list[StoredRows]:
        parser = self.request.parser
        runs = iter(parser.runs)
        rows = []
        for group, asked in zip(self.service.groups, self.request.asked, strict=True):
            if asked.size:
                run = next(runs)
                rows.append(StoredRows(group.layout, parser.reply, run.count, run.at, run.stride))
            else:
                rows.append(StoredRows(group.layout, group.layout.empty, 0, 0, group.layout.size))
        return rows

    def _rows_of_values(self) -> list[StoredRows]:
        request, groups = self.request, self.service.groups
        values: list[list[list[bytes | None]]] = [
            [[None] * asked.size for _ in range(1 + len(group.variables))]
            for group, asked in zip(groups, request.asked, strict=True)
        ]
        places = request.places
        if places is None:
            places = [[list(range(asked.size)) for asked in request.asked]]
        for reply, chosen in zip(request.parser.replies, places, strict=True):
            found = iter(reply)
            for of_group, indexes in zip(values, chosen, strict=True):
                for of_prefix in of_group:
                    for i in indexes:
                        of_prefix[i] = next(found)
        for i, (group, of_group) in enumerate(zip(groups, values, strict=True)):
            for view, of_prefix in zip(group.variables, of_group[1:], strict=True):
                self._variables[i, view] = of_prefix
        return [
            StoredRows.from_values(group.layout, of_group[0], lambda row, i=i: self._key_name(i, row))  # type: ignore[misc]
            for i, (group, of_group) in enumerate(zip(groups, values, strict=True))
        ]

    # -- small parts --------------------------------------------------------------------------------------------

    def oldest(self, segment: SegmentLayout) -> int:
        """The oldest event time that has not expired, as stored; at least 1, so that 0, the absent time, is older."""
        if segment.ttl_us is None:
            return 1
        oldest = encode_time(self.now_us - segment.ttl_us)
        return oldest if 0 < oldest < 1 << 64 else 1 if oldest <= 0 else (1 << 64) - 1

    def per_row(self, group: int, values: Column) -> Column:
        """Values of a group's keys → values of the response's rows."""
        inverse = self.request.asked[group].inverse
        if inverse is not None:
            return values[inverse]
        return values if len(values) == self.count else np.repeat(values, self.count, axis=0)

    def _each_row(self, group: int, values: list[Any]) -> list[Any]:
        inverse = self.request.asked[group].inverse
        if inverse is not None:
            return [values[i] for i in inverse.tolist()]
        return values if len(values) == self.count else values * self.count

    def _key_name(self, group: int, row: int, view: str = "") -> str:
        from feature_store.online.keys import decode

        read = self.service.groups[group]
        key = decode(read.dtypes, self.request.asked[group].each()[row])
        named = ", ".join(f"{name}={value!r}" for (name, _), value in zip(read.join_keys, key, strict=True))
        return f"project {self.service.plan.project}, row of {read.layout.name}({named})" + (view and f", view {view}")


def _count(counts: list[int], status: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    for code, found in enumerate(np.bincount(status.ravel()).tolist()):
        counts[code] += found


def _numbers(name: str, column: WindowColumn | ComputedColumn, values: Column, absent: Column) -> Column:
    """Values as a matrix has them, with the default where they are absent."""
    if values.dtype == np.int64:
        refuse_identifiers([name], values)
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    if absent.any():
        default = default_elements(column.dtype, column.default)
        numbers[absent] = default[0] if column.dtype.length is None else default
    return numbers
