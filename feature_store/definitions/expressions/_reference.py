"""Make docs/expressions.md's table of functions: `python -m feature_store.definitions.expressions._reference`.

The page has its tables between the lines `<!-- functions -->` and `<!-- end -->`.
"""

from __future__ import annotations

from feature_store.definitions.expressions.functions import FORMS, FUNCTIONS


def reference() -> str:
    """The table of all functions."""
    rows = [(function.signature, function.summary, str(function.variants[-1].gives)) for function in FUNCTIONS.values()]
    forms = [(signature, summary, "") for signature, summary in FORMS.values()]
    lines = [f"| `{signature}` | {summary} | {gives} |" for signature, summary, gives in (*rows, *forms)]
    return "\n".join(["| function | gives | type |", "|---|---|---|", *lines]) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
