"""Problems with a planted, and so known, answer."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from feature_store.pruning.dataset import Dataset


def model(seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=40, learning_rate=0.2, max_leaf_nodes=15, early_stopping=False, random_state=seed, max_features=0.7
    )


def planted(n: int = 4000, seed: int = 0) -> Dataset:
    """best:a and twin:b are twins; xor:p and xor:q count only together; bundle has one good member; noise has none."""
    rng = np.random.default_rng(seed)
    columns = {f"noise_{i}": rng.normal(size=n) for i in range(20)}
    views = {name: f"noise_{i % 2}" for i, name in enumerate(columns)}
    best, good = rng.normal(size=n), rng.normal(size=n)
    p, q = rng.normal(size=n), rng.normal(size=n)
    columns |= {"best": best, "twin": 2 * best + 1, "p": p, "q": q, "good": good}
    columns |= {f"useless_{i}": rng.normal(size=n) for i in range(9)}
    views |= {"best": "profile", "twin": "copy", "p": "left", "q": "right", "good": "bundle"}
    views |= {f"useless_{i}": "bundle" for i in range(9)}
    logit = 1.5 * best + 1.2 * good + 2.0 * np.sign(p * q)
    y = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    return dataset(columns, views, y, entity=rng.integers(0, n // 10, n))


def dataset(columns, views, y, entity=None) -> Dataset:
    x = np.column_stack(list(columns.values())).astype(np.float32)
    n = len(y)
    return Dataset(x, y, tuple(columns), views, np.arange(n) if entity is None else entity, np.arange(n) * 1_000_000)
