"""Make docs/aggregations.md from the functions: `python -m feature_store.functions._reference >
docs/aggregations.md`."""

from __future__ import annotations

from feature_store.functions._contract import Function
from feature_store.functions._parameters import REQUIRED
from feature_store.functions._registry import all_functions

_HEAD = """\
# Aggregations

`Aggregation(column, function, windows=[…])` computes a function of a column's values over sliding windows: in a
`StreamFeatureView` over the events of a topic, in a `FeatureView` over a table of events. Training computes the same
windows at the time of each label.

```python
Aggregation("price", "quantile", q=0.99, windows=[timedelta(hours=1)])              # price_p99_1h
Aggregation("action", "count_per_category", categories=["view", "buy"], windows=[timedelta(days=1)])
```

`windows=["lifetime"]` has no beginning: its feature, such as `price_sum_lifetime`, is computed from all events of an
entity, and no event is too late for it. Redis holds one cell of it for each entity instead of a ring of tiles. Events
count from the beginning of the `history` of the source, or of the topic if it has none. A training set has the lifetime
until each label. `expire_keys` does not delete entities of a view with a lifetime.

```python
Aggregation("price", "sum", windows=[timedelta(days=7), "lifetime"])                # price_sum_7d, price_sum_lifetime
```

Decayed functions take a half-life instead of windows, and keep a cell, too.

```python
Aggregation("price", "decayed_sum", half_life=timedelta(hours=6))                   # price_decayed_sum_6h
```

For all functions: null and NaN are no values, and no function counts them. -0.0 counts as 0.0. Infinite values count.
Functions of numbers compute with float64. The order in which events arrive never matters. Of two events with the same
time, the later is the one whose value has the greater bytes, read as an unsigned little-endian number.

This page is generated from `feature_store/functions/`. A function of your own is one file: see CONTRIBUTING.md.
"""
_TAKES = {
    "any": "a column of any type",
    "numbers": "numbers and booleans",
    "fixed width": "a column whose type has a fixed width",
    "categories": "texts, integers or booleans",
}


def reference() -> str:
    """The page, in Markdown."""
    functions = all_functions().values()
    rows = [f"| [`{one.name}`](#{one.name}) | {one.summary} |" for one in functions]
    table = "\n".join(["| function | feature |", "|---|---|", *rows])
    return "\n".join([_HEAD, table, *(_section(one) for one in functions)])


def _section(function: Function) -> str:
    lines = [f"\n## {function.name}", f"{_sentence(function.summary)} It takes {_TAKES[function.takes]}."]
    lines += [function.notes] if function.notes else []
    if function.parameters:
        lines += ["", "| parameter | value |", "|---|---|"]
    for name, parameter in function.parameters.items():
        default = "" if parameter.default is REQUIRED else f"; default {parameter.default}"
        lines.append(f"| `{name}` | {parameter.expected}{default} |")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


if __name__ == "__main__":
    print(reference(), end="")
