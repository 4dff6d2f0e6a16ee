"""The shortest way from the bytes of one MGET to a dict, an Arrow table or a DataFrame, for the values of one service.

It knows nothing of time to live, nulls or plans. A row that does not exist is zeros.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Self, cast

import hiredis
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from feature_store.online import keys
from feature_store.online.layout import RowLayout

if TYPE_CHECKING:
    from feature_store.online.layout import SegmentLayout
    from feature_store.registry.serving_plan import ServingPlan


RECEIVE_BYTES = 1 << 16


class Connection:
    """A connection that sends one MGET at a time, packed and parsed by hiredis."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self._reader = hiredis.Reader()
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def mget(self, keys: list[bytes]) -> list[Any]:
        """The values of the keys: bytes, or None."""
        return cast("list[Any]", self.ask([(b"MGET", *keys)])[0])

    def ask(self, commands: list[tuple[bytes, ...]]) -> list[Any]:
        """The replies to commands, which are sent at once."""
        self._socket.sendall(b"".join([hiredis.pack_command(command) for command in commands]))
        replies: list[Any] = []
        while len(replies) < len(commands):
            while (reply := self._reader.gets()) is False:
                self._reader.feed(self._socket.recv(RECEIVE_BYTES))
            replies.append(reply)
        return replies

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class FormsFloor:
    """A connection that reads one service, all of whose views belong to one row group.

    Args:
        plan: the serving plan.
        service: the service. Its columns are those of its views, in order.
        address: of the server, `HOST:PORT`.
    """

    def __init__(self, plan: ServingPlan, service: str, address: str) -> None:
        self._project = plan.project
        self._layout = RowLayout(plan.group_of(plan.service(service).columns[0].view))
        self._connection = Connection(address)
        self._names: list[str] = []
        self._texts: list[str] = []
        self._lists: list[str] = []
        formats: dict[str, tuple[Any, int]] = {}
        for segment in self._layout.segments.values():
            names = [name for name, field in segment.fields.items() if field.dtype.length is None and field.slot < 0]
            if names:
                first = segment.fields[names[0]]
                formats[segment.view] = (first.dtype.code, (len(names),)), segment.offset + first.offset
                self._names += names
            for name, field in segment.fields.items():
                if field.dtype.length is not None:
                    formats[name] = (field.dtype.numpy, (field.dtype.length,)), segment.offset + field.offset
                    self._lists.append(name)
        self._blocks = [name for name in formats if name not in self._lists]
        self._row = np.dtype(
            {
                "names": list(formats),
                "formats": [form for form, _ in formats.values()],
                "offsets": [offset for _, offset in formats.values()],
                "itemsize": self._layout.size,
            }
        )
        self._variables = [segment for segment in self._layout.segments.values() if segment.variable_fields]
        self._texts = [field.name for segment in self._variables for field in segment.variable_fields]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def keys(self, ids: list[int]) -> list[bytes]:
        """The keys of the rows of entities, then those of their variable values, view by view."""
        encoded = keys.encode([dtype for _, dtype in self._layout.join_keys], [np.array(ids)])
        group = self._layout.group
        prefixes = [keys.row_prefix(self._project, 0, group)]
        prefixes += [keys.variable_prefix(self._project, 0, group, segment.view) for segment in self._variables]
        return [prefix + key for prefix in prefixes for key in encoded]

    def to_dict(self, asked: list[bytes]) -> dict[str, list[Any]]:
        """Per feature its Python values."""
        rows, texts = self._read(asked)
        columns = [column for block in self._blocks for column in rows[block].T.tolist()]
        columns += texts
        columns += [rows[name].tolist() for name in self._lists]
        return dict(zip([*self._names, *self._texts, *self._lists], columns, strict=True))

    def to_arrow(self, asked: list[bytes]) -> pa.Table:
        """One column per feature that is no list."""
        rows, texts = self._read(asked)
        arrays = [pa.array(column) for block in self._blocks for column in np.ascontiguousarray(rows[block].T)]
        arrays += [pa.array(column) for column in texts]
        return pa.Table.from_arrays(arrays, [*self._names, *self._texts])

    def to_pandas(self, asked: list[bytes]) -> pd.DataFrame:
        """One column per feature that is no list."""
        rows, texts = self._read(asked)
        if texts:
            return pd.DataFrame(dict(zip(self._texts, texts, strict=True)))
        return pd.DataFrame(self._matrix(rows), columns=self._names)

    def to_polars(self, asked: list[bytes]) -> pl.DataFrame:
        """One column per feature that is no list."""
        rows, texts = self._read(asked)
        if texts:
            return pl.DataFrame(dict(zip(self._texts, texts, strict=True)))
        return pl.from_numpy(self._matrix(rows), schema=self._names)

    def _matrix(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.concatenate([rows[block] for block in self._blocks], axis=1)

    def _read(self, asked: list[bytes]) -> tuple[np.ndarray[Any, Any], list[list[str]]]:
        replies = self._connection.mget(asked)
        count = len(asked) // (1 + len(self._variables))
        empty = self._layout.empty
        rows = np.frombuffer(b"".join([reply or empty for reply in replies[:count]]), self._row)
        texts: list[list[str]] = []
        for i, segment in enumerate(self._variables, start=1):
            texts += _texts(segment, replies[i * count : (i + 1) * count])
        return rows, texts


def _texts(segment: SegmentLayout, values: list[bytes]) -> list[list[str]]:
    """The strings of a view, field by field."""
    slots, at = len(segment.variable_fields), segment.times_bytes
    ends_of = struct.Struct(f"<{slots}I").unpack_from
    start = at + 4 * slots
    rows = []
    for value in values:
        first = start
        row = []
        for end in ends_of(value, at):
            row.append(value[first : start + end].decode())
            first = start + end
        rows.append(row)
    return [list(column) for column in zip(*rows, strict=True)]
