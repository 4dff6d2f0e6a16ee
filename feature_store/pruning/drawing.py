"""Draws the importance–cost curve with a plan on it. The only module that imports matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from feature_store._extras import requires_extra
from feature_store.pruning.budget import Choice
from feature_store.pruning.plan import PrunePlan

with requires_extra("plot", "drawing"):
    from matplotlib import rc_context
    from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (9.0, 4.2)
_DOTS_PER_INCH = 150
_CURVE, _PLAN, _FULL = "#2563eb", "#dc2626", "#6b7280"


def draw_curve(curve: Sequence[Choice], plan: PrunePlan, paths: Sequence[Path]) -> None:
    """Draw the importance that each budget keeps, the plan, and the metric of each candidate if the plan is verified.

    Args:
        curve: the curve, from `frontier`.
        plan: a plan with the same costs and importances.
        paths: the files to write: .svg, .png or .pdf.
    """
    figure = Figure(figsize=_INCHES, layout="constrained")
    drawn: list[Axes] = list(figure.subplots(1, 2 if plan.verification else 1, squeeze=False)[0])
    _importances(drawn[0], curve, plan)
    if plan.verification:
        _metrics(drawn[1], plan)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        # No date and no random names, so that the same curve gives the same file.
        with rc_context({"svg.hashsalt": plan.id}):
            figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Date": None} if path.suffix == ".svg" else None)


def _importances(axes: Axes, curve: Sequence[Choice], plan: PrunePlan) -> None:
    whole, kept = plan.importance
    axes.step(
        [one.cost.bytes / 1000 for one in curve],
        [100 * one.importance / whole for one in curve],
        where="post",
        color=_CURVE,
    )
    axes.plot([plan.after.bytes / 1000], [100 * kept / whole], "o", color=_PLAN)
    axes.annotate(
        f"plan: {len(plan.kept)} of {len(plan.columns)} features",
        (plan.after.bytes / 1000, 100 * kept / whole),
        xytext=(12, -18),
        textcoords="offset points",
        color=_PLAN,
    )
    axes.set(xlabel="kB a request", ylabel="importance kept, %", title=f"What bytes buy: {plan.service}", ylim=(0, 105))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)


def _metrics(axes: Axes, plan: PrunePlan) -> None:
    assert plan.verification is not None
    verified = plan.verification
    kept = [one["features"] for one in verified["candidates"]]
    differences = [one["difference"] for one in verified["candidates"]]
    below = [one["difference"] - one["lower_bound"] for one in verified["candidates"]]
    axes.errorbar(kept, differences, yerr=[below, [0.0] * len(below)], fmt="o", color=_CURVE, capsize=3)
    axes.axhline(0, color=_FULL, linewidth=1)
    axes.axhline(-verified["margin"], color=_PLAN, linestyle="--", linewidth=1)
    axes.annotate(
        f"margin −{verified['margin']:g}", (0.99, -verified["margin"]), xycoords=("axes fraction", "data"), ha="right",
        va="bottom", color=_PLAN,
    )  # fmt: skip
    axes.set(
        xlabel="features kept",
        ylabel=f"{verified['metric'].upper()}, pruned − full",
        title=f"On {verified['later_rows']:,} later rows, {verified['confidence']:.0%} bounds",
    )
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
