"""The screen before the refits: features that a fitted model does not use, and the gain of chance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from feature_store.pruning.dataset import Dataset, Floats, scores
from feature_store.pruning.trials import Trials, gain_of

# Probes in the permuted model. A useless feature hardly exceeds the largest loss of ten useless ones.
_PROBES = 10
# Probes that the model is refitted with, one at a time: a sixth more fits for fifty features.
REFITTED_PROBES = 8
# Standard deviations. One useless feature in 40 is above.
_CLEAR = 2.0
# Permutation predicts once per feature. With this many rows the error of a loss of AUC is about 0.001.
_MOST_ROWS = 50_000


class Screened(NamedTuple):
    """Permutation losses.

    Attributes:
        loss: for each feature, the loss of the metric if its values are permuted among the rows.
        cluster_loss: the same for each cluster, with all its features permuted alike.
        noise: the largest loss of a probe.
    """

    loss: Mapping[str, float]
    cluster_loss: Sequence[float]
    noise: float


def screen(trials: Trials, clusters: Sequence[Sequence[str]]) -> Screened:
    """Permutation losses on later rows, of features, clusters and probes.

    A probe is a permuted copy of a real column: useless, but otherwise alike. The largest loss of a probe is the
    threshold, as in Boruta (Kursa and Rudnicki 2010, https://doi.org/10.18637/jss.v036.i11). Twins hide
    each other from permutation, hence the clusters.
    """
    data = trials.earlier
    groups = [(name,) for name in data.features] + [tuple(cluster) for cluster in clusters]
    later = trials.later.thinned(_MOST_ROWS)
    columns = [data.columns(group) for group in groups]
    probes = [[len(data.names) + i] for i in range(_PROBES)]
    losses = []
    for at, seed in enumerate(trials.seeds):
        rng = np.random.default_rng([at, seed])
        sources = rng.integers(0, len(data.names), _PROBES)
        model = trials.factory(seed)
        model.fit(with_probes(data.x, data.x[:, sources], rng), data.y)
        trials.fitted()
        x = with_probes(later.x, later.x[:, sources], rng)
        losses.append(list(_losses(trials, model, x, later, columns + probes, rng)))
    mean = np.asarray(losses).mean(axis=0).tolist()
    singles = len(data.features)
    return Screened(
        dict(zip(data.features, mean[:singles], strict=True)), mean[singles : len(groups)], max(mean[len(groups) :])
    )


def _losses(
    trials: Trials, model: object, x: Floats, later: Dataset, groups: Iterable[list[int]], rng: np.random.Generator
) -> Iterator[float]:
    whole = trials.metric(later.y, scores(model, x))
    for columns in groups:
        held = x[:, columns]
        x[:, columns] = held[rng.permutation(len(x))]
        yield whole - trials.metric(later.y, scores(model, x))
        x[:, columns] = held


def with_probes(x: Floats, real: Floats, rng: np.random.Generator) -> Floats:
    """(n, c + p): the columns, then permuted copies of (n, p) real columns."""
    return np.concatenate([x, rng.permuted(real, axis=0)], axis=1)


def refit_noise(trials: Trials, kept: frozenset[str]) -> float:
    """The gain that a useless feature may have by chance if the model is refitted with it and `kept`.

    It is the mean plus two standard deviations over the gains of probes, each the mean over the seeds; at least 0.
    """
    earlier, later = trials.earlier.select(kept), trials.later.select(kept)
    gains = []
    for probe in range(REFITTED_PROBES):
        metrics = np.empty(len(trials.seeds))
        for at, seed in enumerate(trials.seeds):
            rng = np.random.default_rng([probe, at, seed])
            source = rng.integers(0, len(trials.earlier.names), 1)
            model = trials.factory(seed)
            model.fit(with_probes(earlier.x, trials.earlier.x[:, source], rng), earlier.y)
            x = with_probes(later.x, trials.later.x[:, source], rng)
            metrics[at] = trials.metric(later.y, scores(model, x))
            trials.fitted()
        gains.append(gain_of(metrics - trials.metrics(kept)).mean)
    whole = gain_of(np.asarray(gains))
    return max(0.0, whole.mean + _CLEAR * whole.std)
