from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from pathlib import Path

_COMMAND = "import sys; from feature_store.cli import main; main()"


@pytest.mark.parametrize("secret", ["", "open sesame"])
def test_pages_are_served_until_a_signal(run: Any, project: Path, secret: str) -> None:
    (project / "feature_store.yaml").write_text("project: shop\n")
    run("apply")
    server = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "ui", "--repo", str(project), "--port", "0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"FEATURE_STORE_UI_TOKEN": secret},
    )
    assert server.stderr is not None
    told = server.stderr.readline()
    address = re.match(r"http://127\.0\.0\.1:\d+/", told)
    assert address is not None, told
    assert not secret or secret not in told
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    with httpx.Client(base_url=address[0], headers=headers) as client:
        assert "product_stats" in client.get("/catalogue").text
        assert client.post("/catalogue").status_code == 405
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400
        assert "server" not in client.get("/").headers
    if secret:
        assert httpx.get(f"{address[0]}catalogue").status_code == 401
    server.send_signal(signal.SIGINT if secret else signal.SIGTERM)
    out, error = server.communicate(timeout=30)
    assert (server.returncode, out, error) == (0, "", "")
    assert run("server", "status")[1].startswith("stopped"), "nobody uses the embedded server any more"


def test_others_are_not_served_without_a_token(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEATURE_STORE_UI_TOKEN", raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        code, _, error = run("ui", "--host", host)
        assert code == 1
        assert "a token" in error


def test_a_port_that_is_taken(run: Any) -> None:
    run("apply")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, out, error = run("ui", "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert not out
    assert "a free address" in error
    assert "Traceback" not in error
