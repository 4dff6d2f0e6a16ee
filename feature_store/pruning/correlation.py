"""Clusters of nearly identical features. Leaving out one of two twins costs nothing, leaving out both may."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_store._extras import requires_extra
from feature_store.pruning.dataset import Dataset, Floats

# The |rho| from which features are twins. Not lower: counts and recencies that are mostly 0 or missing reach 0.95, but
# each adds information (0.012 of AUC on retail data). Forward selection finds other redundancy.
TWINS = 0.99
# With this many rows, the standard error of rho near 0.99 is 0.0002.
_MOST_ROWS = 20_000


def correlated(data: Dataset, at_least: float = TWINS) -> tuple[tuple[str, ...], ...]:
    """Clusters of features in which every pair has a Spearman |rho| of at least `at_least`, in the columns' order.

    Complete linkage on 1 − |rho|, as in https://scikit-learn.org/stable/auto_examples/inspection/
    plot_permutation_importance_multicollinear.html: single linkage would chain unlike features. A missing value
    ranks below all others, so twins miss the same rows. Constant features and features of several columns are in no
    cluster.
    """
    names = [name for name in data.features if data.names.count(name) == 1]
    x = data.thinned(_MOST_ROWS).x[:, data.columns(names)]
    ranks, varies = standard_ranks(x)
    names = [name for name, does in zip(names, varies, strict=True) if does]
    if len(names) < 2:
        return ()
    groups: dict[int, list[str]] = {}
    for name, group in zip(names, _linked(ranks, at_least), strict=True):
        groups.setdefault(group, []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def standard_ranks(x: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The ranks of (n, f) values by column, standardised to mean 0 and length 1. Ties share a rank; NaN ranks lowest.

    Returns: (n, g) float64 for the g columns that vary, and (f,) bool, which columns vary.
    """
    with requires_extra("prune", "correlated features"):
        from scipy.stats import rankdata
    ranks = rankdata(np.where(np.isnan(x), -np.inf, x), axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.sqrt((ranks**2).sum(axis=0))
    varies = length > 0
    return ranks[:, varies] / length[varies], varies


def _linked(ranks: npt.NDArray[np.float64], at_least: float) -> list[int]:
    with requires_extra("prune", "correlated features"):
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import squareform
    distance = np.clip(1 - np.abs(ranks.T @ ranks), 0, None)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform((distance + distance.T) / 2), method="complete")
    # Rounding must not separate exact twins at a threshold of 1.
    groups: list[int] = fcluster(tree, 1 - at_least + 1e-9, criterion="distance").tolist()
    return groups
