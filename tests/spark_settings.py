"""Spark as the tests use it."""

from __future__ import annotations

import os
from pathlib import Path

from jars import fetch

_TESTS = Path(__file__).resolve().parent

# Quick to start: tests are over before a better compiler and collector would pay.
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
SPARK: dict[str, str | int | float | bool] = {
    "spark.master": "local[2, 2]",  # two tasks at once, each tried twice
    "spark.ui.enabled": False,
    "spark.log.level": "OFF",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": JAVA,
    # What tests send to tasks is defined in these folders.
    "spark.executorEnv.PYTHONPATH": os.pathsep.join(str(path) for path in (_TESTS, _TESTS / "engines", _TESTS.parent)),
}


def with_kafka() -> dict[str, str | int | float | bool]:
    """The same with the Kafka connector."""
    return SPARK | {"spark.jars": ",".join(str(jar) for jar in sorted(fetch("spark_kafka").glob("*.jar")))}
