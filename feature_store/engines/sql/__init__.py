"""The SQL of views. DuckDB parses, checks and runs it for both engines."""
