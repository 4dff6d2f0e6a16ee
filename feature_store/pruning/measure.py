"""Measures importances: how much worse the model is if it is fitted without a feature.

The planner keeps the features with the largest sum of importance within a budget, so importances must be additive. The
loss of leaving one feature out is not: each of several redundant features costs nothing, and all of them together cost
much. Shapley values share the importance among redundant features, so that the planner keeps all of them. Hence four
steps:

1. Correlated twins are clustered (`correlation.py`). One represents the cluster. The others are dropped together if the
   refitted model loses no more than the noise.
2. Screen (`screen.py`): drop the features whose permutation costs a fitted model no more than that of shuffled probes,
   all together if the refitted model loses no more than the noise, else the half with the smallest losses, and so on.
   All dropped features together may be worth the noise: they share it in proportion to their losses in the screen.
3. Leave-one-out: refit the model without each remaining feature, and without each view.
4. Forward selection (`forward.py`): credit each remaining feature with its gain over the features with more importance.
   The rest of the metric is shared among the features that were not selected, by their leave-one-out losses. So
   redundancy is credited once, and all credits sum to the metric above that of equal scores. A feature that needs a
   partner (such as one of an XOR pair) gains nothing before its partner, so its importance is at least its
   leave-one-out loss if that is above the noise. The largest marginal contribution counts, as in Catav et al. 2021
   (https://proceedings.mlr.press/v139/catav21a.html), over the contexts that were fitted.

Models are fitted on earlier rows and scored on later rows. Results are means over paired seeds.
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
# The shares of rows to fit on and to score on. Fewer later rows give noisy differences; more leave too few to fit on.
_EARLIER, _LATER = 0.7, 0.3
# About the number of fits per feature in forward selection.
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
    """The importance of each feature and view to a model; see the module.

    Args:
        dataset: the rows to use, without the latest rows, which `verify` needs.
        factory: makes an unfitted model from a seed.
        seeds: each set of features is fitted once with each.
        metric: `auc`, or a function of labels and scores. Larger is better.
        report: called after each fit with the number of fits done and expected.
        twins: the Spearman |rho| from which features are in one cluster.

    Raises:
        DataError: there are too few rows to split in time, the later labels have one class, or scores are not finite.
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
    credited = _Credits(trials, dataset, kept, noise, unseen)
    features = tuple(credited.feature(name) for name in dataset.features)
    importance = {item.feature: item.importance for item in features}
    # If twins could not be dropped together, another twin than the chosen one may have the credit.
    clusters = tuple(tuple(sorted(cluster, key=lambda name: -importance[name])) for cluster in clusters)
    return Importances(
        method=METHOD,
        model=type(factory(seeds[0])).__name__,
        measured_at=now(),
        features=features,
        views=tuple(credited.view(name) for name in dataset.members),
        noise=noise,
        clusters=clusters,
        cluster_gains=tuple(max(0.0, trials.gain(kept, cluster).mean) for cluster in clusters),
        metric=metric_name(metric),
    )


def _best_first(data: Dataset, cluster: tuple[str, ...], screened: Screened) -> tuple[str, ...]:
    """The cluster with its representative first: a feature of the view whose other features the model uses most, so
    that no view is kept for a twin alone; among these the feature that the model uses most."""

    def use(name: str) -> tuple[float, float]:
        others = set(data.members[data.views[name]]) - set(cluster)
        return max([screened.noise, *(screened.loss[other] for other in others)]), screened.loss[name]

    first = max(cluster, key=use)
    return (first, *(name for name in cluster if name != first))


def _without_twins(
    trials: Trials, kept: frozenset[str], clusters: Sequence[tuple[str, ...]], noise: float
) -> frozenset[str]:
    """The features without represented twins. A cluster stays whole if dropping its twins costs more than the noise."""
    twins = [frozenset(cluster[1:]) for cluster in clusters]
    if twins and trials.gain(kept, frozenset().union(*twins)).mean <= noise:
        return kept.difference(*twins)
    for away in twins:
        if trials.gain(kept, away).mean <= noise:
            kept -= away
    return kept


def _unused(data: Dataset, clusters: Sequence[tuple[str, ...]], screened: Screened) -> list[str]:
    """The features that the model uses no more than probes, the least used first."""
    loss = dict(screened.loss)
    for cluster, joint in zip(clusters, screened.cluster_loss, strict=True):
        loss |= dict.fromkeys(cluster, joint)
    return sorted((name for name in data.features if loss[name] <= screened.noise), key=lambda name: loss[name])


def _without_unused(trials: Trials, kept: frozenset[str], unused: Sequence[str], noise: float) -> frozenset[str]:
    """The features without as many unused ones as can be dropped within the noise."""
    away = [name for name in unused if name in kept]
    while away and trials.gain(kept, away).mean > noise:
        away = away[: len(away) // 2]
    return kept.difference(away)


def _expected(data: Dataset) -> int:
    """About the number of sets of features to fit if nothing can be screened out."""
    return (1 + _FORWARD_FITS) * len(data.features) + len(data.members) + 2 * REFITTED_PROBES


class _Credits:
    """Steps 3 and 4.

    Args:
        trials: the refits.
        data: the features and views.
        kept: the remaining features.
        noise: the gain that a useless feature may have by chance.
        unseen: the importances of the dropped features.
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
        """The importance of a feature: the larger of its credit and its leave-one-out loss."""
        if name not in self._credits:
            return FeatureImportance(name, self._unseen[name])
        return FeatureImportance(name, max(self._credits[name], self._clear(self._alone[name])), self._alone[name].std)

    def view(self, name: str) -> ViewImportance:
        """The importance of a view: the larger of its features' credits and its leave-one-out loss."""
        members = self._data.members[name]
        if name not in self._left_out:
            return ViewImportance(name, 0.0, None, 0.0, members)
        out = self._left_out[name]
        credit = sum(self._credits.get(member, 0.0) for member in members)
        return ViewImportance(name, max(credit, self._clear(out)), out.std, out.mean, members)

    def _clear(self, gain: Gain) -> float:
        """The gain if it is above the noise and significant, else 0."""
        is_clear = gain.mean > self._noise and gain.mean > self._least * gain.std
        return gain.mean if is_clear else 0.0


def _least_deviations(seeds: int) -> float:
    """The number of standard deviations over the seeds from which a mean is significantly above 0: Student's t test,
    one-sided at 5 %. One seed has no deviation."""
    with requires_extra("prune", "measure"):
        from scipy.stats import t
    return float(t.ppf(0.95, seeds - 1) / seeds**0.5) if seeds > 1 else 0.0
