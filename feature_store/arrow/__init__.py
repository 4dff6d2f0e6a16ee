"""Rows of Arrow: where they come from, how they are made plain and checked, and what is set aside."""

from feature_store.errors import extra

with extra("local", "Arrow tables"):
    import pyarrow as pyarrow
