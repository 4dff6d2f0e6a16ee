"""A Schema Registry for the tests: an HTTP server with the documented endpoints that Confluent's client calls.

No registry that a package brings starts beside these tests: those of Confluent are not in Maven's central repository,
Karapace is not on PyPI, and Apicurio is a server of 160 MB that needs another Java than the broker.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ID, _VERSIONS = re.compile(r"/schemas/ids/(\d+)"), re.compile(r"/subjects/([^/]+)/versions(?:/(\w+))?")


class SchemaRegistryServer:
    """The server.

    Attributes:
        url: its address.
        schemas: by id, what was registered.
        reads: how many schemas were read by id.
        fails: the status of every answer; 0: it answers.
        user_info: `user:password`, which requests must have; empty: they need none.
    """

    def __init__(self) -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, list[int]] = {}
        self.reads, self.fails, self.user_info = 0, 0, ""
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(registry.get(self.path.partition("?")[0]))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(registry.post(self.path.partition("?")[0], body))

            def _answer(self, found: Any) -> None:
                login = base64.b64encode(registry.user_info.encode()).decode()
                status = 200 if found is not None else 404
                if registry.user_info and self.headers["Authorization"] != f"Basic {login}":
                    status = 401
                status = registry.fails or status
                error = {"error_code": 40403 if status == 404 else status, "message": "no"}
                content = json.dumps(found if status == 200 else error).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def get(self, path: str) -> Any:
        if path == "/subjects":
            return sorted(self.subjects)
        if found := _ID.fullmatch(path):
            self.reads += 1
            return self.schemas.get(int(found[1]))
        if found := _VERSIONS.fullmatch(path):
            ids = self.subjects.get(found[1], [])
            place = len(ids) if found[2] == "latest" else int(found[2])
            if 0 < place <= len(ids):
                return {"subject": found[1], "version": place, "id": ids[place - 1], **self.schemas[ids[place - 1]]}
        return None

    def post(self, path: str, body: dict[str, Any]) -> Any:
        found = _VERSIONS.fullmatch(path)
        return None if found is None else {"id": self.register(found[1], **body)}

    def register(self, subject: str, schema: Any, **about: Any) -> int:
        """Register a schema. Returns its id."""
        document = {"schema": schema if isinstance(schema, str) else json.dumps(schema)}
        document |= {name: value for name, value in about.items() if name in ("schemaType", "references") and value}
        known = next((one for one, stored in self.schemas.items() if stored == document), None)
        schema_id = known or len(self.schemas) + 1
        self.schemas[schema_id] = document
        ids = self.subjects.setdefault(subject, [])
        if schema_id not in ids:
            ids.append(schema_id)
        return schema_id

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def schema_registry_server() -> Iterator[SchemaRegistryServer]:
    """A server that runs until the end of the block."""
    server = SchemaRegistryServer()
    try:
        yield server
    finally:
        server.close()
