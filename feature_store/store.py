"""Deprecated since 0.2: the module's public names moved."""

from feature_store._deprecation import moved_names

_HOMES = {"FeatureStore": "feature_store"}
__getattr__ = moved_names(__name__, _HOMES, since="0.2", removed_in="1.0")
