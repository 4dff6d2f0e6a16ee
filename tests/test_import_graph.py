"""Modules import each other in no circle, those that are imported for their types included."""

from __future__ import annotations

import graphlib

import grimp
import pytest

# What the contracts of pyproject.toml let whole folders import for types, and the folders that use it at run time.
DOORS = {
    "pyarrow": (
        "feature_store.testing",
        "feature_store.arrow",
        "feature_store.engines",
        "feature_store.online.arrow",
        "feature_store.training.finish",
    ),
    "redis": ("feature_store.online", "feature_store.testing"),
    "pandas": ("feature_store.online.arrow",),
    "polars": ("feature_store.online.arrow",),
}


def test_no_modules_import_each_other() -> None:
    graph = grimp.build_graph("feature_store", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("library", DOORS)
def test_heavy_libraries_are_imported_for_types_alone_outside_of_their_doors(library: str) -> None:
    graph = grimp.build_graph(
        "feature_store", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    importing = graph.find_modules_that_directly_import(library)
    assert [module for module in importing if not module.startswith(DOORS[library])] == []
