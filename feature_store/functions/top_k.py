"""top_k: the categories with the most values, from the counts of count_per_category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from feature_store.functions._arrays import StateArrays, Values
from feature_store.functions._contract import Function, StateSpec
from feature_store.functions._parameters import Options, Parameter, whole
from feature_store.functions.count_per_category import CATEGORIES, MOST_CATEGORIES


class TopK(Function):
    """See `summary`."""

    name = "top_k"
    summary = "the n of the given categories that have most values, the most frequent first"
    notes = (
        "Exact, since the categories are given. Of equal counts the category that is named first comes first. "
        "Categories without a value are left out, so a list may be shorter than n, and is empty without a value. It "
        "shares its state with `count_per_category` of the same categories."
    )
    takes = "categories"
    default: ClassVar[Any] = []
    parameters: ClassVar[Mapping[str, Parameter]] = {"n": whole(1, MOST_CATEGORIES), "categories": CATEGORIES}

    def states(self, options: Options) -> tuple[StateSpec, ...]:
        """A count of each category."""
        return (StateSpec("category_counts", options={"categories": options["categories"]}),)

    def dtype(self, column: str, options: Options) -> str:
        """A list of the column's values."""
        return f"Array({column})"

    def label(self, options: Options) -> str:
        """`top3`."""
        return f"top{options['n']}"

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """Lists of categories; none is null."""
        counts = states[0][""]
        order = np.argsort(-counts.astype(np.int64), axis=1, kind="stable")[:, : options["n"]]
        filled = np.minimum((counts > 0).sum(axis=1), order.shape[1])
        names = options["categories"]
        categories = np.array(names, object if isinstance(names[0], str) else None)
        listed = np.empty(len(counts), object)
        for i, count in enumerate(filled.tolist()):
            listed[i] = categories[order[i, :count]]
        return listed, np.zeros(len(listed), bool)
