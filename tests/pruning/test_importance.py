from __future__ import annotations

import math
import os
from datetime import UTC, datetime

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.errors import DataError
from feature_store.pruning.importance import FeatureImportance, Importances, ViewImportance, checked
from feature_store.pruning.importance_file import read_importances

WHEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def importances(*pairs, **more) -> Importances:
    return Importances("gain", "m", WHEN, tuple(FeatureImportance(*pair) for pair in pairs), **more)


def test_json_round_trip():
    view = ViewImportance("v", 0.5, None, 0.1, ("a", "b"))
    given = importances(
        ("a", 0.5, 0.1),
        ("b", 0.0),
        views=(view,),
        noise=0.01,
        clusters=(("a", "b"),),
        cluster_gains=(0.5,),
        metric="auc",
    )
    assert Importances.from_json(given.to_json()) == given
    assert given.to_json() == Importances.from_json(given.to_json()).to_json()


@pytest.mark.parametrize("document", [b"{}", b"[]", b"nonsense", b'{"format": 2}', b'{"format": 1, "method": "m"}'])
def test_another_document_is_refused(document):
    with pytest.raises(DataError, match="a document of format 1"):
        Importances.from_json(document)


def test_checked_puts_them_in_order():
    assert checked(importances(("b", 1.0), ("a", 2.0)), ["a", "b"]) == importances(("a", 2.0), ("b", 1.0))


def test_checked_names_all_that_is_wrong():
    given = importances(
        ("a", 1.0, None, 1), ("x", 1.0, None, 2), ("b", -1.0, None, 3), ("a", 2.0, None, 4), ("c", math.nan, None, 5), ("d", 1.0, math.inf, 6), ("y", math.inf, None, 7)
    )  # fmt: skip
    with pytest.raises(DataError) as error:
        checked(given, ["a", "b", "c", "d", "e", "f"])
    assert error.value.got == (
        "unknown: row 2 x (1), row 7 y (inf); given more than once: row 1 a (1), row 4 a (2); "
        "negative or not finite: row 3 b (-1), row 5 c (nan), row 6 d (1 ± inf), row 7 y (inf); missing: e, f"
    )


ROWS = [
    {"feature": "a", "importance": 0.5, "std": 0.1, "method": "gain", "model": "m", "time": "2024-05-06T07:08:09Z"},
    {"feature": "v:b", "importance": 2, "std": None, "method": "gain", "model": "m", "time": "2024-05-05T00:00:00"},
]
READ = Importances("gain", "m", WHEN, (FeatureImportance("a", 0.5, 0.1), FeatureImportance("v:b", 2.0)))


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_bytes(orjson.dumps(rows))
    else:
        lines = [",".join(rows[0])] + [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
        path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_every_format_reads_the_same(tmp_path, suffix):
    found = read_importances(write(tmp_path / f"i{suffix}", ROWS))
    assert found == READ
    assert [item.row for item in found.features] == [1, 2]


def test_parquet_times_are_times(tmp_path):
    rows = [row | {"time": WHEN} for row in ROWS]
    assert read_importances(write(tmp_path / "i.parquet", rows)).measured_at == WHEN


def test_two_columns_are_enough(tmp_path):
    path = write(tmp_path / "i.csv", [{"feature": "a", "importance": 1.0}])
    os.utime(path, (WHEN.timestamp(), WHEN.timestamp()))
    assert read_importances(path) == Importances("imported", "", WHEN, (FeatureImportance("a", 1.0),))


def test_what_was_measured_can_be_read(tmp_path):
    path = tmp_path / "measured.json"
    path.write_bytes(READ.to_json())
    assert read_importances(path) == READ


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_cells_that_cannot_be_read_are_all_named(tmp_path, suffix):
    rows = [
        ROWS[0],
        ROWS[0] | {"importance": "much", "method": "shap"},
        ROWS[0] | {"feature": "", "time": "yesterday"},
        ROWS[0] | {"std": "x"},
    ]
    with pytest.raises(DataError) as error:
        read_importances(write(tmp_path / f"i{suffix}", rows))
    assert error.value.got == (
        "row 3 feature ''; row 2 importance 'much'; row 4 std 'x'; row 3 time 'yesterday'; "
        "more than one method: 'gain' in rows 1, 3, 4, 'shap' in rows 2"
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("i.csv", b"name,importance\na,1\n", "got no feature"),
        ("i.csv", b"feature,importance\n", "expected rows, got none"),
        ("i.csv", b"\xff\xfe", "expected readable rows"),
        ("i.json", b"[1]", "expected a list of rows"),
        ("i.json", b"{", "expected readable rows"),
        ("i.parquet", b"PAR", "expected readable data"),
        ("i.txt", b"", "expected a .csv, .parquet or .json file, got .txt"),
    ],
)
def test_files_that_hold_no_importances_are_refused(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_importances(tmp_path / name)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_importances(tmp_path / "none.csv")
