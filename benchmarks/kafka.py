"""Servers and stream workers as the tests run them, whose modules find each other in the folders of the tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "streaming"))

from kafka_server import kafka_server
from running import children, command_line, merged_up_to
from servers import RedisServer, redis_server

__all__ = ["RedisServer", "children", "command_line", "kafka_server", "merged_up_to", "redis_server"]
