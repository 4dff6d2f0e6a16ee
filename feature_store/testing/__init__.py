"""Test suites for extensions of the feature store. They run under pytest: subclass a suite and define its fixture."""
