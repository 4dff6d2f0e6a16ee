from __future__ import annotations

from tests.streaming.conftest import kafka as kafka, kafka_process as kafka_process
