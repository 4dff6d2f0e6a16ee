"""Suites for people who extend the feature store. Each runs under pytest: subclass it and give it its fixture."""
