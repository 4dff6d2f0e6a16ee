"""Training sets as arrays, and the factory of the model that is fitted and scored on them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from feature_store._extras import requires_extra
from feature_store.errors import DataError, NotFoundError, RequestError

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


class Estimator(Protocol):
    """A model with scikit-learn's interface. `predict_proba`, if there is one, gives the chance of the last class."""

    def fit(self, x: Any, y: Any) -> Any:
        """Fit on (n, f) float32, with NaN where there is no value, and (n,) labels."""
        ...


Factory = Callable[[int], Any]
"""Makes an unfitted Estimator from a seed."""


@dataclass(frozen=True)
class Dataset:
    """Rows in the order of time.

    Attributes:
        x: (n, c) float32, NaN where there is no value.
        y: (n,) labels, integers or floats.
        names: the feature of each of the c columns. An array feature has several columns, all with its name.
        views: the view of each feature.
        entity: (n,) int64, the entity of each row. Rows of one entity are resampled together.
        time: (n,) int64 microseconds since 1970, ascending.
    """

    x: Floats
    y: Labels
    names: tuple[str, ...]
    views: Mapping[str, str]
    entity: Integers
    time: Integers

    def __post_init__(self) -> None:
        _refuse_unless_fitting(self)
        if np.any(self.time[1:] < self.time[:-1]):
            _set_rows(self, self, np.argsort(self.time, kind="stable"))

    def __len__(self) -> int:
        return len(self.y)

    @property
    def features(self) -> tuple[str, ...]:
        """The distinct names, in the order of their first column."""
        return tuple(dict.fromkeys(self.names))

    @property
    def members(self) -> dict[str, tuple[str, ...]]:
        """The features of each view, both in the order of the columns."""
        out: dict[str, tuple[str, ...]] = {}
        for name in self.features:
            out[self.views[name]] = (*out.get(self.views[name], ()), name)
        return out

    def columns(self, features: Iterable[str]) -> list[int]:
        """The indices of the features' columns, ascending.

        Raises:
            NotFoundError: there is no such feature.
        """
        wanted = set(features)
        unknown = sorted(wanted - set(self.names))
        if unknown:
            raise NotFoundError("features", expected=f"some of {', '.join(self.features)}", got=", ".join(unknown))
        return [at for at, name in enumerate(self.names) if name in wanted]

    def select(self, features: Iterable[str]) -> Dataset:
        """The dataset with only these features' columns, in the same order."""
        at = self.columns(features)
        return replace(self, x=np.ascontiguousarray(self.x[:, at]), names=tuple(self.names[i] for i in at))

    def rows(self, which: Any) -> Dataset:
        """The dataset with only these rows: a slice, indices or a mask."""
        out = object.__new__(Dataset)
        object.__setattr__(out, "names", self.names)
        object.__setattr__(out, "views", self.views)
        _set_rows(out, self, which)
        return out

    def thinned(self, most: int) -> Dataset:
        """The dataset with at most this many rows, evenly spread."""
        if len(self) <= most:
            return self
        return self.rows(np.linspace(0, len(self) - 1, most).astype(int))

    def split_by_time(self, fractions: Sequence[float]) -> tuple[Dataset, ...]:
        """Split into parts that follow each other in time. Rows of one time are in one part.

        Args:
            fractions: the share of rows of each part; their sum is 1.

        Raises:
            RequestError: the sum is not 1, or one is not positive.
            DataError: a part would be empty.
        """
        if not np.isclose(sum(fractions), 1.0) or min(fractions, default=0.0) <= 0:
            raise RequestError("fractions", expected="positive shares that add up to 1", got=str(list(fractions)))
        wanted = np.rint(np.cumsum(fractions)[:-1] * len(self)).astype(int).clip(0, len(self) - 1)
        cuts = [0, *np.searchsorted(self.time, self.time[wanted]).tolist(), len(self)]
        if np.any(np.diff(cuts) <= 0):
            got = f"{len(self)} rows of {len(np.unique(self.time))} times"
            raise DataError("training set", expected=f"rows for {len(fractions)} parts in time", got=got)
        return tuple(self.rows(slice(start, end)) for start, end in pairwise(cuts))


def _set_rows(out: Dataset, source: Dataset, which: Any) -> None:
    for name in ("x", "y", "entity", "time"):
        object.__setattr__(out, name, getattr(source, name)[which])


def _refuse_unless_fitting(data: Dataset) -> None:
    shapes = {"x": data.x.shape, "y": data.y.shape, "entity": data.entity.shape, "time": data.time.shape}
    n = len(data.y)
    if shapes != {"x": (n, len(data.names)), "y": (n,), "entity": (n,), "time": (n,)}:
        raise DataError("dataset", expected=f"({n}, {len(data.names)}) and ({n},) arrays", got=str(shapes))
    without = [name for name in data.features if name not in data.views]
    if without:
        raise DataError("dataset", expected="the view of each feature", got=f"none for {', '.join(without)}")


def from_table(
    table: pa.Table | Path | str,
    features: Sequence[str],
    views: Mapping[str, str],
    *,
    label: str,
    timestamp: str,
    entity: str,
) -> Dataset:
    """The rows of a training set, sorted by time.

    Args:
        table: an Arrow table or the path of a Parquet file (or a folder of them).
        features: the feature columns: numbers, booleans, or lists of numbers of one length.
        views: the view of each feature.
        label: the column of the labels: numbers or booleans.
        timestamp: the column of the labels' times.
        entity: the column that identifies the entity of each row.

    Raises:
        DataError: the table cannot be read, a column is missing or of an unsupported type, or a label, time or entity
            is null.
    """
    with requires_extra("prune", "training sets"):
        from feature_store.arrow.training_columns import Columns
    columns = Columns(table, [*features, label, timestamp, entity])
    blocks = [columns.feature(name) for name in features]
    names = tuple(name for name, block in zip(features, blocks, strict=True) for _ in range(block.shape[1]))
    return Dataset(
        np.concatenate(blocks, axis=1),
        columns.label(label),
        names,
        dict(views),
        columns.codes(entity),
        columns.microseconds(timestamp),
    )


def load_factory(path: str) -> Factory:
    """The factory that `module:factory` names.

    Raises:
        RequestError: the path is not `module:function`.
        NotFoundError: there is no such module, or no such function in it.
    """
    return _function(path, "the function takes a seed and returns a model with fit and predict_proba or predict")


def load_fitted(path: str) -> Any:
    """The fitted model that the function named by `module:function` returns.

    Raises:
        RequestError, NotFoundError: see `load_factory`.
    """
    return _function(path, "the function takes no argument and returns a fitted model")()


def _function(path: str, hint: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    if not module or not name:
        raise RequestError("model", expected="module:function", got=repr(path), hint=hint)
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        hint = "the module must be importable from the current folder"
        raise NotFoundError(f"model {path}", expected="a function in a module", got=str(error), hint=hint) from error
    if not callable(function):
        raise NotFoundError(f"model {path}", expected="a function", got=type(function).__name__, hint=hint)
    return function


def fitted_scores(factory: Factory, seed: int, earlier: Dataset, x: Floats) -> npt.NDArray[np.float64]:
    """Fit a new model and score rows with it; see `scores`."""
    model = factory(seed)
    model.fit(earlier.x, earlier.y)
    return scores(model, x)


def scores(model: Any, x: Floats) -> npt.NDArray[np.float64]:
    """(n,) float64: the chance of the last class, or the prediction of a model without `predict_proba`.

    Raises:
        DataError: the model returned another shape, or values that are not finite.
    """
    if hasattr(model, "predict_proba"):
        predicted = np.asarray(model.predict_proba(x), np.float64)
        predicted = predicted[:, -1] if predicted.ndim == 2 else predicted
    else:
        predicted = np.asarray(model.predict(x), np.float64)
    if predicted.shape != (len(x),) or not np.all(np.isfinite(predicted)):
        got = f"shape {predicted.shape}" if predicted.shape != (len(x),) else "NaN or inf"
        raise DataError(f"model {type(model).__name__}", expected=f"{len(x)} finite scores", got=got)
    return predicted
