from __future__ import annotations

import pytest

from feature_store.engines.local.engine import LocalEngine
from feature_store.engines.spark.engine import SparkEngine


@pytest.fixture(params=["local", "spark"])
def engine(request: pytest.FixtureRequest) -> LocalEngine | SparkEngine:
    """Each engine in turn, so that one suite tests both."""
    return LocalEngine() if request.param == "local" else request.getfixturevalue("spark_engine")
