"""Numbers as people read them."""

from __future__ import annotations

_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def counted(count: int, thing: str) -> str:
    """`1 row`, `1,682 rows`, `3 entities`."""
    if count == 1:
        return f"1 {thing}"
    return f"{count:,} {thing[:-1]}ies" if thing.endswith("ty") else f"{count:,} {thing}s"


def shown_number(value: float | None) -> str:
    """A number as people read it: six digits that matter at most."""
    if value is None:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.1f}"


def shown_bytes(count: int | None) -> str:
    """`82 B`, `1.4 MiB`."""
    if count is None:
        return "–"
    for size, unit in _SIZES:
        if abs(count) >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:,} B"
