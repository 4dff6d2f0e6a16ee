"""The integer program that `planner.choose` solves, with HiGHS (Huangfu and Hall 2018) through SciPy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from feature_store.pruning.budget import TIE, Budget, Choice, choice_of, exceeded
from feature_store.pruning.cost import CostModel, Resource, bitmap_bytes


class IntegerProgram:
    """The integer program of a choice. Its variables are the features, then the resources.

    Args:
        model: the costs.
        importance: by feature; a feature that is not named has none.
        budget: the limits.
        required: features that must be kept.
    """

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
        """Add a variable. One that features determine is 0 or 1 without HiGHS having to branch on it."""
        self._columns += 1
        self._most.append(most)
        self._whole.append(whole)
        return self._columns - 1

    def _any(self, names: frozenset[str]) -> int:
        """A variable that is at least each of the variables of the features."""
        if len(names) == 1:
            return self._place[next(iter(names))]
        if names not in self._any_of:
            self._any_of[names] = column = self._add()
            for name in names:
                self._rows.append(({column: 1.0, self._place[name]: -1.0}, 0.0, np.inf))
        return self._any_of[names]

    def _add_all(self, sets: Sequence[frozenset[str]]) -> int:
        """A variable that is 1 if a feature of every set is kept."""
        each = list(dict.fromkeys(self._any(names) for names in sets))
        if len(each) == 1:
            return each[0]
        column = self._add()
        self._rows.append(({column: 1.0, **dict.fromkeys(each, -1.0)}, 1.0 - len(each), np.inf))
        return column

    def _add_bitmap(self, resource: Resource) -> int:
        """A whole number of bytes, with a bit for each field that is needed."""
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

    def _scaled_importance(self) -> dict[int, float]:
        """Importances, scaled to a sum of 1000, since HiGHS's tolerances are absolute."""
        total = sum(self._importance.get(name, 0.0) for name in self._model.features)
        scale = 1000.0 / total if total > 0 else 0.0
        return {i: self._importance.get(name, 0.0) * scale for name, i in self._place.items()}

    def solve(self, seconds: float) -> Choice | None:
        """The best choice, or None if HiGHS found none in time.

        Args:
            seconds: the time for each of the two runs.

        Raises:
            RequestError: no choice is within the budget.
        """
        importance = self._scaled_importance()
        every = dict.fromkeys(self._place.values(), 1.0)
        # Bytes are whole numbers, so this minimises bytes first and the number of features second.
        cost = {column: amount * (len(every) + 1) for column, amount in self._bytes.items()}
        for column in self._place.values():
            cost[column] = cost.get(column, 0.0) + 1.0
        if self._budget.keep is not None:
            self._rows.append((importance, self._budget.keep * sum(importance.values()) - 1000 * TIE, np.inf))
            goals = [(cost, 1.0), (importance, -1.0)]
        else:
            goals = [(importance, -1.0), (cost, 1.0)]
        proven = True
        solution: np.ndarray[Any, Any] | None = None
        for coefficients, sign in goals:
            result = self._run(coefficients, sign, seconds)
            if result.x is None:
                if solution is None and result.status == 2:
                    raise exceeded(self._model, self._budget, self._required)
                proven = False
                break
            proven = proven and result.status == 0
            solution = np.round(result.x)
            reached = sign * sum(amount * solution[column] for column, amount in coefficients.items())
            slack = TIE * max(1.0, abs(reached))
            self._rows.append(
                ({column: sign * amount for column, amount in coefficients.items()}, -np.inf, reached + slack)
            )
        if solution is None:
            return None
        kept = {name for name, i in self._place.items() if solution[i] > 0.5}
        return choice_of(self._model, self._importance, kept, proven=proven)

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
