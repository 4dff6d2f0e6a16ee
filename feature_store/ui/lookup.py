"""The data of the look-up page: the values that one entity is served now, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from feature_store.definitions.dtypes import DType, from_microseconds, to_microseconds
from feature_store.definitions.graph import Feature
from feature_store.errors import RequestError
from feature_store.online.client import OnlineClient
from feature_store.online.inspection import StoredValue
from feature_store.online.response import OnlineResponse
from feature_store.online.status import Status
from feature_store.online.store import OnlineStore
from feature_store.registry.catalog import unknown
from feature_store.ui.snapshot import Snapshot, is_hidden

# The most characters of an entity key or a request field.
_LONGEST = 10_000
# Shown in place of the value of a hidden feature (`is_hidden`).
HIDDEN = "hidden by its tags"


@dataclass(frozen=True)
class LookupRequest:
    """The request of a look-up.

    Attributes:
        of: `view:name` or `service:name`; empty: nothing is chosen yet.
        request: the names and types of the required values.
        given: the given values, as text.
    """

    of: str
    request: Mapping[str, str]
    given: Mapping[str, str]

    @property
    def is_complete(self) -> bool:
        """Whether all required values are given."""
        return bool(self.of) and all(self.given.get(name) for name in self.request)


@dataclass(frozen=True)
class Value:
    """A served value.

    Attributes:
        name: the feature's name as served.
        feature: the feature.
        value, status, event_time: the value, its status and event time.
        why: the reason for the status, in a sentence.
    """

    name: str
    feature: Feature
    value: Any
    status: Status
    event_time: datetime | None
    why: str


@dataclass(frozen=True)
class FromView:
    """The values from one view.

    Attributes:
        view: the view's name.
        kind: `batch`, `stream` or `on-demand`.
        source: the name of its source; None: rows are pushed, or it is an on-demand view.
        stored: the entity's bytes in Redis; None for an on-demand view.
        created: the created timestamp of the row; None: not stored.
        values: the served values.
    """

    view: str
    kind: str
    source: str | None
    stored: StoredValue | None
    created: datetime | None
    values: tuple[Value, ...]


@dataclass(frozen=True)
class LookupResult:
    """The result of a look-up.

    Attributes:
        now: the time of the request.
        version: the version that was served.
        views: the values from each view.
    """

    now: datetime
    version: int
    views: tuple[FromView, ...]


def lookup_request(snapshot: Snapshot, parameters: Mapping[str, str]) -> LookupRequest:
    """Read the request of an address.

    Raises:
        NotFoundError: there is no such view or service.
        RequestError: a value is too long.
    """
    of = parameters.get("of", "")
    if not of:
        return LookupRequest("", {}, {})
    kind, _, name = of.partition(":")
    if kind == "service" and name in snapshot.definitions.feature_services:
        request = snapshot.graph.request_of_service(name)
    elif kind == "view" and name in snapshot.views:
        request = snapshot.graph.request_of(name)
    else:
        known = [f"service:{one}" for one in snapshot.definitions.feature_services]
        raise unknown(of, "a view or a service", known + [f"view:{one}" for one in snapshot.views])
    given = {field: parameters.get(field, "").strip() for field in request}
    for field, text in given.items():
        if len(text) > _LONGEST:
            raise RequestError(field, expected=f"at most {_LONGEST:,} characters", got=f"{len(text):,}")
    return LookupRequest(of, request, given)


def look_up(
    online: OnlineStore, client: OnlineClient, snapshot: Snapshot, wanted: LookupRequest, now: datetime
) -> LookupResult:
    """Read the values of a request.

    Raises:
        DataError: a key or field is not of its type.
        OnlineStoreError, NotFoundError, RequestError: see `OnlineClient.get_online_features`.
    """
    row = {name: DType.parse(dtype).read(wanted.given[name], name) for name, dtype in wanted.request.items()}
    features = _features(snapshot, wanted.of)
    what: str | list[str] = wanted.of.removeprefix("service:")
    if wanted.of.startswith("view:"):
        what = [feature.reference for feature in features.values()]
    response = client.get_online_features(what, row, now=now)
    by_view: dict[str, list[str]] = {}
    for name in response.names:
        by_view.setdefault(features[name].view.name, []).append(name)
    values = response.to_dict()
    stored = online.inspect(
        [view for view in by_view if view in snapshot.graph.stored_views], row, to_microseconds(now)
    )
    views = tuple(
        _from_view(
            view,
            _seen(stored.get(view), view, snapshot),
            [_value(response, values, name, features[name]) for name in names],
        )
        for view, names in by_view.items()
    )
    return LookupResult(now, response.plan_version, views)


def _features(snapshot: Snapshot, of: str) -> dict[str, Feature]:
    """The served features of a view or service, by their names as served."""
    kind, _, name = of.partition(":")
    if kind == "service":
        return {column.name: snapshot.features[column.reference] for column in snapshot.graph.columns(name)}
    if name not in snapshot.served_views:
        raise RequestError(of, problem="prune plans drop all of its features")
    return {field.name: snapshot.features[f"{name}:{field.name}"] for field in snapshot.served_views[name].fields}


def _seen(stored: StoredValue | None, view: str, snapshot: Snapshot) -> StoredValue | None:
    """The stored value, without the tiles of hidden features."""
    if stored is None:
        return None
    windows = {
        name: tiles for name, tiles in stored.windows.items() if not is_hidden(snapshot.features[f"{view}:{name}"])
    }
    return replace(stored, windows=windows)


def _from_view(view: str, stored: StoredValue | None, values: list[Value]) -> FromView:
    source = getattr(values[0].feature.view, "source", None)
    if stored is None:
        return FromView(view, "on-demand", None, None, None, tuple(values))
    created = from_microseconds(stored.created_us) if stored.created_us is not None else None
    kind = "stream" if hasattr(source, "topic") else "batch"
    return FromView(view, kind, source.name if source is not None else None, stored, created, tuple(values))


def _value(response: OnlineResponse, values: Mapping[str, list[Any]], name: str, feature: Feature) -> Value:
    status = response.status[name][0]
    value = HIDDEN if is_hidden(feature) and status == Status.PRESENT else values[name][0]
    return Value(name, feature, value, status, response.event_timestamps[name][0], _why(status, feature))


def _why(status: Status, feature: Feature) -> str:
    default = feature.field.default
    instead = "null (NaN in a matrix)" if default is None else f"the default, {default!r},"
    is_stream, is_on_demand = bool(feature.aggregation), not hasattr(feature.view, "entities")
    match status:
        case Status.PRESENT if is_on_demand:
            return "computed now from its inputs"
        case Status.PRESENT if is_stream:
            return "computed from the events in its window"
        case Status.PRESENT:
            return "the newest row by event time, then by created time"
        case Status.NULL if is_stream:
            return f"its window holds no value, so {instead} is served"
        case Status.NULL:
            return f"the newest row holds null, so {instead} is served"
        case Status.MISSING:
            return f"nothing is stored for this entity, so {instead} is served"
        case Status.EXPIRED:
            return f"the newest row is older than the view's ttl, so {instead} is served"
        case _:
            return f"a prune plan drops it, so {instead} is served"
