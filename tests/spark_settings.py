"""Spark as the tests use it."""

from __future__ import annotations

from pathlib import Path

from tests.jars import fetch

_ROOT = Path(__file__).resolve().parents[1]

# Quick to start: tests end before a better compiler and collector would pay.
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
SPARK: dict[str, str | int | float | bool] = {
    "spark.master": "local[2, 2]",  # two tasks at once, each tried twice
    "spark.ui.enabled": False,
    "spark.log.level": "OFF",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": JAVA,
    # Tests send functions of their own to tasks.
    "spark.executorEnv.PYTHONPATH": str(_ROOT),
}


def with_kafka() -> dict[str, str | int | float | bool]:
    """Settings of Spark with the Kafka connector."""
    return SPARK | {"spark.jars": ",".join(str(jar) for jar in sorted(fetch("spark_kafka").glob("*.jar")))}
