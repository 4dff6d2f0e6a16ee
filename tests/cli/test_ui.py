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


SECRET = "open sesame, if you please"


@pytest.mark.parametrize("given", ["random", "environment", "file", "none"])
def test_pages_are_served_until_a_signal(run: Any, project: Path, tmp_path: Path, given: str) -> None:
    (project / "feature_store.yaml").write_text("project: shop\n")
    run("apply")
    (tmp_path / "token").write_text(f"{SECRET}\n")
    options = {"file": ["--token-file", str(tmp_path / "token")], "none": ["--no-token"]}.get(given, [])
    server = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "ui", "--repo", str(project), "--port", "0", *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"FEATURE_STORE_UI_TOKEN": SECRET if given == "environment" else ""},
    )
    assert server.stderr is not None
    told = server.stderr.readline()
    address = re.match(r"(http://127\.0\.0\.1:\d+/)(\?token=(\S+))? shows", told)
    assert address is not None, told
    assert SECRET not in told
    # A generated token is in the address, so that a click opens the pages. A given token is not shown.
    secret = {"random": address[3], "none": ""}.get(given, SECRET)
    assert (address[3] == "…") is (given in ("environment", "file"))
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    with httpx.Client(base_url=address[1], headers=headers) as client:
        assert "product_stats" in client.get("/catalogue").text
        assert client.post("/catalogue").status_code == 405
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400
        assert "server" not in client.get("/").headers
    if secret:
        assert httpx.get(f"{address[1]}catalogue").status_code == 401
    if given == "random":
        with httpx.Client(follow_redirects=True) as browser:
            assert browser.get(f"{address[1]}{address[2]}").status_code == 200
            assert browser.get(f"{address[1]}catalogue").status_code == 200, "in the session"
    server.send_signal(signal.SIGINT if secret else signal.SIGTERM)
    out, error = server.communicate(timeout=30)
    assert (server.returncode, out) == (0, "")
    assert error.count("\n") == ("wrong token" in error)
    assert run("server", "status")[1].startswith("stopped"), "nobody uses the embedded server any more"


def test_others_are_not_served_without_a_token(run: Any) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        code, _, error = run("ui", "--host", host, "--no-token")
        assert code == 1
        assert "a token" in error


def test_a_token_that_can_be_guessed(run: Any, tmp_path: Path) -> None:
    run("apply")
    (tmp_path / "short").write_text("hunter2\n")
    for options in (["--token", "a"], ["--token", " " * 20], ["--token-file", str(tmp_path / "short")]):
        code, _, error = run("ui", "--port", "0", *options)
        assert code == 1
        assert "at least 16 characters" in error
        assert "hunter2" not in error
    code, _, error = run("ui", "--token-file", str(tmp_path / "nowhere"))
    assert code == 1
    assert "a file with a token" in error


def test_a_port_that_is_taken(run: Any) -> None:
    run("apply")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, out, error = run("ui", "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert not out
    assert "a free address" in error
    assert "Traceback" not in error
