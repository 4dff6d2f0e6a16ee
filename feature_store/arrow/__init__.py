"""Rows in Arrow: reading sources, converting to plain types, checking, and quarantine of invalid rows."""

from feature_store._extras import requires_extra

with requires_extra("local", "Arrow tables"):
    import pyarrow as pyarrow
