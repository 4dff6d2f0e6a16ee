from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from feature_store.errors import NotFoundError
from feature_store.ui import background as module
from feature_store.ui.background import Background, Computed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def background() -> Iterator[Background]:
    found = Background()
    yield found
    found.close()


def test_what_takes_long_is_pending_and_computed_once(background: Background) -> None:
    may_end, calls = threading.Event(), []

    def compute() -> int:
        calls.append(1)
        assert may_end.wait(30)
        return 7

    assert background.ask("a", compute, patience_s=0.0).is_pending
    assert background.ask("a", compute, patience_s=0.0).is_pending
    may_end.set()
    assert background.ask("a", compute, patience_s=30) == Computed(7)
    assert background.ask("a", compute, patience_s=0.0) == Computed(7)
    assert calls == [1]


def test_the_old_answer_stands_while_a_new_one_is_computed(background: Background) -> None:
    may_end = threading.Event()
    assert background.ask("a", lambda: 1, patience_s=30) == Computed(1)

    def compute() -> int:
        assert may_end.wait(30)
        return 2

    assert background.ask("a", compute, max_age_s=0.0, patience_s=0.0) == Computed(1)
    may_end.set()
    assert background.ask("a", compute, patience_s=30) == Computed(2)


def test_an_error_is_an_outcome_and_is_tried_again(background: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> int:
        raise NotFoundError("x")

    found = background.ask("a", fails, patience_s=30)
    assert isinstance(found.error, NotFoundError)
    assert not found.is_pending
    assert background.ask("a", lambda: 1, patience_s=30).error is not None, "not at once"
    monkeypatch.setattr(module, "_RETRY_S", 0.0)
    time.sleep(0.001)
    assert background.ask("a", lambda: 1, patience_s=30) == Computed(1)


def test_a_fault_is_raised_and_tried_again(background: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> int:
        raise RuntimeError("x")

    for _ in range(2):
        with pytest.raises(RuntimeError):
            background.ask("a", fails, patience_s=30)
    monkeypatch.setattr(module, "_RETRY_S", 0.0)
    time.sleep(0.001)
    assert background.ask("a", lambda: 1, patience_s=30) == Computed(1)


def test_only_so_many_answers_are_kept(background: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_KEPT", 3)
    for i in range(10):
        assert background.ask(i, partial(int, i), patience_s=30) == Computed(i)
    assert len(background) == 3


def test_what_nobody_waits_for_is_dropped(background: Background) -> None:
    """Calculations are dropped per kind, so that a flood of what-ifs does not hold up a sample."""
    may_end, done = threading.Event(), list[object]()

    def compute(key: object) -> object:
        assert may_end.wait(30)
        done.append(key)
        return key

    for i in range(300):
        key = ("what-if", i)
        assert background.ask(key, lambda key=key: compute(key), patience_s=0.0).is_pending  # type: ignore[misc]
    assert background.ask(("sample", 1), lambda: compute("sample"), patience_s=0.0).is_pending
    may_end.set()
    assert background.ask(("sample", 1), lambda: compute("sample"), patience_s=30) == Computed("sample")
    newest = ("what-if", 299)
    assert background.ask(newest, lambda: compute(newest), patience_s=30) == Computed(newest)
    assert len(done) <= module.MOST_WAITING + 4 + 1, "four ran already, and the sample"
    # A dropped calculation runs when it is asked for again.
    again = ("what-if", 50)
    assert background.ask(again, lambda: compute(again), patience_s=30) == Computed(again)
