"""The planner against an exhaustive search, on the costs of real layouts and on random ones."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings, strategies as st

from feature_store.errors import RequestError
from feature_store.pruning.budget import Budget, Latency, fits
from feature_store.pruning.cost import CostModel, Resource
from feature_store.pruning.greedy import greedy
from feature_store.pruning.planner import choose


@st.composite
def models(draw: st.DrawFn, most: int = 8) -> tuple[CostModel, dict[str, float]]:
    names = [f"f{i}" for i in range(draw(st.integers(2, most)))]
    sets = st.frozensets(st.sampled_from(names), min_size=1)
    resources = [
        Resource(f"r{i}", "v", 1, (one,) if other is None else (one, other), size, keys)
        for i, (one, other, size, keys) in enumerate(
            draw(
                st.lists(
                    st.tuples(sets, st.none() | sets, st.integers(1, 60), st.integers(0, 3)), min_size=1, max_size=8
                )
            )
        )
    ]
    fields = draw(st.lists(sets, max_size=12))
    if fields:
        already = draw(st.integers(0, 9))
        resources.append(
            Resource("bitmap", "v", 1, tuple(fields), draw(st.integers(1, 9)), per_eight=True, already=already)
        )
    worth = st.integers(0, 20).map(float)
    return CostModel("s", tuple(names), dict.fromkeys(names, "v"), tuple(resources)), {
        name: draw(worth) for name in names
    }


budgets = st.builds(
    Budget,
    max_bytes=st.none() | st.integers(0, 200),
    max_keys=st.none() | st.integers(0, 6),
    max_features=st.none() | st.integers(0, 6),
    slo_ms=st.none() | st.floats(1, 10).map(lambda x: round(x, 2)),
    keep=st.none() | st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    latency=st.just(Latency(0.5, 0.7, 0.02, 0.1)),
)


def every_choice(model: CostModel, required: set[str]) -> list[set[str]]:
    free = [name for name in model.features if name not in required]
    return [required | set(chosen) for size in range(len(free) + 1) for chosen in itertools.combinations(free, size)]


@settings(max_examples=120)
@given(models(), budgets, st.integers(0, 2))
def test_the_choice_is_as_good_as_the_best_of_all(world, budget: Budget, pinned: int) -> None:
    model, importance = world
    required = set(model.features[:pinned])
    total = sum(importance.values())
    allowed = [
        kept
        for kept in every_choice(model, required)
        if fits(model.cost(kept), budget)
        and (budget.keep is None or sum(importance[name] for name in kept) >= budget.keep * total - 1e-9)
    ]
    if not allowed:
        with pytest.raises(RequestError, match="prune plan of s"):
            choose(model, importance, budget, required=required)
        return
    found = choose(model, importance, budget, required=required)
    assert set(found.kept) in allowed and found.proven
    assert found.cost == model.cost(found.kept)

    def rank(kept: set[str]) -> tuple[float, ...]:
        worth, cost = sum(importance[name] for name in kept), model.cost(kept)
        return (-worth, cost.bytes, cost.features) if budget.keep is None else (cost.bytes, cost.features, -worth)

    assert rank(set(found.kept)) == pytest.approx(min(map(rank, allowed)))
    assert choose(model, importance, budget, required=required) == found, "the same each time"


@settings(max_examples=60)
@given(models(), budgets)
def test_the_greedy_choice_is_within_the_budget_too(world, budget: Budget) -> None:
    model, importance = world
    try:
        found = greedy(model, importance, budget, required=model.features[:1])
    except RequestError:
        return
    assert model.features[0] in found.kept and not found.proven
    assert fits(found.cost, budget)
    if budget.keep is not None:
        assert found.importance >= budget.keep * sum(importance.values()) - 1e-3


def test_a_view_s_fixed_cost_goes_with_its_last_feature() -> None:
    """Ten weak features in a view of their own are worth less than the view costs, though each one is cheap."""
    weak = tuple(f"weak{i}" for i in range(10))
    strong = tuple(f"strong{i}" for i in range(5))
    resources = [
        Resource("rows of a", "a", 1, (frozenset(weak),), 500, 10),
        Resource("rows of b", "b", 1, (frozenset(strong),), 500, 10),
        *(Resource(f"field {name}", name[:1], 1, (frozenset([name]),), 20) for name in (*weak, *strong)),
    ]
    model = CostModel("s", (*weak, *strong), {name: name[:4] for name in (*weak, *strong)}, tuple(resources))
    importance = dict.fromkeys(weak, 1.0) | dict.fromkeys(strong, 3.0)
    assert choose(model, importance, Budget(max_bytes=700)).kept == strong
    assert choose(model, importance, Budget(max_keys=10)).kept == strong
    assert choose(model, importance, Budget(keep=0.5)).kept == strong
    assert len(choose(model, importance, Budget(max_bytes=1199)).kept) == 9


def test_an_error_names_unknown_required_features() -> None:
    model = CostModel("s", ("a",), {"a": "v"}, (Resource("r", "v", 1, (frozenset("a"),), 10),))
    with pytest.raises(RequestError, match="got b"):
        choose(model, {"a": 1.0}, Budget(), required=["b"])
    with pytest.raises(RequestError, match="the required features exceed the budget: they need 10 bytes"):
        choose(model, {"a": 1.0}, Budget(max_bytes=5), required=["a"])


def large_model(features: int, views: int, seed: int) -> tuple[CostModel, dict[str, float]]:
    chance = random.Random(seed)
    names = tuple(f"f{i}" for i in range(features))
    view_of = {name: f"v{chance.randrange(views)}" for name in names}
    members = {view: frozenset(name for name in names if view_of[name] == view) for view in set(view_of.values())}
    groups = [sorted(members)[i::4] for i in range(4)]
    resources = [
        *(Resource(f"rows {i}", str(i), 1, (frozenset().union(*(members[view] for view in group)),), 50 * 60, 50) for i, group in enumerate(groups)),
        *(Resource(f"segment {view}", view, 1, (names_of,), 50 * 16) for view, names_of in members.items()),
        *(Resource(f"bitmap {view}", view, 1, tuple(frozenset([name]) for name in sorted(names_of)), 50, per_eight=True) for view, names_of in members.items()),
        *(Resource(f"field {name}", view_of[name], 1, (frozenset([name]),), 50 * chance.choice([1, 4, 8])) for name in names),
    ]  # fmt: skip
    return CostModel("s", names, view_of, tuple(resources)), {name: chance.random() ** 4 for name in names}


@pytest.mark.parametrize("budget", [Budget(max_bytes=20_000), Budget(max_keys=100, max_bytes=30_000), Budget(keep=0.9)])
def test_two_hundred_features_of_twenty_views_have_a_proven_optimum(budget: Budget) -> None:
    model, importance = large_model(200, 20, 1)
    found = choose(model, importance, budget)
    assert found.proven and fits(found.cost, budget)
    poorer = greedy(model, importance, budget)
    if budget.keep is None:
        assert found.importance >= poorer.importance
    else:
        assert found.cost.bytes <= poorer.cost.bytes
