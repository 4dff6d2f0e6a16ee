"""Pages of a registry with 5,000 features in 300 views: how long a visitor waits, and Chromium draws the graph.

The first visit of a page starts the computations beside it. The visits after that are measured.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from benchmarks.projects import LARGE, project, table
from feature_store.project.pruner import Pruner
from feature_store.pruning.importance import FeatureImportance, Importances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.server import Server
    from feature_store import FeatureStore

PAGES = {
    "overview": "/",
    "catalogue": "/catalogue",
    "catalogue, last page": "/catalogue?kind=features&page=100",
    "search": "/catalogue?q=number+kind+17",
    "search, misspelt": "/catalogue?q=nubmer+kidn",
    "feature": "/feature/view1/f3",
    "view": "/view/view1",
    "service": "/service/service1",
    "entity": "/entity/entity1",
    "source": "/source?name=data/view1.parquet",
    "lineage": "/lineage",
    "lineage of a view": "/lineage?kind=views&name=view1",
    "prune": "/prune?service=service1",
    "look up": "/lookup?of=service:service1&" + "&".join(f"entity{i}_id=1" for i in range(10)),
}
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def large(redis_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:

    with project(tmp_path_factory.mktemp("ui"), "large", LARGE, redis_server.url) as store:
        for view in list(store.definitions.feature_views.values())[:20]:
            names = [field.name for field in view.fields]
            store.push(view.name, table(view.join_keys[0], np.arange(1000), names))
        names = [name for one in store.definitions.service("service1").features for _, name in one.columns]
        items = tuple(FeatureImportance(name, 1 / (i + 1)) for i, name in enumerate(names))
        Pruner(store).import_importances("service1", Importances("gain", "model1", datetime.now(UTC), items))
        yield store


@pytest.fixture(scope="module")
def address(large: FeatureStore) -> Iterator[str]:
    """Where `feature-store ui` serves it."""
    command = "import sys; from feature_store.cli import main; main()"
    arguments = ["ui", "--repo", str(large.config.folder), "--port", "0", "--no-token"]
    server = subprocess.Popen([sys.executable, "-c", command, *arguments], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    yield server.stderr.readline().split()[0].rstrip("/")
    server.terminate()
    server.wait()
    server.stderr.close()


@pytest.mark.parametrize("page", PAGES)
def test_page(benchmark: Any, address: str, page: str) -> None:
    benchmark.group = "pages of 5,000 features in 300 views"
    with httpx.Client(base_url=address) as client:
        while 'http-equiv="refresh"' in (answer := client.get(PAGES[page])).text:
            time.sleep(0.1)
        assert answer.status_code == 200, answer.text
        benchmark.pedantic(client.get, (PAGES[page],), rounds=50, warmup_rounds=2)


def test_lineage_in_chromium(benchmark: Any, address: str) -> None:
    """From the click to the graph on the screen."""
    benchmark.group = "the graph of 300 views in Chromium"
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path is not None, "needs Chromium on the PATH"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        page = browser.new_page()

        def show() -> None:
            page.goto(f"{address}/lineage", wait_until="load")
            # Two frames later all is painted.
            page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

        benchmark.pedantic(show, rounds=10, warmup_rounds=1)
        assert page.locator("a.node.views").count() == 300
        browser.close()
