"""The leases and last runs of scheduled views, on each kind of database."""

from __future__ import annotations

import threading

import pytest

from feature_store.registry.runs import Lease, Run
from feature_store.registry.store import Registry

DUE, NOW, LATER = 1_000_000, 2_000_000, 3_000_000


@pytest.fixture
def registry(database_url: str) -> Registry:
    return Registry(database_url, "shop")


def test_one_process_at_a_time_has_the_lease_of_a_view(registry: Registry) -> None:
    runs = registry.runs
    mine, other = Lease("stats", "me", LATER), Lease("stats", "other", LATER)
    assert runs.begin(mine, DUE, NOW)
    assert not runs.begin(other, DUE, NOW)
    assert runs.begin(other._replace(view="visits"), DUE, NOW), "another view is free"
    assert runs.of_views()["stats"] == Run(DUE, "running", NOW, NOW, "", "me", LATER)
    assert runs.of_views()["stats"].is_running(NOW)
    runs.end(mine, LATER)
    assert runs.of_views()["stats"] == Run(DUE, "done", NOW, LATER, "", "me", LATER)
    assert runs.begin(other, DUE, NOW), "a run that has ended holds nothing, though its lease would not have ended"
    registry.close()


def test_the_lease_of_a_process_that_died_ends(registry: Registry) -> None:
    runs = registry.runs
    dead, other = Lease("stats", "dead", LATER), Lease("stats", "other", LATER + 10)
    assert runs.begin(dead, DUE, NOW)
    assert not runs.of_views()["stats"].is_running(LATER)
    assert runs.begin(other, DUE, LATER)
    assert not runs.renew(dead._replace(until_us=LATER + 100)), "it is not its own any more"
    runs.end(dead, LATER + 1, "too late")
    assert runs.of_views()["stats"].state == "running"
    registry.close()


def test_a_renewed_lease_lasts_longer(registry: Registry) -> None:
    runs = registry.runs
    mine = Lease("stats", "me", LATER)
    assert runs.begin(mine, DUE, NOW)
    assert runs.renew(mine._replace(until_us=LATER + 100))
    assert not runs.begin(Lease("stats", "other", LATER + 100), DUE, LATER + 50)
    registry.close()


def test_a_failed_run_tells_why(registry: Registry) -> None:
    runs = registry.runs
    mine = Lease("stats", "me", LATER)
    assert runs.begin(mine, DUE, NOW)
    runs.end(mine, NOW + 5, "no such file\n" * 1_000)
    run = runs.of_views()["stats"]
    assert (run.state, run.ended_us) == ("failed", NOW + 5)
    assert run.problem.startswith("no such file")
    registry.teardown()
    assert runs.of_views() == {}
    registry.close()


def test_of_processes_that_begin_at_once_one_has_the_lease(database_url: str) -> None:
    barrier, outcomes = threading.Barrier(6), []

    def begin(number: int) -> None:
        registry = Registry(database_url, "shop")
        barrier.wait()
        outcomes.extend(registry.runs.begin(Lease("stats", f"{number}", LATER), DUE, NOW) for _ in range(5))
        registry.close()

    Registry(database_url, "shop").close()
    threads = [threading.Thread(target=begin, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(True) == 1
    assert len(outcomes) == 30
