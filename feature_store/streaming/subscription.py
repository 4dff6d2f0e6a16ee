"""The stream views of a project that are streamed. It is plain data, for worker processes and Spark's tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from feature_store.streaming.dead_letters import dead_letter_topic

if TYPE_CHECKING:
    from feature_store.project.context import ProjectRef


@dataclass(frozen=True)
class Subscription:
    """The stream views that one consumer group streams.

    Attributes:
        project: locates the project's registry, online store and settings.
        views: names of stream views. None: all that are served, now and later.
    """

    project: ProjectRef
    views: tuple[str, ...] | None = None

    @property
    def kafka(self) -> Mapping[str, str | int | float | bool]:
        """The Kafka client's settings."""
        return self.project.kafka

    @property
    def group(self) -> str:
        """The consumer group. Members of a group share its partitions, so all of them stream the same views."""
        return "-".join(["feature-store", self.project.name, *sorted(self.views or ())])

    def dead_letters_of(self, topic: str) -> str:
        """The dead-letter topic of a topic."""
        return dead_letter_topic(self.project.dead_letters, topic)

    def as_member(self, instance: str) -> Subscription:
        """The subscription of one member of the group, with its own name (`group.instance.id`)."""
        return replace(self, project=replace(self.project, kafka={**self.kafka, "group.instance.id": instance}))
