"""The model servers of the guide answer, refuse bad requests, and say when Redis is away."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.docs.conftest import BIN
from tests.docs.pages import DOCS, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GUIDE = blocks(DOCS / "guides/serving.md")
(UVICORN,) = (block.text for block in GUIDE if "uvicorn app:app" in block.text and block.language == "bash")
(GUNICORN,) = (block.text for block in GUIDE if "gunicorn wsgi:app" in block.text and block.language == "bash")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(command: str, shop: Path, redis_url: str) -> Iterator[str]:
    """The server, by the guide's command, on a free port, in a folder with only its files and the definitions."""
    folder = shop.parent / "server"
    folder.mkdir()
    for block in GUIDE:
        if block.file:
            (folder / block.file).write_text(block.text)
    (folder / "features.py").write_text((shop / "features.py").read_text())
    port = free_port()
    words = command.replace("8000", str(port)).replace("8001", str(port)).split()[1:]
    environment = os.environ | {"REDIS_URL": redis_url}
    server = subprocess.Popen([BIN / words[0], *words[1:]], cwd=folder, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            assert server.poll() is None
            with contextlib.suppress(httpx.TransportError):
                httpx.get(url)
                break
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.parametrize("command", [UVICORN, GUNICORN], ids=["uvicorn", "gunicorn"])
def test_a_server_of_the_guide_answers_and_refuses(command: str, shop: Path, redis_url: str) -> None:
    fields = ("product_ids", "product_id")[command is GUNICORN]
    good = {"user_id": 1, fields: [1, 2], "basket_price": 40.0}
    with serving(command, shop, redis_url) as url:
        answers = [httpx.post(f"{url}/rank", json=good, timeout=30) for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 8
        assert all(len(answer.json()["scores"]) == 2 for answer in answers)
        bad = httpx.post(f"{url}/rank", json=good | {"basket_price": "dear"}, timeout=30)
        assert bad.status_code == 422, bad.text


def test_readiness_ends_while_redis_is_away_and_comes_back(shop: Path) -> None:
    from feature_store import FeatureStore
    from tests.servers import redis_server

    with redis_server() as server:
        (shop / "feature_store.yaml").write_text(
            f"project: shop\nonline_store: {{url: '{server.url}'}}\nregistry: new.db\n"
        )
        with FeatureStore(shop) as store:
            store.apply()
        with serving(UVICORN, shop, server.url) as url:
            assert httpx.get(f"{url}/ready", timeout=30).json() == {"version": 1}
            server.stop()
            rank = {"user_id": 1, "product_ids": [1], "basket_price": 1.0}
            assert httpx.get(f"{url}/ready", timeout=30).status_code == 503
            assert httpx.post(f"{url}/rank", json=rank, timeout=30).status_code in (200, 503)
            server.start()
            with FeatureStore(shop) as store:
                store.apply()
            assert httpx.get(f"{url}/ready", timeout=30).status_code == 200
