"""Windows computed in the slow and obvious way: one pass over all events for each label, feature and window."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np

from feature_store.definitions import Aggregation
from feature_store.definitions.dtypes import MICROSECOND

Event = dict[str, Any]  # entity, ts and created in microseconds, columns


def naive(aggregation: Aggregation, window: Any, events: list[Event], entity: Any, now_us: int) -> Any:
    hop = aggregation.hop_us(window)
    start = (now_us - window // MICROSECOND) // hop * hop
    held = [
        (event["ts"], event[aggregation.column])
        for event in events
        if event["entity"] == entity
        and start <= event["ts"] <= now_us
        and event.get("created", event["ts"]) <= now_us
        and event[aggregation.column] is not None
        and not (isinstance(event[aggregation.column], float) and math.isnan(event[aggregation.column]))
        and (aggregation.filter is None or event["action"] == "buy")  # the filter of these tests
    ]
    values = [value for _, value in sorted(held, key=_by_time)]
    match aggregation.function:
        case "count":
            return len(values)
        case "sum":
            return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)
        case "last_n":
            return values[::-1][: aggregation.n]
        case "distinct":
            return len(set(values))
        case _:
            return _of_some(aggregation.function, values) if values else None


def _of_some(function: str, values: list[float]) -> float:
    finite = all(map(math.isfinite, values))
    if function == "mean":
        return math.fsum(values) / len(values) if finite else sum(values) / len(values)
    if function == "stddev":
        return statistics.pstdev(values) if finite else math.nan
    return {"first": values[0], "last": values[-1], "min": min(values), "max": max(values)}[function]


def _by_time(item: tuple[int, Any]) -> tuple[int, int]:
    return item[0], 0 if isinstance(item[1], str) else int(np.float64(item[1] + 0.0).view(np.uint64))
