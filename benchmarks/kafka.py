"""Servers and stream workers as the tests run them."""

from __future__ import annotations

from tests.kafka_server import kafka_server
from tests.servers import RedisServer, redis_server
from tests.streaming.running import children, command_line, merged_up_to

__all__ = ["RedisServer", "children", "command_line", "kafka_server", "merged_up_to", "redis_server"]
