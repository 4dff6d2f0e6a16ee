"""What reads, sorts and partitions offline data: sources, checked rows, and the engines behind one seam."""

from feature_store.errors import extra

with extra("local", "feature_store.engines"):
    import pyarrow as pyarrow
