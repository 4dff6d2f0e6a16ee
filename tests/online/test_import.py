from __future__ import annotations

import subprocess
import sys

HEAVY = [
    "pandas",
    "pyarrow",
    "pyspark",
    "duckdb",
    "sqlalchemy",
    "confluent_kafka",
    "typer",
    "feast",
    "rich",
    "redis",
    "pydantic",
    "prometheus_client",
    "opentelemetry",
]


def test_importing_the_client_loads_nothing_heavy() -> None:
    code = f"import sys, feature_store.online; print([name for name in {HEAVY} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_serving_loads_nothing_that_it_does_not_use(redis_url: str) -> None:
    used = ("redis", "pydantic", "opentelemetry")  # redis-py itself loads opentelemetry, where it is installed
    code = f"""
import sys
from feature_store.online import OnlineClient
from feature_store.errors import NotPublishedError
try:
    OnlineClient({redis_url!r}, "nothing").get_online_features("s", {{}})
except NotPublishedError:
    heavy = {[name for name in HEAVY if name not in used]}
    print([name for name in heavy if name in sys.modules])
"""
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
