"""The response to a request: n rows × the columns of a service, decoded on access."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.online.codec import stored_times
from feature_store.online.column import NO_TIME
from feature_store.online.decode import matrix, python_columns, row_event_times, row_status, status_counts
from feature_store.online.sequences import ragged_answer
from feature_store.online.status import STATUSES, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from feature_store.online.answer import RequestAnswer
    from feature_store.online.sequences import Padded, Ragged
    from feature_store.online.service import CompiledService

# Names that a repr lists.
_SHOWN = 6


class Lazy(Mapping[str, Any]):
    """A mapping whose values are computed on access."""

    def __init__(self, names: list[str], compute: Callable[[str], Any], dropped: Mapping[str, str]) -> None:
        self._names, self._compute, self._dropped = names, compute, dropped

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(f"{name}: {self._dropped[name]}" if name in self._dropped else name)
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<{len(self)} columns by name: {_listed(self._names)}>"


class Traffic(NamedTuple):
    """The cost of an answer: distinct entity keys that were read, and bytes sent and received."""

    keys: int
    sent: int
    received: int


class OnlineResponse:
    """The features of n entity rows, in the order of the request.

    A value that is not PRESENT is served as its field's default; without a default it is None, and NaN in a matrix.

    Attributes:
        service: the compiled service.
        answer: the answer of Redis. Its interface may change in any version of this library.

    Example:
        >>> from feature_store.online import OnlineClient
        >>> with OnlineClient(redis_url, project="shop", definitions="features.py") as client:
        ...     response = client.get_online_features(["user_stats:orders_30d"], {"user_id": [1, 10**9]})
        >>> response.names
        ['orders_30d']
        >>> [status.name for status in response.status["orders_30d"]]
        ['PRESENT', 'MISSING']
    """

    __slots__ = ("answer", "service")

    def __init__(self, service: CompiledService, answer: RequestAnswer) -> None:
        self.service, self.answer = service, answer

    def __len__(self) -> int:
        return self.answer.count

    def __repr__(self) -> str:
        service = self.service
        of = f" of {service.name!r}" if service.name else ""
        return (
            f"<OnlineResponse{of}: {len(self)} rows × {len(service.names)} features "
            f"({_listed(service.names)}), plan version {self.plan_version}>"
        )

    @property
    def now_us(self) -> int:
        """The time that ttls count from and windows end at, microseconds since 1970."""
        return self.answer.now_us

    @property
    def names(self) -> list[str]:
        """The features' names, in the order of the service."""
        return list(self.service.names)

    @property
    def columns(self) -> list[str]:
        """The matrix's columns: the names, with one per element (`name_0`, …) of a fixed-size array."""
        return self.service.matrix_columns()

    @property
    def prune_plan(self) -> str | None:
        """The id of the prune plan that decides which features are served; None when all are served."""
        return self.service.prune_plan or None

    @property
    def transforms(self) -> dict[str, str]:
        """Per on-demand view of the service, the digest of the function that computes its features. Digests differ
        between model servers while a changed function is rolled out."""
        return self.service.functions()

    @property
    def plan_version(self) -> int:
        """The registry version of the plan that answered."""
        return self.service.plan.version

    @property
    def traffic(self) -> Traffic:
        """The cost of the answer."""
        return Traffic(*self.answer.traffic())

    @property
    def skipped(self) -> list[str]:
        """The row groups and stream views that were not read before the deadline."""
        return [self.service.groups[group].layout.name for group in sorted(self.answer.skipped)]

    def status_counts(self) -> dict[Status, int]:
        """How many of the n × f values have each status. A status without values is left out."""
        counts = status_counts(self.service, self.answer)
        return {status: count for status, count in zip(STATUSES, counts, strict=True) if count}

    def to_numpy(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A matrix for a model: (n, f) float32, C-contiguous, columns as in `columns`.

        Numbers are rounded to float32 (24 significant bits: whole numbers are exact up to 2**24 = 16,777,216). An
        integer beyond 2**53 in magnitude is an identifier rather than a quantity and is refused.

        Raises:
            RequestError: a column has no place in a float matrix (String, Timestamp, ragged Array), or an integer is
                beyond 2**53.
            CorruptRowError: a stored row does not fit its layout.
            TransformError: an on-demand function raised, or its result does not fit its schema.
        """
        return matrix(self.service.matrix_plan, self.answer)

    def to_dict(self) -> dict[str, list[Any]]:
        """`{name: n Python values}`, exact: int, float, bool, str, datetime (UTC), list or None.

        Raises:
            CorruptRowError, TransformError: as `to_numpy`.
        """
        return python_columns(self.service.answer_plan, self.answer)

    def to_arrow(self) -> pa.Table:
        """A table with one column per feature, typed as declared, null where there is no value.

        Raises:
            MissingDependencyError: pyarrow is not installed (`feature-store[local]`).
            CorruptRowError, TransformError: as `to_numpy`.
        """
        from feature_store.online.arrow import arrow_forms

        return arrow_forms(self.service.answer_plan).table(self.answer)

    def to_pandas(self) -> pd.DataFrame:
        """`to_arrow()` as a DataFrame.

        The types of the columns follow from the declared types, whether a value is null or not: Bool is `boolean`,
        Int32 and Int64 are pandas' nullable types of the same names, so that integers stay exact; Float32 and Float64
        are numpy's, with NaN for null; Timestamp is `datetime64[us, UTC]`; String is pandas' default for text; arrays
        are objects.

        Raises:
            MissingDependencyError: pandas or pyarrow is not installed (`feature-store[pandas,local]`).
            CorruptRowError, TransformError: as `to_numpy`.
        """
        from feature_store.online.arrow import arrow_forms

        return arrow_forms(self.service.answer_plan).pandas.frame(self.answer)

    def to_polars(self) -> pl.DataFrame:
        """`to_arrow()` as a DataFrame of polars, with the types that polars has for Arrow's.

        Raises:
            MissingDependencyError: polars or pyarrow is not installed (`feature-store[polars]`).
            CorruptRowError, TransformError: as `to_numpy`.
        """
        from feature_store.online.arrow import arrow_forms

        return arrow_forms(self.service.answer_plan).polars_frame(self.answer)

    def ragged(self, names: Sequence[str]) -> Ragged:
        """Lists of several features, such as those of a `Sequence`, as flat values and offsets.

        Args:
            names: features whose types are lists of numbers: `["recent_item_id", "recent_price"]`. Row by row, their
                lists must have equal lengths.

        Raises:
            RequestError: a name is no feature of the service, its type is no list of numbers, or lengths differ.
        """
        return ragged_answer(self.service, self.answer, names)

    def padded(self, names: Sequence[str], n: int | None = None) -> Padded:
        """As `ragged`, as matrices with a mask.

        Args:
            names: as in `ragged`.
            n: the number of columns: the first n elements of longer lists are kept. None: as many as the longest list
                of the response.
        """
        return self.ragged(names).padded(n)

    @property
    def status(self) -> Mapping[str, list[Status]]:
        """Per feature, one Status per row."""
        return self._lazy(self._status)

    @property
    def event_timestamps(self) -> Mapping[str, list[Any]]:
        """Per feature, the event time (UTC datetime) of each row's value; None where the row is missing. An on-demand
        feature has the oldest event time of its inputs; None if all its inputs are request fields."""
        return self._lazy(self._event_timestamps)

    def _lazy(self, compute: Callable[[str], Any]) -> Lazy:
        pruning = self.service.pruning
        dropped = (
            {column.name: f"dropped by prune plan {pruning.plan}" for column in pruning.dropped} if pruning else {}
        )
        return Lazy(self.names, compute, dropped)

    def _status(self, name: str) -> list[Status]:
        return [STATUSES[code] for code in row_status(self.service.columns[name], self.answer).tolist()]

    def _event_timestamps(self, name: str) -> list[Any]:
        times = row_event_times(self.service.columns[name], self.answer)
        if times is None:
            return [None] * len(self)
        return [None if time == NO_TIME else stored_times([time])[0] for time in times.tolist()]


def _listed(names: list[str]) -> str:
    """The first names, as a repr shows them."""
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
