"""The engine of one machine: DuckDB sorts, numpy computes."""
