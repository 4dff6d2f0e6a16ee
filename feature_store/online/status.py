"""The status of one served value."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """The status of one value in a response. Served logs and metrics hold these codes.

    Example:
        >>> from feature_store.online import Status
        >>> [status.name for status in Status]
        ['PRESENT', 'NULL', 'MISSING', 'EXPIRED', 'PRUNED', 'SKIPPED']
    """

    PRESENT = 0  # there is a value, and it is not older than the view's ttl
    NULL = 1  # the view has a row for the entity, and this field of it is null
    MISSING = 2  # the view has no row for the entity
    EXPIRED = 3  # the view's row is older than its ttl
    PRUNED = 4  # a prune plan dropped the feature
    SKIPPED = 5  # the feature was not read before the deadline


STATUSES = tuple(Status)  # by code
