"""The data of the page of a feature: its services, importance and cost, and code that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feature_store.definitions import OnDemandFeatureView
from feature_store.definitions.dtypes import DType
from feature_store.definitions.graph import Feature
from feature_store.definitions.type_table import TypeTable
from feature_store.pruning.accounts import FeatureAccount
from feature_store.registry.catalog import unknown
from feature_store.ui.snapshot import Snapshot
from feature_store.ui.worth import Worth

# Python values in the code that shows how to read a feature.
EXAMPLES: TypeTable[str] = TypeTable(
    {
        "Bool": "True",
        "Int8": "1",
        "Int16": "1",
        "Int32": "1",
        "Int64": "1",
        "Float16": "1.0",
        "Float32": "1.0",
        "Float64": "1.0",
        "String": '"…"',
        "Bytes": 'b"…"',
        "Decimal": 'Decimal("1.0")',
        "Date": "date.today()",
        "Timestamp": "datetime.now(UTC)",
    }
)


@dataclass(frozen=True)
class Served:
    """A feature in one service.

    Attributes:
        service: the service's name.
        name: the feature's name in the service.
        dropped_by: the prune plan that drops it; None: it is served.
        rank, of: its rank by importance among the service's features; None: not known.
        account: its importance, and its cost in a request of one of each entity; None: not computed yet.
        method: the method of the importances.
    """

    service: str
    name: str
    dropped_by: str | None
    rank: int | None = None
    of: int = 0
    account: FeatureAccount | None = None
    method: str = ""


def find_feature(snapshot: Snapshot, view: str, name: str) -> Feature:
    """The feature of a view.

    Raises:
        NotFoundError: there is none with that name. The error names similar ones.
    """
    reference = f"{view}:{name}"
    if reference not in snapshot.features:
        raise unknown(reference, "a feature", snapshot.features)
    return snapshot.features[reference]


def served(snapshot: Snapshot, feature: Feature, worth: Mapping[str, Worth]) -> list[Served]:
    """The services of a feature, with its importance and cost there if they are computed."""
    services = []
    for service, name in feature.consumers:
        pruning = snapshot.definitions.prunings.get(service)
        dropped = pruning is not None and name not in pruning.kept and pruning.stage != "shadow"
        dropped_by = pruning.plan if pruning is not None and dropped else None
        known = worth.get(service)
        if known is None:
            services.append(Served(service, name, dropped_by))
            continue
        rank, of = known.rank(name), len(known.accounts) if known.method else 0
        services.append(Served(service, name, dropped_by, rank, of, known.accounts.get(name), known.method))
    return services


def reading_code(snapshot: Snapshot, feature: Feature, project: str, shown_url: str) -> str:
    """Python that reads the feature."""
    request = snapshot.graph.request_of(feature.view.name)
    keys = {entity.join_key for entity in snapshot.definitions.entities.values()}
    many = next((name for name in request if name in keys), None)
    rows = ", ".join(
        f'"{name}": {_listed(dtype) if name == many else _example(dtype)}' for name, dtype in request.items()
    )
    # Redis does not hold on-demand functions: the client loads them from the file that defines them.
    is_computed = isinstance(feature.view, OnDemandFeatureView)
    functions = f', definitions="{_file_of(feature.view)}"' if is_computed else ""
    used = {
        "datetime.now": "from datetime import UTC, datetime\n",
        "date.today": "from datetime import date\n",
        "Decimal(": "from decimal import Decimal\n",
    }
    imports = "".join(line for text, line in used.items() if text in rows)
    imports += "\n" if imports else ""
    return (
        f"{imports}from feature_store.online import OnlineClient\n\n"
        f'client = OnlineClient("{shown_url}", project="{project}"{functions})\n'
        "response = client.get_online_features(\n"
        f'    ["{feature.reference}"],\n'
        f"    {{{rows}}},\n"
        ")\n"
        f'response.to_dict()["{feature.field.name}"]\n'
        f'response.status["{feature.field.name}"]'
    )


def _file_of(view: Any) -> str:
    return f"{view.function.partition(':')[0].replace('.', '/')}.py"


def _example(text: str) -> str:
    dtype = DType.parse(text)
    example = EXAMPLES[dtype]
    return example if dtype.element is None else f"[{', '.join([example] * (dtype.length or 2))}]"


def _listed(text: str) -> str:
    """Entity keys of several rows."""
    return '["…", "…"]' if DType.parse(text).width is None else "[1, 2, 3]"
