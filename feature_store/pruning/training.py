"""The training set that pruning measures and verifies on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# The share of a training set's rows, the first in time, that importances are measured and models are fitted on. Only
# `verify` reads the rest.
EARLIER = 0.7


@dataclass(frozen=True)
class Training:
    """A training set, and how pruning reads it.

    Attributes:
        path: the Parquet file. `feature-store training-set` makes it, of the service without any pruning.
        label: the column of the labels.
        entity: the column that says which rows belong together; they are resampled together.
        model: `module:factory`, a function of a seed that returns a model with `fit` and `predict_proba` or
            `predict`.
        timestamp: the column of the labels' times.
        earlier: the share of the rows, the first in time, that choices are made on.

    Example:
        >>> from pathlib import Path
        >>> from feature_store.pruning import Training
        >>> Training(Path("train.parquet"), label="bought", entity="user_id", model="my_model:make").earlier
        0.7
    """

    path: Path
    label: str
    entity: str
    model: str
    timestamp: str = "event_timestamp"
    earlier: float = EARLIER
