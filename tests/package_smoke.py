"""Install a wheel with each extra alone into a fresh environment, and use there what the extra promises.

Usage: python -m tests.package_smoke WHEEL [--skip-spark] [PYTHON …]. Needs `uv`; `bin/package` runs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.servers import redis_server

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

# What a model server does, which needs no extra. It runs with each of them.
BASE = """
import sys
from feature_store import Entity, FeatureService, FeatureView, Field, Float32, on_demand_feature_view
from feature_store.errors import FeatureStoreError, NotPublishedError
from feature_store.online import OnlineClient
user = Entity("user")
view = FeatureView("stats", entities=[user], schema=[Field("age", Float32)])
FeatureService("ranking", features=[view])
with OnlineClient(sys.argv[1], project="nothing", timeout_s=30) as client:
    try:
        client.get_online_features("ranking", {"user": [1]})
    except NotPublishedError as error:
        assert "apply" in str(error), error
    else:
        raise AssertionError("a project that was never applied is served")
"""
SHOP = """
import subprocess
from pathlib import Path
def command(*arguments, cwd="shop"):
    subprocess.run([Path(sys.executable).parent / "feature-store", *arguments], cwd=cwd, check=True, stdout=subprocess.PIPE)
command("init", "shop", cwd=".")
Path("shop/feature_store.yaml").write_text(f"project: shop\\nonline_store: {{url: '{sys.argv[1]}'}}\\n")
for arguments in (["plan"], ["apply"], ["materialize"], ["get", "ranking", "user_id=1", "product_id=1,2", "basket_price=4"],
                  ["list"], ["search", "price"], ["doctor"], ["teardown", "--yes"]):
    command(*arguments)
"""
USES = {
    "": "",
    "registry": """
from feature_store.definitions import DefinitionSet
from feature_store.registry.store import Registry
registry = Registry("sqlite:///registry.db", "shop")
assert registry.commit(DefinitionSet([view]), base=None, author="me").version == 1
registry.close()
""",
    "postgres": """
from feature_store.registry.store import Registry
try:
    Registry("postgresql+psycopg://nobody@127.0.0.1:9/none", "shop")
except FeatureStoreError as error:
    assert type(error).__name__ == "RegistryError", error
""",
    "local": """
import datetime, pyarrow as pa, pyarrow.parquet as pq
pq.write_table(pa.table({"at": [datetime.datetime.now(datetime.UTC)], "user": [1], "age": [2.0]}), "users.parquet")
import feature_store.engines
import feature_store.engines.local.engine
""",
    "cli": SHOP,
    "avro": """
import datetime, fastavro, pathlib
from feature_store import AvroSource
from feature_store.arrow.sources.opening import open_source
at = {"type": "long", "logicalType": "timestamp-micros"}
schema = {"type": "record", "name": "User", "fields": [{"name": "at", "type": at}, {"name": "user", "type": "int"}]}
with open("users.avro", "wb") as file:
    fastavro.writer(file, schema, [{"at": datetime.datetime.now(datetime.UTC), "user": 1}])
rows = open_source(AvroSource("users.avro", event_timestamp="at"), pathlib.Path())
assert [batch["user"].to_pylist() for batch in rows.batches(["user"])] == [[1]]
""",
    "msgpack": """
import msgpack
from feature_store import Field, Int64, KafkaSource
from feature_store.streaming.decoder import decoder_of
class Stored:
    def value(self): return msgpack.packb({"at": 1_700_000_000_000, "n": 7})
source = KafkaSource("a", topic="a", event_timestamp="at", schema=[Field("n", Int64)], format="msgpack")
batch = decoder_of(source).decode([Stored()])
assert batch.columns["n"][0].tolist() == [7]
""",
    "schemas": """
from feature_store import AvroFormat, Field, Int64, KafkaSource
from feature_store.streaming.decoder import decoder_of
decoder_of(KafkaSource("a", topic="a", event_timestamp="at", schema=[Field("n", Int64)],
                       format=AvroFormat(registry="http://127.0.0.1:9")))
""",
    "objects": """
import functools, http.server, pathlib, threading, pyarrow as pa
from feature_store import ArrowSource
from feature_store.arrow.sources.opening import source_exists
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=".")
with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pathlib.Path("users.arrow").write_bytes(b"-")
    source = ArrowSource(f"http://127.0.0.1:{server.server_port}/users.arrow", event_timestamp="at")
    assert source_exists(source, pathlib.Path())
    server.shutdown()
""",
    "iceberg": """
import datetime, os, pathlib, pyarrow as pa
os.environ |= {"PYICEBERG_CATALOG__LAKE__TYPE": "sql", "PYICEBERG_CATALOG__LAKE__URI": "sqlite:///catalog.db",
               "PYICEBERG_CATALOG__LAKE__WAREHOUSE": f"file://{pathlib.Path.cwd()}/warehouse"}
from pyiceberg.catalog import load_catalog
from feature_store import IcebergSource
from feature_store.arrow.sources.opening import open_source
catalog = load_catalog("lake")
catalog.create_namespace("sales")
users = pa.table({"at": [datetime.datetime.now(datetime.UTC)], "user": [1]})
catalog.create_table("sales.users", users.schema).append(users)
rows = open_source(IcebergSource("lake.sales.users", event_timestamp="at"), pathlib.Path())
assert [len(batch) for batch in rows.batches(["user"])] == [1]
""",
    "delta": """
import deltalake, datetime, pathlib, pyarrow as pa
from feature_store import DeltaSource
from feature_store.arrow.sources.opening import open_source
deltalake.write_deltalake("users", pa.table({"at": [datetime.datetime.now(datetime.UTC)], "user": [1]}))
rows = open_source(DeltaSource("users", event_timestamp="at"), pathlib.Path())
assert [len(batch) for batch in rows.batches(["user"])] == [1]
""",
    "pandas": "import pandas, feature_store.online.arrow",
    "polars": "import polars, pyarrow, feature_store.online.arrow",
    "embedded": """
import pathlib
from feature_store.online.redis.embedded import EmbeddedServer
""",
    "kafka": "import feature_store.streaming.kafka, feature_store.streaming.metrics",
    "sql": "import feature_store.engines.sql.run",
    "spark": "import feature_store.engines.spark.session",
    "plot": "import feature_store.pruning.drawing",
    "databases": """
from pathlib import Path
from feature_store import SqlSource
from feature_store.arrow.sources.opening import open_source
Path("feature_store.yaml").write_text("project: shop\\nconnections: {warehouse: 'postgresql://nobody@127.0.0.1:9/none'}\\n")
try:
    open_source(SqlSource("orders", connection="warehouse", event_timestamp="at"), Path())
except FeatureStoreError as error:
    assert "the database says" in str(error), error
""",
    "prune": "import feature_store.pruning.planner, feature_store.pruning.measure, feature_store.pruning.correlation",
    "metrics": "from feature_store.monitoring import ClientMetrics\nClientMetrics()",
    "tracing": "from feature_store.monitoring import Tracing\nTracing()",
    "ui": "import feature_store.ui.app",
    "all": SHOP,
}


def smoke(wheel: Path, extra: str, python: str, redis_url: str) -> bool:
    """Whether the wheel works with one extra, in an environment and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"check": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": folder}
        wanted = f"{wheel}[{extra}]" if extra else str(wheel)
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        try:
            subprocess.run(["uv", "venv", "--quiet", "--python", python, "venv"], **quiet)
            subprocess.run(["uv", "pip", "install", "--quiet", "--python", "venv/bin/python", wanted], **quiet)
            program = [
                "venv/bin/python",
                "-W",
                "error::DeprecationWarning:feature_store",
                "-c",
                BASE + USES[extra],
                redis_url,
            ]
            subprocess.run(program, env=environment, **quiet)
        except subprocess.CalledProcessError as error:
            print(f"FAILED  {python}  [{extra}]\n{error.stdout}", flush=True)
            return False
    print(f"works   {python}  [{extra}]", flush=True)
    return True


def main() -> int:
    """Try every extra on every Python that the command line names."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--skip-spark"]
    wheel, pythons = Path(arguments[0]).resolve(), arguments[1:] or [sys.executable]
    assert USES.keys() == EXTRAS.keys() | {""}, "each extra has a use here"
    skipped = {"spark"} if "--skip-spark" in sys.argv else set()
    with redis_server() as server:
        outcomes = [smoke(wheel, extra, one, server.url) for one in pythons for extra in USES if extra not in skipped]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
