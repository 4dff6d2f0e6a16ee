"""Measures what features are worth: how much worse a model is that is fitted without them.

Importances must be of use to a planner that keeps the features with the largest sum under a budget. What leaving one
out of the whole costs is not: of redundant features each costs nothing, and all of them much. Shapley values share the
worth among the redundant, so that the planner keeps all of them. Hence, in four steps:

1. Correlated twins are clustered (`correlation.py`); one stands for the cluster, and the others leave together, if the
   refitted model bears it.
2. Screen (`screen.py`): features whose permutation costs a fitted model no more than that of shuffled probes does leave
   together, if the refitted model bears it; else only the half with the smallest losses, and so on. All that left so
   far may together be worth what is lost in the noise: they share that, in proportion to their losses in the screen.
3. Leave-one-out: the model is refitted without each feature, and without each view, of what is left.
4. Forward selection (`forward.py`) of what is left: each feature is credited with what it adds to those that are worth
   more. What is missing to the whole at the end is shared among those not taken, by what leaving them out costs. So
   redundancy is credited once, and the credits of all add up to what the metric has above that of equal scores. What
   needs a partner (one of an XOR pair) adds nothing before the partner; it is worth at least what leaving it out costs,
   when that is above the noise. It is the largest marginal contribution that counts, as in Catav et al. 2021
   (https://proceedings.mlr.press/v139/catav21a.html), of the contexts that were seen.

Everything is fitted on earlier rows, scored on later ones, and averaged over the seeds, which are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from feature_store._extras import requires_extra
from feature_store.pruning.correlation import TWINS, correlated
from feature_store.pruning.dataset import Dataset, Factory
from feature_store.pruning.forward import select_forward, shared
from feature_store.pruning.importance import FeatureImportance, Importances, ViewImportance, now
from feature_store.pruning.metric import Metric, metric_name
from feature_store.pruning.screen import REFITTED_PROBES, Screened, refit_noise, screen
from feature_store.pruning.trials import Gain, Report, Trials

METHOD = "retrained forward and leave-one-out"
# Later rows decide; fewer would make every difference noise, more would leave too little to learn from.
_EARLIER, _LATER = 0.7, 0.3
# About how many sets of features forward selection fits for each feature.
_FORWARD_FITS = 4


def measure(
    dataset: Dataset,
    factory: Factory,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    metric: str | Metric = "auc",
    report: Report | None = None,
    twins: float = TWINS,
) -> Importances:
    """What each feature and view is worth to the model; see the module.

    Args:
        dataset: what may be looked at. Keep the latest rows out of it for `verify`.
        factory: makes an unfitted model from a seed.
        seeds: how often each set of features is fitted.
        metric: `auc`, or a function of labels and scores; larger is better.
        report: is told after each fit how many are done, and of how many as far as is known.
        twins: the Spearman |rho| from which features are of one cluster.

    Raises:
        DataError: too few rows to split in time, later labels of one class, or a model whose scores are not finite.
    """
    earlier, later = dataset.split_by_time((_EARLIER, _LATER))
    trials = Trials(earlier, later, factory, seeds, metric, report)
    trials.expect(_expected(dataset))
    clusters = correlated(earlier, twins)
    everything = frozenset(dataset.features)
    noise = refit_noise(trials, everything)
    screened = screen(trials, clusters)
    clusters = tuple(_best_first(dataset, cluster, screened) for cluster in clusters)
    kept = _without_twins(trials, everything, clusters, noise)
    kept = _without_unused(trials, kept, _unused(dataset, clusters, screened), noise)
    noise = refit_noise(trials, kept)
    unseen = shared(noise, {name: screened.loss[name] for name in dataset.features if name not in kept})
    found = _Worth(trials, dataset, kept, noise, unseen)
    features = tuple(found.feature(name) for name in dataset.features)
    worth = {item.feature: item.importance for item in features}
    # Where twins could not leave together, another than the one chosen may have got the credit.
    clusters = tuple(tuple(sorted(cluster, key=lambda name: -worth[name])) for cluster in clusters)
    return Importances(
        method=METHOD,
        model=type(factory(seeds[0])).__name__,
        measured_at=now(),
        features=features,
        views=tuple(found.view(name) for name in dataset.members),
        noise=noise,
        clusters=clusters,
        cluster_gains=tuple(max(0.0, trials.gain(kept, cluster).mean) for cluster in clusters),
        metric=metric_name(metric),
    )


def _best_first(data: Dataset, cluster: tuple[str, ...], screened: Screened) -> tuple[str, ...]:
    """With the one that stands for the cluster first: of the view whose other features the model uses most, so that no
    view stays for a twin alone; then the one that the model uses most."""

    def worth(name: str) -> tuple[float, float]:
        others = set(data.members[data.views[name]]) - set(cluster)
        return max([screened.noise, *(screened.loss[other] for other in others)]), screened.loss[name]

    first = max(cluster, key=worth)
    return (first, *(name for name in cluster if name != first))


def _without_twins(
    trials: Trials, kept: frozenset[str], clusters: Sequence[tuple[str, ...]], noise: float
) -> frozenset[str]:
    """What is left when those that another stands for are gone; a cluster stays whole where that costs something."""
    twins = [frozenset(cluster[1:]) for cluster in clusters]
    if twins and trials.gain(kept, frozenset().union(*twins)).mean <= noise:
        return kept.difference(*twins)
    for away in twins:
        if trials.gain(kept, away).mean <= noise:
            kept -= away
    return kept


def _unused(data: Dataset, clusters: Sequence[tuple[str, ...]], screened: Screened) -> list[str]:
    """The features that the model does not use more than probes, the least used first."""
    loss = dict(screened.loss)
    for cluster, joint in zip(clusters, screened.cluster_loss, strict=True):
        loss |= dict.fromkeys(cluster, joint)
    return sorted((name for name in data.features if loss[name] <= screened.noise), key=lambda name: loss[name])


def _without_unused(trials: Trials, kept: frozenset[str], unused: Sequence[str], noise: float) -> frozenset[str]:
    """What is left when as many of the unused are gone as the refitted model bears."""
    away = [name for name in unused if name in kept]
    while away and trials.gain(kept, away).mean > noise:
        away = away[: len(away) // 2]
    return kept.difference(away)


def _expected(data: Dataset) -> int:
    """About how many sets of features are fitted when nothing can be screened out."""
    return (1 + _FORWARD_FITS) * len(data.features) + len(data.members) + 2 * REFITTED_PROBES


class _Worth:
    """Steps 3 and 4.

    Args:
        trials: refits.
        data: the features and views.
        kept: what is left.
        noise: what a useless feature reaches.
        unseen: what the others are worth.
    """

    def __init__(
        self, trials: Trials, data: Dataset, kept: frozenset[str], noise: float, unseen: Mapping[str, float]
    ) -> None:
        self._noise, self._data, self._unseen = noise, data, unseen
        self._least = _least_deviations(len(trials.seeds))
        left = [name for name in data.features if name in kept]
        views = {view: names for view, names in data.members.items() if not kept.isdisjoint(names)}
        trials.expect(len(left) + len(views) + _FORWARD_FITS * len(left))
        self._alone = {name: trials.gain(kept, [name]) for name in left}
        self._left_out = {view: trials.gain(kept, names) for view, names in views.items()}
        self._credits = select_forward(trials, left, noise)
        rest = trials.gain(kept, kept.difference(self._credits)).mean
        self._credits |= shared(rest, {name: self._alone[name].mean for name in left if name not in self._credits})

    def feature(self, name: str) -> FeatureImportance:
        """The larger of its credit and what leaving it out alone costs."""
        if name not in self._credits:
            return FeatureImportance(name, self._unseen[name])
        return FeatureImportance(name, max(self._credits[name], self._clear(self._alone[name])), self._alone[name].std)

    def view(self, name: str) -> ViewImportance:
        """The larger of its features' credits and what leaving it out costs."""
        members = self._data.members[name]
        if name not in self._left_out:
            return ViewImportance(name, 0.0, None, 0.0, members)
        out = self._left_out[name]
        credit = sum(self._credits.get(member, 0.0) for member in members)
        return ViewImportance(name, max(credit, self._clear(out)), out.std, out.mean, members)

    def _clear(self, gain: Gain) -> float:
        """The gain, when it is above the noise and not by chance; else 0."""
        is_clear = gain.mean > self._noise and gain.mean > self._least * gain.std
        return gain.mean if is_clear else 0.0


def _least_deviations(seeds: int) -> float:
    """How many standard deviations over the seeds a mean must be above 0 not to be there by chance: Student's t test,
    one-sided at 5 %. One seed has no deviation."""
    with requires_extra("prune", "measure"):
        from scipy.stats import t
    return float(t.ppf(0.95, seeds - 1) / seeds**0.5) if seeds > 1 else 0.0
