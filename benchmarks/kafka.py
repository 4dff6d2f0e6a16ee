"""Apache Kafka as the tests run it, whose modules find each other in the folder of the tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from kafka_server import kafka_server

__all__ = ["kafka_server"]
