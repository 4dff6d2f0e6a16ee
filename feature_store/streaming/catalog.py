"""The stream views that the published plan serves, with their sources from the registry."""

from __future__ import annotations

from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.errors import NotFoundError
from feature_store.online.tile_writer import TileWriter
from feature_store.registry.identity import refuse_other_registry
from feature_store.streaming.routes import StreamedView, writer_of
from feature_store.streaming.subscription import Subscription


class Catalog:
    """Looks up the stream views of a subscription.

    Args:
        subscription: the views to stream, and their project.

    Attributes:
        online: the project's online store.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._wanted = subscription.views
        self.online = subscription.project.open_online()
        self._registry = subscription.project.open_registry()
        self._known: tuple[int, dict[str, StreamFeatureView]] | None = None

    def views(self) -> list[StreamedView]:
        """The views that the published plan serves now.

        Raises:
            NotFoundError: a view of the subscription is not served, or no stream view is served.
            ConflictError: another registry published the plan.
            NotPublishedError: no plan is published.
            StoreConnectionError: Redis cannot be reached.
            StoreTimeoutError: Redis does not answer in time.
            RegistryError: the registry cannot be read.
        """
        plan = self.online.require_published().plan
        served = {tiles.view: tiles for tiles in plan.tiles}
        wanted = self._wanted if self._wanted is not None else tuple(served)
        for name in wanted or ("stream",):
            if name not in served:
                known = ", ".join(served) or "none is applied"
                raise NotFoundError(name, expected=f"a stream view: {known}", got=repr(name))
        if self._known is None or self._known[0] != plan.version:
            refuse_other_registry(plan, self._registry)
            self._known = plan.version, self._registry.version(plan.version).definitions().stream_feature_views
        definitions = self._known[1]
        return [StreamedView(served[name], definitions[name].source) for name in wanted]

    def writer(self, view: StreamedView) -> TileWriter:
        """A writer of a view's tiles, under the plan that `views` read.

        Raises:
            StaleWriteError: another plan was published after `views` was called.
            StoreConnectionError: Redis cannot be reached.
            StoreTimeoutError: Redis does not answer in time.
        """
        return writer_of(self.online, view)

    def close(self) -> None:
        """Close the connections."""
        self.online.close()
        self._registry.close()
