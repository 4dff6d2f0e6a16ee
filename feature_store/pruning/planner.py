"""Which features to keep: the most importance within a budget, or the least cost for a share of the importance.

A feature's importance counts when it is kept. What it costs depends on what else is kept (see `cost.py`), so the choice
is an integer program: a variable for each feature, and one for each resource, which is at least 1 while a feature that
needs it is kept.

    maximise  Σ importance · kept                           subject to   Σ bytes · needed ≤ budget, …
    minimise  Σ bytes · needed                              subject to   Σ importance · kept ≥ share · total

HiGHS (Huangfu and Hall 2018, through scipy) solves it to a proven optimum, the same each time. Of equal optima it takes
the cheapest in bytes, then the one with the fewest features. Where scipy is not installed, or HiGHS finds no optimum in
time, a greedy choice stands in for it: it drops, one after the other, what saves the most for the importance that it
loses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.errors import RequestError
from feature_store.pruning.cost import Cost, bitmap_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from feature_store.pruning.cost import CostModel, Resource

# Solutions whose importance differs by less are equal: HiGHS's own tolerance on a constraint is 1e-6 of these units.
_TIE = 1e-6
_SECONDS = 20.0


@dataclass(frozen=True)
class Latency:
    """How long a request takes, in milliseconds: base + per_key · keys + per_byte · bytes + per_feature · features."""

    base: float = 0.0
    per_key: float = 0.0
    per_byte: float = 0.0
    per_feature: float = 0.0

    def of(self, cost: Cost) -> float:
        """The time of a request of that cost, in milliseconds."""
        return self.base + self.per_key * cost.keys + self.per_byte * cost.bytes + self.per_feature * cost.features


@dataclass(frozen=True)
class Budget:
    """What a request may cost at most, or what share of the importance must be kept at the least cost.

    Attributes:
        max_bytes, max_keys, max_features: of a request.
        slo_ms: its time, by `latency`.
        keep: share of the total importance, 0 to 1; with it, bytes are minimised within the other limits.
        latency: what a request takes.

    Example:
        >>> from feature_store.pruning import Budget
        >>> Budget(max_bytes=4096, keep=0.995).max_bytes
        4096
    """

    max_bytes: int | None = None
    max_keys: int | None = None
    max_features: int | None = None
    slo_ms: float | None = None
    keep: float | None = None
    latency: Latency = field(default_factory=Latency)


@dataclass(frozen=True)
class Choice:
    """What to keep.

    Attributes:
        kept: names, in the order of the service.
        importance: of what is kept.
        cost: of what is kept.
        proven: whether nothing better is possible within the budget.
    """

    kept: tuple[str, ...]
    importance: float
    cost: Cost
    proven: bool


def choose(
    model: CostModel,
    importance: Mapping[str, float],
    budget: Budget,
    *,
    required: Collection[str] = (),
    seconds: float = _SECONDS,
) -> Choice:
    """The features to keep.

    Args:
        model: what features cost.
        importance: of each feature, at least 0; what is not named has none.
        budget: the limits.
        required: features that are kept whatever they cost.
        seconds: for the proof of an optimum.

    Raises:
        RequestError: no choice is within the budget, what is required alone is beyond it.
    """
    _refuse_unknown(model, required)
    try:
        from scipy.optimize import milp  # noqa: F401
    except ModuleNotFoundError:
        return greedy(model, importance, budget, required=required)
    found = _Program(model, importance, budget, required).solve(seconds)
    return found if found is not None else greedy(model, importance, budget, required=required)


def greedy(
    model: CostModel, importance: Mapping[str, float], budget: Budget, *, required: Collection[str] = ()
) -> Choice:
    """A choice made one feature, or one view, after the other: dropped is what saves the most for what it loses.

    Raises:
        RequestError: as `choose`.
    """
    importances = {name: importance.get(name, 0.0) for name in model.features}
    needed = -math.inf
    if budget.keep is not None:
        needed = budget.keep * math.fsum(importances.values()) * (1 - _TIE) - _TIE
    walk = _Walk(model, importances, _candidates(model, required))
    while budget.keep is not None or not fits(walk.spent, budget):
        if walk.step(budget, needed) is None:
            break
    if not fits(walk.spent, budget):
        raise _beyond(model, budget, required)
    return _choice(model, importance, walk.kept, proven=False)


def dropping_order(model: CostModel, importance: Mapping[str, float], dropped: Collection[str]) -> list[str]:
    """Some features in the order in which to drop them: first what saves the most for what it loses."""
    importances = {name: importance.get(name, 0.0) for name in model.features}
    staying = set(model.features) - set(dropped)
    walk = _Walk(model, importances, _candidates(model, staying))
    order: list[str] = []
    while (gone := walk.step(Budget(), -math.inf)) is not None:
        order += [name for name in model.features if name in gone]
    return order + [name for name in model.features if name in dropped and name not in order]


class _Walk:
    """Drops one candidate after the other."""

    def __init__(
        self, model: CostModel, importances: Mapping[str, float], candidates: Sequence[frozenset[str]]
    ) -> None:
        self._importances, self._candidates = importances, candidates
        self.kept = set(model.features)
        self.spent = model.cost(self.kept)
        self._touched: dict[str, list[Resource]] = {name: [] for name in model.features}
        for resource in model.resources:
            for name in frozenset().union(*resource.needed_by):
                self._touched[name].append(resource)

    def step(self, budget: Budget, needed: float) -> frozenset[str] | None:
        """Drop what saves the most for what it loses and leaves the importance needed; None: nothing can go."""
        worth = math.fsum(self._importances[name] for name in self.kept)
        best: tuple[tuple[float, float], frozenset[str], Cost] | None = None
        for candidate in self._candidates:
            gone = candidate & self.kept
            lost = math.fsum(self._importances[name] for name in gone)
            if not gone or worth - lost < needed:
                continue
            left = _without(self.spent, self.kept, gone, self._touched)
            saved = _weight(self.spent, budget) - _weight(left, budget)
            rank = saved / lost if lost > 0 else math.inf, saved
            if (saved > 0 or lost == 0) and (best is None or rank > best[0]):
                best = rank, gone, left
        if best is None:
            return None
        self.kept, self.spent = self.kept - best[1], best[2]
        return best[1]


def _without(spent: Cost, kept: set[str], gone: frozenset[str], touched: Mapping[str, list[Resource]]) -> Cost:
    """The cost of what is kept, once some of it is gone."""
    left = kept - gone
    resources = {id(resource): resource for name in gone for resource in touched[name]}.values()
    fewer = [(resource.count(kept) - resource.count(left), resource) for resource in resources]
    return Cost(
        spent.bytes - sum(count * resource.bytes for count, resource in fewer),
        spent.keys - sum(count * resource.keys for count, resource in fewer),
        spent.features - len(gone),
    )


def fits(cost: Cost, budget: Budget) -> bool:
    """Whether a cost is within the limits."""
    limits = (
        (cost.bytes, budget.max_bytes),
        (cost.keys, budget.max_keys),
        (cost.features, budget.max_features),
        (budget.latency.of(cost), budget.slo_ms),
    )
    return all(limit is None or spent <= limit + 1e-9 for spent, limit in limits)


class _Program:
    """The integer program: features first, then resources."""

    def __init__(
        self, model: CostModel, importance: Mapping[str, float], budget: Budget, required: Collection[str]
    ) -> None:
        self._model, self._importance, self._budget, self._required = model, importance, budget, set(required)
        self._place = {name: i for i, name in enumerate(model.features)}
        features = len(model.features)
        self._columns = features
        self._rows: list[tuple[dict[int, float], float, float]] = []  # coefficients, at least, at most
        self._most: list[float] = [1.0] * features
        self._whole: list[bool] = [True] * features
        self._any_of: dict[frozenset[str], int] = {}
        self._bytes: dict[int, float] = {}
        self._keys: dict[int, float] = {}
        for resource in model.resources:
            column = self._add_bitmap(resource) if resource.per_eight else self._add_all(resource.needed_by)
            self._bytes[column] = self._bytes.get(column, 0) + resource.bytes
            self._keys[column] = self._keys.get(column, 0) + resource.keys
        self._limit()

    # -- variables ----------------------------------------------------------------------------------------------

    def _add(self, most: float = 1.0, *, whole: bool = False) -> int:
        """A variable; where features decide it, it is 0 or 1 without HiGHS having to branch on it."""
        self._columns += 1
        self._most.append(most)
        self._whole.append(whole)
        return self._columns - 1

    def _any(self, names: frozenset[str]) -> int:
        """A variable that is at least each of the features'."""
        if len(names) == 1:
            return self._place[next(iter(names))]
        if names not in self._any_of:
            self._any_of[names] = column = self._add()
            for name in names:
                self._rows.append(({column: 1.0, self._place[name]: -1.0}, 0.0, np.inf))
        return self._any_of[names]

    def _add_all(self, sets: Sequence[frozenset[str]]) -> int:
        """A variable that is 1 while, of each set, a feature is kept."""
        each = list(dict.fromkeys(self._any(names) for names in sets))
        if len(each) == 1:
            return each[0]
        column = self._add()
        self._rows.append(({column: 1.0, **dict.fromkeys(each, -1.0)}, 1.0 - len(each), np.inf))
        return column

    def _add_bitmap(self, resource: Resource) -> int:
        """A whole number of bytes that holds a bit for each field that is needed."""
        there = bitmap_bytes(resource.already)
        column = self._add(bitmap_bytes(resource.already + len(resource.needed_by)) - there, whole=True)
        coefficients: dict[int, float] = {column: 8.0}
        for names in resource.needed_by:
            field_column = self._any(names)
            coefficients[field_column] = coefficients.get(field_column, 0.0) - 1.0
        self._rows.append((coefficients, resource.already - 8.0 * there, np.inf))
        return column

    # -- limits and objectives ----------------------------------------------------------------------------------

    def _limit(self) -> None:
        budget, every = self._budget, dict.fromkeys(range(len(self._model.features)), 1.0)
        for coefficients, most in (
            (self._bytes, budget.max_bytes),
            (self._keys, budget.max_keys),
            (every, budget.max_features),
        ):
            if most is not None:
                self._rows.append((coefficients, -np.inf, float(most)))
        if budget.slo_ms is not None:
            took: dict[int, float] = {}
            latency = budget.latency
            for part, per in (
                (self._bytes, latency.per_byte),
                (self._keys, latency.per_key),
                (every, latency.per_feature),
            ):
                for column, amount in part.items():
                    took[column] = took.get(column, 0.0) + per * amount
            self._rows.append((took, -np.inf, budget.slo_ms - latency.base))

    def _worth(self) -> dict[int, float]:
        """Importance, scaled so that all of it is 1000: HiGHS's tolerances are absolute."""
        total = sum(self._importance.get(name, 0.0) for name in self._model.features)
        scale = 1000.0 / total if total > 0 else 0.0
        return {i: self._importance.get(name, 0.0) * scale for name, i in self._place.items()}

    def solve(self, seconds: float) -> Choice | None:
        """The best choice; None when HiGHS found none in time.

        Raises:
            RequestError: there is none within the budget.
        """
        worth = self._worth()
        every = dict.fromkeys(self._place.values(), 1.0)
        # Bytes are whole numbers, so that this puts them first and the number of features second.
        cost = {column: amount * (len(every) + 1) for column, amount in self._bytes.items()}
        for column in self._place.values():
            cost[column] = cost.get(column, 0.0) + 1.0
        if self._budget.keep is not None:
            self._rows.append((worth, self._budget.keep * sum(worth.values()) - 1000 * _TIE, np.inf))
            goals = [(cost, 1.0), (worth, -1.0)]
        else:
            goals = [(worth, -1.0), (cost, 1.0)]
        proven = True
        solution: np.ndarray[Any, Any] | None = None
        for coefficients, sign in goals:
            result = self._run(coefficients, sign, seconds)
            if result.x is None:
                if solution is None and result.status == 2:
                    raise _beyond(self._model, self._budget, self._required)
                proven = False
                break
            proven = proven and result.status == 0
            solution = np.round(result.x)
            reached = sign * sum(amount * solution[column] for column, amount in coefficients.items())
            slack = _TIE * max(1.0, abs(reached))
            self._rows.append(
                ({column: sign * amount for column, amount in coefficients.items()}, -np.inf, reached + slack)
            )
        if solution is None:
            return None
        kept = {name for name, i in self._place.items() if solution[i] > 0.5}
        return _choice(self._model, self._importance, kept, proven=proven)

    def _run(self, coefficients: Mapping[int, float], sign: float, seconds: float) -> Any:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array

        goal = np.zeros(self._columns)
        for column, amount in coefficients.items():
            goal[column] = sign * amount
        entries = [(i, column, amount) for i, (row, _, _) in enumerate(self._rows) for column, amount in row.items()]
        places = tuple(np.array([entry[k] for entry in entries], np.intp) for k in (0, 1))
        matrix = coo_array((np.array([entry[2] for entry in entries], float), places), (len(self._rows), self._columns))
        least = np.zeros(self._columns)
        for name in self._required:
            least[self._place[name]] = 1.0
        constraints = LinearConstraint(
            matrix.tocsc(), np.array([row[1] for row in self._rows]), np.array([row[2] for row in self._rows])
        )
        return milp(
            goal,
            integrality=np.array(self._whole, float),
            bounds=Bounds(least, np.array(self._most)),
            constraints=constraints if self._rows else None,
            options={"time_limit": seconds, "mip_rel_gap": 0.0},
        )


def _candidates(model: CostModel, required: Collection[str]) -> list[frozenset[str]]:
    """What can be dropped in one step: a feature, a view, or all that a resource is there for."""
    views = dict.fromkeys(model.views.values())
    sets = [
        *(frozenset([name]) for name in model.features),
        *(frozenset(name for name in model.features if model.views[name] == view) for view in views),
        *(names for resource in model.resources for names in resource.needed_by),
    ]
    return list(dict.fromkeys(names for names in sets if not names & set(required)))


def _weight(cost: Cost, budget: Budget) -> float:
    """How large a cost is, in shares of what limits it; in bytes when nothing does."""
    limits = (
        (cost.bytes, budget.max_bytes),
        (cost.keys, budget.max_keys),
        (cost.features, budget.max_features),
        (budget.latency.of(cost), budget.slo_ms),
    )
    shares = [max(spent - limit, 0.0) / max(limit, 1) for spent, limit in limits if limit is not None]
    return sum(shares) if shares and budget.keep is None else float(cost.bytes)


def _sum(importance: Mapping[str, float], names: Collection[str]) -> float:
    return math.fsum(importance.get(name, 0.0) for name in names)


def _choice(model: CostModel, importance: Mapping[str, float], kept: set[str], *, proven: bool) -> Choice:
    return Choice(
        tuple(name for name in model.features if name in kept), _sum(importance, kept), model.cost(kept), proven
    )


def _beyond(model: CostModel, budget: Budget, required: Collection[str]) -> RequestError:
    least = model.cost(required)
    spent = f"{least.bytes:,} bytes, {least.keys} keys, {least.features} features, {budget.latency.of(least):.2f} ms"
    return RequestError(
        f"prune plan of {model.service}",
        expected="a budget that what must be kept fits in",
        got=f"required features that take {spent}" if required else "a share to keep that does not fit in it",
        hint="allow more, or require less",
    )


def _refuse_unknown(model: CostModel, required: Collection[str]) -> None:
    unknown = sorted(set(required) - set(model.features))
    if unknown:
        raise RequestError(
            f"prune plan of {model.service}", expected="required features that it serves", got=", ".join(unknown)
        )
