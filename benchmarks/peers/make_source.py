"""Make the Parquet file that both sides materialize: the same data for the same arguments, on any machine.

`python benchmarks/peers/make_source.py FILE [--rows N] [--entities N] [--seed N]`

The rows are an append log of 30 days, sorted by event time, in which every entity occurs. One row in a hundred corrects
an earlier one: the same entity and event time, created an hour later. So only the pair `(event_timestamp, created)`
determines the newest row of an entity.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START_US = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z in microseconds since the epoch."""
DAYS = 30
FEATURES = 10
DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
DELAY_US = 60_000_000
"""A row is created a minute after its event."""
ROW_GROUP_ROWS = 131_072


def source_table(rows: int = 1_000_000, entities: int = 100_000, seed: int = 0, features: int = FEATURES) -> pa.Table:
    """Columns `entity_id`, `event_timestamp`, `created`, `f0`, `f1`, …, sorted by event time."""
    rng = np.random.default_rng(seed)
    corrections = rows // 100
    originals = rows - corrections
    if originals < entities:
        raise ValueError(f"{rows} rows cannot hold {entities} entities")
    entity = rng.permutation(np.arange(originals, dtype=np.int64) % entities)
    event = START_US + rng.integers(0, DAYS * DAY_US, originals, dtype=np.int64)
    corrected = rng.choice(originals, corrections, replace=False)
    created = np.concatenate([event + DELAY_US, event[corrected] + DELAY_US + HOUR_US])
    entity = np.concatenate([entity, entity[corrected]])
    event = np.concatenate([event, event[corrected]])
    order = np.lexsort((created, event))
    values = rng.standard_normal((features, rows), dtype=np.float32)
    instant = pa.timestamp("us", tz="UTC")
    columns = {
        "entity_id": pa.array(entity[order]),
        "event_timestamp": pa.array(event[order]).cast(instant),
        "created": pa.array(created[order]).cast(instant),
    }
    return pa.table(columns | {f"f{i}": pa.array(values[i]) for i in range(features)})


def make_source(
    path: Path, rows: int = 1_000_000, entities: int = 100_000, seed: int = 0, features: int = FEATURES
) -> Path:
    """Writes the table to `path`, through a file beside it, so that a half-written one is never read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    pq.write_table(source_table(rows, entities, seed, features), unfinished, row_group_size=ROW_GROUP_ROWS)
    return unfinished.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the Parquet file that both sides materialize.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(make_source(arguments.path, arguments.rows, arguments.entities, arguments.seed))


if __name__ == "__main__":
    main()
