"""Rows of Arrow: where they come from, how they are made plain and checked, and what is set aside."""

from feature_store._extras import requires_extra

with requires_extra("local", "Arrow tables"):
    import pyarrow as pyarrow
