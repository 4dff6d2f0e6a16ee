"""What is to be streamed: the stream views of the published plan, with the sources that the registry knows them by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_store.errors import NotFoundError
from feature_store.online.store import OnlineStore
from feature_store.registry.identity import refuse_other_registry
from feature_store.registry.store import Registry
from feature_store.streaming.dead_letters import dead_letter_topic
from feature_store.streaming.routes import StreamedView, writer_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_store.definitions.stream_view import StreamFeatureView
    from feature_store.online.tile_writer import TileWriter


@dataclass(frozen=True)
class Setup:
    """All that a worker has to know; sent to its process.

    Attributes:
        project: the project's name.
        online_url, timeout_s: the online store.
        registry_url: the registry.
        kafka: the client's settings.
        views: which stream views; None: all that are served, now and later.
        dead_letters: the topic of what cannot be merged; `{topic}` stands for where it came from.
    """

    project: str
    online_url: str
    timeout_s: float
    registry_url: str
    kafka: Mapping[str, str | int | float | bool]
    views: tuple[str, ...] | None
    dead_letters: str

    @property
    def group(self) -> str:
        """The consumer group. Members of a group share its partitions, so all of them stream the same views."""
        return "-".join(["feature-store", self.project, *sorted(self.views or ())])

    def dead_letters_of(self, topic: str) -> str:
        """Where what cannot be merged of a topic goes."""
        return dead_letter_topic(self.dead_letters, topic)


class Catalog:
    """Finds out what is to be streamed.

    Args:
        setup: of the project.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.online = OnlineStore(setup.online_url, setup.project, timeout_s=setup.timeout_s)
        self._registry = Registry(setup.registry_url, setup.project)
        self._known: tuple[int, dict[str, StreamFeatureView]] | None = None

    def views(self) -> list[StreamedView]:
        """What the published plan serves.

        Raises:
            NotFoundError: a view that is asked for is not served, or there is none.
            ConflictError: another registry has published the plan.
            NotPublishedError, StoreConnectionError, StoreTimeoutError, RegistryError: as their names say.
        """
        plan = self.online.require_published().plan
        served = {tiles.view: tiles for tiles in plan.tiles}
        wanted = self._setup.views if self._setup.views is not None else tuple(served)
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
        """A writer of a view's tiles, as `views` found them.

        Raises:
            StaleWriteError: another plan was published meanwhile.
            StoreConnectionError, StoreTimeoutError: as their names say.
        """
        return writer_of(self.online, view)

    def close(self) -> None:
        """Close the connections."""
        self.online.close()
        self._registry.close()
