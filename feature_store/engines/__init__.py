"""Engines: they read, sort and partition offline data. `engine.py` and `join.py` are their contracts."""

from feature_store._extras import requires_extra

with requires_extra("local", "feature_store.engines"):
    import pyarrow as pyarrow
