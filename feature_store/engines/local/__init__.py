"""The local engine, for one machine: DuckDB sorts, numpy computes."""
