"""Long time limits for the clients of tests, since a machine of CI can stand still for more than a second.

The limit of a client that a test does not give one is LONG_S. A test of limits gives its clients a `timeout_s` or
`deadline_ms`, or its project a `timeout_ms`, and these hold as given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feature_store.online import AsyncOnlineClient, OnlineClient, OnlineStore

if TYPE_CHECKING:
    import pytest

LONG_S = 60.0
KINDS: tuple[Any, ...] = (OnlineClient, AsyncOnlineClient, OnlineStore)
# The library's own limits, in seconds.
OWN_S = [kind.__init__.__kwdefaults__["timeout_s"] for kind in KINDS]
OF_PROJECTS_S = 1.0


def lengthen(patched: pytest.MonkeyPatch) -> None:
    """Give clients and projects without a limit of their own LONG_S."""
    from feature_store.project import context

    for kind in KINDS:
        patched.setitem(kind.__init__.__kwdefaults__, "timeout_s", LONG_S)
    patched.setattr(context, "OnlineClient", _of_project)


def _of_project(*args: Any, timeout_s: float, **options: Any) -> OnlineClient:
    return OnlineClient(*args, timeout_s=LONG_S if timeout_s == OF_PROJECTS_S else timeout_s, **options)
