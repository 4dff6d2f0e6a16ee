"""An on-demand function that uses what versions of Python parse, write and tokenize differently."""

import math
from dataclasses import dataclass
from functools import wraps

import numpy as np

from feature_store.definitions import Entity, FeatureView, Field, Float32, on_demand_feature_view
from shop import scales
from shop.helpers import clipped as bounded

user = Entity("user")
stats = FeatureView("stats", entities=[user], schema=[Field("a", Float32)])
WIDTH = 8


def logged(function):
    @wraps(function)
    def run(inputs):
        return function(inputs)

    return run


@dataclass(frozen=True)
class Curve:
    """How much of what."""

    slope: float = 1.5
    name: str = "é\u2028\U0001f600"

    def __call__(self, values):
        return values * self.slope + TABLE["shift"]


TABLE = {"shift": 0.1, 10**30: b"\x00\xff"}
TABLE["more"] = 1j

if WIDTH > 4:
    LIMIT = -(2**40)
else:
    LIMIT = math.inf


@on_demand_feature_view(sources=[stats], schema=[Field("a_scaled", Float32)])
@logged
def scaled(inputs, *, factor=2.0):
    """Words that do not count."""
    names = {"one": "a", "two": f"{'b'!r:>{WIDTH}}{1:}tail{{}}{WIDTH=}"}
    match names:
        case {"one": str() as first, **rest} if rest:
            values = inputs[first]
        case _:
            values = np.array([x for x in inputs["a"] if x is not None])
    try:
        curve: Curve = Curve()
    except* ValueError:
        curve = None
    with np.errstate(all="ignore"):
        result = bounded(curve(values), low := LIMIT, *[1e300]) * factor * scales.FACTORS[0] + (low if 0 else 0)
    return {f"{names['one']}_scaled": result}
