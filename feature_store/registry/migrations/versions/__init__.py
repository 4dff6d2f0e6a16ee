"""One module for each change of the registry's tables. Alembic finds and runs them."""
