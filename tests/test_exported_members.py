from __future__ import annotations

import importlib
import importlib.metadata

import pytest


@pytest.mark.parametrize(
    "package", ["feature_store", "feature_store.definitions", "feature_store.monitoring", "feature_store.online"]
)
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name if hasattr(getattr(module, name), "__name__") else True
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        module.nope  # noqa: B018


def test_the_contract() -> None:
    import feature_store

    contract = """Entity Field FeatureView StreamFeatureView OnDemandFeatureView on_demand_feature_view
        FeatureService Aggregation ParquetSource KafkaSource RequestSource Bool Int32 Int64 Float32 Float64 String Timestamp Array FeatureStore""".split()
    assert sorted(feature_store.__all__) == sorted(contract)


def test_the_version_is_that_of_the_package() -> None:
    import feature_store

    assert importlib.metadata.version("feature-store") == feature_store.__version__
