"""This library's errors as text, so that they reach the parent of a worker process or the driver of a Spark job."""

from __future__ import annotations

import json

from feature_store import errors
from feature_store.errors import FeatureStoreError

_ATTRIBUTES = ("where", "expected", "got", "problem", "hint")


def error_text(error: FeatureStoreError) -> str:
    """The class and the attributes of an error, as a JSON object."""
    attributes = {name: getattr(error, name) for name in _ATTRIBUTES}
    return json.dumps({"class": type(error).__name__} | attributes)


def error_of(text: str) -> FeatureStoreError:
    """The error that `error_text` wrote."""
    attributes = json.loads(text)
    kind: type[FeatureStoreError] = getattr(errors, attributes.pop("class"))
    return kind(attributes.pop("where"), **attributes)
