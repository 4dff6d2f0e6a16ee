"""From definitions to a model that ranks, on MovieLens-100K. `bin/demo` runs it.

python demo.py [--requests 2000]
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import live
import model
import numpy as np
import prune
from broker import BrokerError, broker
from fetch import STEPS, FetchError, fetch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from feature_store import FeatureStore, Pruner
from feature_store.cli import (
    CountReport,
    ProgressReport,
    show_changes,
    show_footprints,
    show_summaries,
    show_verification,
)
from feature_store.errors import FeatureStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feature_store.online import OnlineResponse
    from feature_store.pruning import Footprint

FOLDER = Path(__file__).resolve().parent
FIRST_RATING, NOW = datetime(1997, 9, 20, tzinfo=UTC), datetime(1998, 4, 22, 12, tzinfo=UTC)
# The history holds the ratings before HISTORY_END. Kafka has the later ones: all at once before LIVE, then one by one.
HISTORY_END, LIVE = datetime(1998, 4, 15, tzinfo=UTC), datetime(1998, 4, 22, 3, tzinfo=UTC)
MOVING_USER, MOST_MOVES = 796, 10
USERS, MOVIES, CANDIDATES = 943, 1682, 200
SHOWN_ROWS, SHOWN_USER, RANKED_ROWS = 12, 42, 8
SHORTEST_COLUMN = 5  # characters: a rounded number with its sign
SEED = 7  # two runs send the same requests
WARM_UP = 20  # requests that are not counted: the first one compiles the service
REQUESTS_PER_REFRESH = 100

NEXT = (
    "feature-store list",
    "feature-store describe ranking",
    "feature-store lineage ranking",
)

# A pipe has no width; 80 columns would cut the tables.
console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def main() -> None:
    requests = _requests()
    try:
        steps(requests)
    except (FeatureStoreError, FetchError, BrokerError) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)  # the exit code of a command that was interrupted; the server is stopped by now


def steps(requests: int) -> None:
    with broker(FOLDER / ".feature_store" / "broker") as address:
        os.environ["MOVIELENS_KAFKA"] = address  # which feature_store.yaml names
        with FeatureStore(FOLDER) as store:
            steps_of(store, address, requests)
    heading(10, "Next", "the servers are stopped and their data kept; these commands start the store again")
    suggest()


def steps_of(store: FeatureStore, address: str, requests: int) -> None:
    heading(1, "Fetch", "MovieLens-100K, converted to Parquet under examples/movielens/data")
    is_new = fetch_data()
    heading(2, "Plan and apply", "features.py becomes a version in the registry and a serving plan in Redis")
    apply(store)
    heading(3, "Materialize", "the latest row of each user and movie, from Parquet into Redis")
    materialize(store, is_new)
    heading(4, "Stream", "ratings over Kafka into sliding windows, after a backfill from the history")
    stream(store, address)
    heading(5, "Read", f"user {SHOWN_USER} and {CANDIDATES} candidate movies, in one round trip")
    console.print(f"The ratings are of 1997–98, so the clock of all reads is pinned to {NOW:%Y-%m-%d %H:%M} UTC.")
    read(store)
    heading(6, "Measure", "with to_numpy(), one thread, random users and movies, over the embedded server's socket")
    measure(store, requests)
    heading(7, "Train and rank", "a model trained on what serving would have answered just before each rating")
    train_and_rank(store)
    heading(8, "Look into Redis", "one packed row per entity, with a segment per view; one value per set of windows")
    look(store)
    heading(9, "Prune", "features that the model does not need: planned, verified on later ratings, dropped, restored")
    drop_what_is_not_needed(store, requests)


# -- 1 to 3: from files to Redis ------------------------------------------------------------------------------------


def fetch_data() -> bool:
    """Returns whether the data are new."""
    with _progress(TimeElapsedColumn()) as progress:
        task = progress.add_task("fetch", total=len(STEPS) + 1)

        def report(step: str) -> None:
            progress.update(task, description=step, advance=1)

        is_new = fetch(FOLDER, report)
        progress.update(task, description="data made" if is_new else "data already there", completed=len(STEPS) + 1)
    return is_new


def apply(store: FeatureStore) -> None:
    show_changes(store.plan())
    applied = store.apply()
    console.print(f"serving version {applied.version.version} from {escape(store.online.shown_url)}")


def materialize(store: FeatureStore, is_new: bool) -> None:
    # Without this, intervals that are recorded as done would not be read again from files that were made anew.
    lookback = NOW - FIRST_RATING if is_new else timedelta(0)
    with ProgressReport(console) as report:
        summaries = store.materialize(end=NOW, lookback=lookback, report=report)
    show_summaries(summaries)
    if not any(summary.intervals for summary in summaries):
        console.print("Nothing to do: all intervals up to then are recorded as materialized.")


# -- 4: the stream ---------------------------------------------------------------------------------------------------


def stream(store: FeatureStore, address: str) -> None:
    live.make_topic(address)
    with ProgressReport(console) as report:
        for view in live.STREAMED:
            store.backfill(view, HISTORY_END, report=report)
    log = live.ratings_between(FOLDER, HISTORY_END, NOW)
    at_once = [rating for rating in log if rating["ts"] < LIVE]
    one_by_one = log[len(at_once) :]
    with live.streaming(store):
        show_moves(store, address, at_once)
        with _progress(TimeElapsedColumn(), auto_refresh=False) as progress:
            task = progress.add_task("one by one", total=len(one_by_one))

            def advanced() -> None:
                progress.update(task, advance=1)
                progress.refresh()

            seconds = live.delays(store, address, one_by_one, advanced)
    p50, p99 = (f"{np.percentile(seconds, p) * 1e3:.1f} ms" for p in (50, 99))
    console.print(f"From sending a rating until a client reads it, {len(seconds)} ratings: p50 {p50}, p99 {p99}.")


def show_moves(store: FeatureStore, address: str, ratings: list[live.Rating]) -> None:
    columns = [_right(name.removeprefix("user_").replace("_", " ")) for name in live.SHOWN]
    table = _table("ratings up to", *columns)
    begun = time.perf_counter()
    with _progress(TimeElapsedColumn()) as progress:
        task = progress.add_task("replay", total=len(ratings))
        moves = list(live.replay(store, address, ratings, MOVING_USER, lambda: progress.advance(task)))
    seconds = time.perf_counter() - begun
    for at, windows in moves[:: max(1, -(-len(moves) // MOST_MOVES))]:
        table.add_row(f"{at:%m-%d %H:%M:%S}", *map(_cell, windows.values()))
    console.print(
        f"{len(ratings):,} ratings of a week in {seconds:.1f} s; the windows of user {MOVING_USER} meanwhile:"
    )
    console.print(table)


# -- 5, 6: what is served -----------------------------------------------------------------------------------------


def read(store: FeatureStore) -> None:
    movies = random.Random(SEED).sample(range(1, MOVIES + 1), CANDIDATES)
    request = {"user_id": SHOWN_USER, "movie_id": movies, "now_year": NOW.year}
    cards = store.get_online_features("cards", request, now=NOW)
    matrix = store.get_online_features("ranking", request, now=NOW).to_numpy()
    show(movies, cards)
    console.print(f"… and {CANDIDATES - SHOWN_ROWS} more rows. Values: {_status_counts(cards)}.")
    rows, columns = matrix.shape
    console.print(
        f"For the model, the service [bold]ranking[/] returns the same {CANDIDATES} movies as one {rows} × {columns} "
        f"{matrix.dtype} matrix."
    )


def show(movies: list[int], cards: OnlineResponse) -> None:
    # Names are broken at underscores, and the title alone is cut, so that 80 columns do.
    headers = [name.replace("_", "_\n") for name in ("movie_id", *cards.names)]
    widths = [max(SHORTEST_COLUMN, *map(len, header.split("\n"))) for header in headers]
    title = headers.index("title")
    widths[title] = max(12, min(36, console.width - 2 - sum(width + 1 for width in widths) + widths[title]))
    table = _table()
    for i, header in enumerate(headers):
        table.add_column(header, justify="left" if i == title else "right", no_wrap=True, width=widths[i])
    values = cards.to_dict()
    for i in range(SHOWN_ROWS):
        table.add_row(str(movies[i]), *(_cell(column[i]) for column in values.values()))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else escape(str(value))


def _status_counts(response: OnlineResponse) -> str:
    found = [status.name for name in response.names for status in response.status[name]]
    return ", ".join(f"{found.count(name):,} {name}" for name in sorted(set(found), key=found.count, reverse=True))


def measure(store: FeatureStore, requests: int) -> None:
    client, choose = store.client, random.Random(SEED)

    def ranking(candidates: int) -> float:
        movies = choose.sample(range(1, MOVIES + 1), candidates)
        request = {"user_id": choose.randint(1, USERS), "movie_id": movies, "now_year": NOW.year}
        return timed(lambda: client.get_online_features("ranking", request, now=NOW).to_numpy())

    def one_movie() -> float:
        request = {"movie_id": choose.randint(1, MOVIES)}
        return timed(lambda: client.get_online_features(["movie_stats:movie_rating_mean"], request, now=NOW).to_numpy())

    cases: dict[str, Callable[[], float]] = {
        f"ranking, 1 user × {CANDIDATES} movies": lambda: ranking(CANDIDATES),
        "ranking, 1 user × 1 movie": lambda: ranking(1),
        "1 feature of 1 movie": one_movie,
    }
    table = _table("read", _right("requests"), _right("p50"), _right("p99"))
    # Drawn between the requests rather than by a thread of its own, which would be measured along.
    with _progress(TimeElapsedColumn(), auto_refresh=False) as progress:
        for name, case in cases.items():
            for _ in range(WARM_UP):
                case()
            times = [case() for _ in _shown(progress, name, requests)]
            table.add_row(name, f"{requests:,}", *(f"{np.percentile(times, p) * 1e3:.3f} ms" for p in (50, 99)))
    console.print(table)


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _shown(progress: Progress, name: str, requests: int) -> Iterator[int]:
    task = progress.add_task(name, total=requests)
    for i in range(requests):
        yield i
        if (i + 1) % REQUESTS_PER_REFRESH == 0 or i + 1 == requests:
            progress.update(task, completed=i + 1)
            progress.refresh()


# -- 7: the model -----------------------------------------------------------------------------------------------------


def train_and_rank(store: FeatureStore) -> None:
    begun = time.perf_counter()
    with console.status("joining the features of every rating, as they were just before it, and training"):
        trained = model.train(store, FOLDER, NOW)
    console.print(
        f"Trained on the first {trained.trained_rows:,} ratings × {trained.features} features, tested on the "
        f"{trained.tested_rows:,} after them, in {time.perf_counter() - begun:.1f} s. Whether a rating is 4 or 5: "
        f"[bold]AUC {trained.auc:.3f}[/] (by the movie's mean rating alone: {trained.auc_of_means:.3f})."
    )
    movies = random.Random(SEED).sample(range(1, MOVIES + 1), CANDIDATES)
    request = {"user_id": SHOWN_USER, "movie_id": movies, "now_year": NOW.year}
    titles = store.get_online_features("cards", request, now=NOW).to_dict()["title"]
    table = _table(f"best of {CANDIDATES} for user {SHOWN_USER}", _right("score"))
    for place, score in model.rank(store, trained, request, NOW)[:RANKED_ROWS]:
        table.add_row(_cell(titles[place]), f"{score:.3f}")
    console.print(table)


# -- 8: what Redis holds ----------------------------------------------------------------------------------------------


def look(store: FeatureStore) -> None:
    plan = store.client.plan()
    views = {group.name: [segment.view for segment in group.segments] for group in plan.groups}
    table = _table("row group", "views in a row", _right("keys"), _right("bytes per row"), _right("bytes used"))
    for group, found in store.online.statistics().items():
        numbers = (found["rows"], found["row_bytes"], found["bytes"])
        table.add_row(group, ", ".join(views.get(group, ["windows"])), *(f"{number:,}" for number in numbers))
    console.print(table)
    console.print(f"{store.online.info()['used_memory_human']} in all, texts and the server itself included.")


# -- 9: pruning -------------------------------------------------------------------------------------------------------


def drop_what_is_not_needed(store: FeatureStore, requests: int) -> None:
    with CountReport("verify", "fits", console) as fits:
        found = prune.verify(store, FOLDER, NOW, CANDIDATES, fits)
    show_verification(found.verification, found.plan, found.instead)
    plan = found.passing
    if plan is None:
        console.print("So nothing is dropped.")
        return
    pruner, asked = Pruner(store), prune.requests(USERS, MOVIES, CANDIDATES, NOW)

    def measured(name: str) -> Footprint:
        # Not drawn by a thread of its own, which would be timed along.
        with CountReport(name, "requests", console, auto_refresh=False) as report:
            return pruner.footprint(model.SERVICE, asked, repeats=requests, now=NOW, report=report)

    def values() -> np.ndarray[Any, Any]:
        return store.client.get_online_features(model.SERVICE, asked[0], now=NOW).to_numpy()

    full, before = values(), measured("read, full")
    pruner.apply(plan, "drop")
    show_footprints(before, measured("read, pruned"), plan)
    drawn = ", ".join(str(path.relative_to(FOLDER)) for path in prune.draw(store, plan, FOLDER))
    console.print(f"importance–cost curve: {drawn}")
    pruner.rollback(model.SERVICE)
    # A rollback fills windows from the whole history. Here that goes on beyond the clock of the reads, so that windows
    # which end at that clock need the history as it was then, and the stream after it.
    for view in live.STREAMED:
        store.backfill(view, HISTORY_END)
    same = "every value as before" if np.array_equal(values(), full, equal_nan=True) else "[red]values differ[/]"
    console.print(f"Rolled back: {len(plan.columns)} features are served again, {same}.")


def suggest() -> None:
    console.print("    source .venv/bin/activate && cd examples/movielens", markup=False)
    for command in NEXT:
        console.print(f"    {command}", markup=False)


# -- small parts ----------------------------------------------------------------------------------------------------


def heading(number: int, title: str, about: str) -> None:
    console.print(f"\n[bold cyan]{number}  {title}[/]  [dim]{about}[/]")


def _table(*columns: str | Column) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD, padding=0, pad_edge=False)


def _right(name: str) -> Column:
    return Column(name, justify="right")


def _progress(*columns: ProgressColumn, auto_refresh: bool = True) -> Progress:
    shown = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description:<24}"), BarColumn(bar_width=16), *columns)
    return Progress(*shown, console=console, auto_refresh=auto_refresh)


def _requests() -> int:
    parser = argparse.ArgumentParser(description="The feature store over MovieLens-100K, step by step.")
    parser.add_argument("--requests", type=_positive, default=2000, help="how many of each to measure (default: 2000)")
    return int(parser.parse_args().requests)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
