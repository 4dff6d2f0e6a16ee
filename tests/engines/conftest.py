from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from feature_store.engines.local.engine import LocalEngine

if TYPE_CHECKING:
    from feature_store.engines.spark.engine import SparkEngine


@pytest.fixture(params=["local", "spark"])
def engine(request: pytest.FixtureRequest) -> LocalEngine | SparkEngine:
    """Each engine in turn: one suite for both."""
    return LocalEngine() if request.param == "local" else request.getfixturevalue("spark_engine")
