"""What a model server imports: the client, and the row layout, keys, codec and store beneath it."""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names
from feature_store.online.client import OnlineClient
from feature_store.online.response import OnlineResponse
from feature_store.online.status import Status

if TYPE_CHECKING:
    from feature_store.online.async_client import AsyncOnlineClient
    from feature_store.online.store import OnlineStore

__all__ = ["AsyncOnlineClient", "OnlineClient", "OnlineResponse", "OnlineStore", "Status"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {"AsyncOnlineClient": f"{__name__}.async_client", "OnlineStore": f"{__name__}.store"},
)
