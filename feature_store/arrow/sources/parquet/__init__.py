"""Parquet files as a source: the implementation of `arrow/sources` for ParquetSource."""
