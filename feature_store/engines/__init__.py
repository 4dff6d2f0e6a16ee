"""Engines: they read, sort and partition offline data. `engine.py` and `join.py` are their contracts."""

from feature_store.errors import extra

with extra("local", "feature_store.engines"):
    import pyarrow as pyarrow
