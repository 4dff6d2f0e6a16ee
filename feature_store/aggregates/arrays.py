"""The numpy arrays that pass between modules, as types."""

from feature_store.functions import Column, Mask

__all__ = ["Column", "Mask"]
