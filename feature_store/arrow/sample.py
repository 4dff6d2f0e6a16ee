"""The sample data that `feature-store init` writes beside its template, for the first commands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_sample(folder: Path) -> None:
    """Write the files that the template's sources name: rows of three products on two days, and of two users.

    Raises:
        FileExistsError: the folder exists.
    """
    today = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    yesterday = today - timedelta(days=1)
    time, whole, real = pa.timestamp("us", "UTC"), pa.int64(), pa.float32()
    products = pa.table(
        {
            "product_id": pa.array([1, 2, 3, 1, 2], whole),
            "event_timestamp": pa.array([yesterday] * 3 + [today] * 2, time),
            "price": pa.array([9.5, 20.0, 35.0, 10.0, 18.0], real),
            "clicks_7d": pa.array([120, 45, 8, 131, 39], pa.int32()),
        }
    )
    users = pa.table(
        {
            "user_id": pa.array([1, 2], whole),
            "event_timestamp": pa.array([today] * 2, time),
            "orders_30d": pa.array([3, 0], pa.int32()),
            "mean_basket": pa.array([52.5, None], real),
        }
    )
    folder.mkdir()
    pq.write_table(products, folder / "products.parquet")
    pq.write_table(users, folder / "users.parquet")
