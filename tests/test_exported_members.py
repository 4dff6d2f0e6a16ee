from __future__ import annotations

import ast
import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import feature_store

PACKAGE = Path(feature_store.__file__).parent

# What users may import; anything else of the package may change in any release.
PUBLIC = {
    "feature_store": """Entity Field FeatureView StreamFeatureView OnDemandFeatureView on_demand_feature_view
        FeatureService Aggregation ArrowSource AvroFormat AvroSource CloudEventsFormat CsvSource DeltaSource IcebergSource InMemorySource JsonFormat
        JsonLinesSource JsonSchemaFormat MessagePackFormat ParquetSource KafkaSource RequestSource Sequence SqlSource
        Bool Int8 Int16 Int32 Int64 Float16 Float32 Float64 Decimal String Bytes Date Timestamp Array
        FeatureStore Pruner""",
    "feature_store.definitions": """Entity Field FeatureView StreamFeatureView OnDemandFeatureView on_demand_feature_view
        FeatureService Aggregation ArrowSource AvroFormat AvroSource CloudEventsFormat CsvSource DeltaSource IcebergSource InMemorySource JsonFormat
        JsonLinesSource JsonSchemaFormat MessagePackFormat ParquetSource KafkaSource RequestSource Sequence SqlSource DefinitionSet Projection
        Bool Int8 Int16 Int32 Int64 Float16 Float32 Float64 Decimal String Bytes Date Timestamp Array DType""",
    "feature_store.functions": """LIFETIME_US CellFunction Column Function Mask Parameter Part State StateArrays StateSpec
        TimeSpan Values WindowMask all_functions function_named sizes_of state_type values_of""",
    "feature_store.online": "OnlineClient AsyncOnlineClient OnlineResponse OnlineStore Padded Ragged Status",
    "feature_store.monitoring": "CacheMetrics ClientMetrics ParquetSink ServedLog Tracing",
    "feature_store.streaming": "KafkaSink",
    "feature_store.pruning": """Budget FeatureImportance Footprint Importances PrunePlan Training Verification
        draw_curve importance_from_model read_importances""",
    "feature_store.project": "Config load_config",
    "feature_store.cli": """CountReport ProgressReport console show_changes show_footprints show_summaries
        show_verification""",
}
PACKAGES = sorted(
    ".".join(["feature_store", *init.parent.relative_to(PACKAGE).parts]) for init in PACKAGE.rglob("__init__.py")
)


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_these_and_each_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(PUBLIC[package].split()) == dir(module)
    for name in module.__all__:
        value = getattr(module, name)
        assert not isinstance(value, type) or value.__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        module.nope  # noqa: B018


def test_no_other_package_has_public_names() -> None:
    with_names = {package for package in PACKAGES if hasattr(importlib.import_module(package), "__all__")}
    assert with_names == set(PUBLIC)


def test_the_top_of_the_package_holds_private_modules_errors_and_folders() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_")}
    assert {name for name in modules if "moved_names(" not in (PACKAGE / f"{name}.py").read_text()} == {"errors"}


EXAMPLES = sorted((PACKAGE.parent / "examples").rglob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_examples_import_public_names_alone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("feature_store."):
            if node.module != "feature_store.errors":
                names = {alias.name for alias in node.names}
                assert names <= set(PUBLIC.get(str(node.module), "").split()), f"{path.name}: {node.module}"
        elif isinstance(node, ast.Import):
            assert not [alias for alias in node.names if alias.name.startswith("feature_store.")], path.name


def test_a_star_import_brings_the_public_names() -> None:
    found: dict[str, object] = {}
    exec("from feature_store import *", found)
    assert found.keys() - {"__builtins__"} == set(PUBLIC["feature_store"].split())


def test_a_package_loads_a_name_when_it_is_first_used() -> None:
    code = """import sys, feature_store.definitions
assert "feature_store.definitions.entity" not in sys.modules
feature_store.Entity
assert "feature_store.definitions.entity" in sys.modules
assert "Entity" in vars(feature_store)"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_listed_once() -> None:
    """A package's public imports are its list: none has an `__all__` or a table of homes beside them."""
    for package in PUBLIC:
        tree = ast.parse(Path(str(importlib.import_module(package).__file__)).read_text())
        assigned = {
            ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
        }
        assert assigned <= {"(__getattr__, __dir__)", "__version__"}


def test_the_version_is_that_of_the_package() -> None:
    assert importlib.metadata.version("feature-store") == feature_store.__version__
