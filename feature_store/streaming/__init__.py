"""Kafka → tiles → online store: workers that can be killed anywhere, exactly once."""
