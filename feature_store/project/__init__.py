"""One project: its configuration, its context, and the FeatureStore that is its face."""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names

if TYPE_CHECKING:
    from feature_store.project.config import Config as Config, load_config as load_config

__getattr__, __dir__ = lazy_names(__name__)
