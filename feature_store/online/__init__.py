"""What a model server imports: the client, and the row layout, keys, codec and store beneath it."""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names
from feature_store.online.client import OnlineClient as OnlineClient
from feature_store.online.response import OnlineResponse as OnlineResponse
from feature_store.online.sequences import Padded as Padded, Ragged as Ragged
from feature_store.online.status import Status as Status

if TYPE_CHECKING:
    from feature_store.online.async_client import AsyncOnlineClient as AsyncOnlineClient
    from feature_store.online.store import OnlineStore as OnlineStore

__getattr__, __dir__ = lazy_names(__name__)
