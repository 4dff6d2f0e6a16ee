"""Lists of several columns for models of sequences: padded matrices with a mask, or flat values with offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from feature_store.definitions.dtypes import DType
    from feature_store.functions import Column, Mask
    from feature_store.online.answer import RequestAnswer
    from feature_store.online.service import CompiledService


class Padded(NamedTuple):
    """Lists as matrices of one shape: what Keras, PyTorch and JAX take.

    Attributes:
        values: for each name (rows, n) of the list's type; Timestamps are int64, microseconds since 1970. Elements
            behind a list's end are 0.
        lengths: (rows,) int64.
        mask: (rows, n) bool, True where there is an element.

    Example:
        >>> import numpy as np
        >>> from feature_store.online import Padded, Ragged
        >>> padded: Padded = Ragged({"item_id": np.array([7, 8, 9])}, np.array([0, 2, 3])).padded(3)
        >>> padded.values["item_id"].tolist(), padded.mask.sum(axis=1).tolist()
        ([[7, 8, 0], [9, 0, 0]], [2, 1])
    """

    values: dict[str, Column]
    lengths: Column
    mask: Mask


class Ragged(NamedTuple):
    """Lists one after the other: what `torch.nested`, TorchRec's JaggedTensor and tf.RaggedTensor take.

    Attributes:
        values: for each name (total,) of the list's type; Timestamps are int64, microseconds since 1970.
        offsets: (rows + 1,) int64. Row i has the elements from `offsets[i]` to `offsets[i + 1]`.

    Example:
        >>> import numpy as np
        >>> from feature_store.online import Ragged
        >>> lists = Ragged({"item_id": np.array([7, 8, 9])}, np.array([0, 2, 3]))
        >>> lists.rows(np.array([1, 1])).values["item_id"].tolist()
        [9, 9]
    """

    values: dict[str, Column]
    offsets: Column

    def padded(self, n: int | None = None) -> Padded:
        """The lists as matrices.

        Args:
            n: the number of columns: the first n elements of longer lists are kept. None: the longest list has place.
        """
        lengths = np.diff(self.offsets)
        width = int(lengths.max(initial=0)) if n is None else n
        mask = np.arange(width) < lengths[:, None]
        places = None
        if n is not None and (lengths > n).any():
            places = (self.offsets[:-1, None] + np.arange(width))[mask]
            lengths = np.minimum(lengths, n)
        padded = {}
        for name, values in self.values.items():
            matrix = padded[name] = np.zeros(mask.shape, values.dtype)
            matrix[mask] = values if places is None else values[places]
        return Padded(padded, lengths, mask)

    def rows(self, places: Column) -> Ragged:
        """The lists of some rows, in the given order."""
        lengths = np.diff(self.offsets)[places]
        offsets = offsets_of(lengths)
        chosen = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][places] - offsets[:-1], lengths)
        return Ragged({name: values[chosen] for name, values in self.values.items()}, offsets)


def offsets_of(lengths: Column) -> Column:
    """(n + 1,) int64, from the lengths of n lists."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def check_lists(types: Mapping[str, DType], names: Sequence[str]) -> None:
    """Raise a RequestError unless all names are columns of lists of numbers."""
    if isinstance(names, str) or not names:
        raise RequestError("names", expected="a list of names of features", got=repr(names))
    for name in names:
        if name not in types:
            raise RequestError("names", expected=f"names among {', '.join(types)}", got=repr(name))
        dtype = types[name]
        if dtype.element is None or dtype.length is not None or dtype.element.width is None:
            raise RequestError(f"names: {name}", expected="a list of numbers of any length", got=str(dtype))


def aligned(columns: Mapping[str, tuple[Column, Column]]) -> Ragged:
    """Columns of lists, each as flat values and lengths, that have equal lengths in each row.

    Raises:
        RequestError: the lengths of two columns differ.
    """
    (first, (_, lengths)), *others = columns.items()
    for name, (_, other) in others:
        if not np.array_equal(lengths, other):
            row = int(np.flatnonzero(lengths != other)[0])
            raise RequestError(
                f"names: {first} and {name}",
                problem=f"the lists of row {row} have {lengths[row]} and {other[row]} elements",
                hint="ask for the columns of one Sequence at a time",
            )
    return Ragged({name: values for name, (values, _) in columns.items()}, offsets_of(lengths))


def ragged_answer(service: CompiledService, answer: RequestAnswer, names: Sequence[str]) -> Ragged:
    """Lists of an answer, row by row; see OnlineResponse.ragged."""
    check_lists({name: column.dtype for name, column in service.columns.items()}, names)
    by_group: dict[int | None, list[str]] = {}
    for name in names:
        by_group.setdefault(service.columns[name].group, []).append(name)
    found = [_of_group(service, answer, of_group) for of_group in by_group.values()]
    if len(found) == 1:
        return found[0]
    together: dict[str, tuple[Column, Column]] = {}
    for lists in found:
        lengths = np.diff(lists.offsets)
        together |= {name: (values, lengths) for name, values in lists.values.items()}
    return aligned({name: together[name] for name in names})


def _of_group(service: CompiledService, answer: RequestAnswer, names: Sequence[str]) -> Ragged:
    """Columns of one group. Lists are read once for each entity."""
    columns = {}
    for name in names:
        column = service.columns[name]
        element = column.dtype.element
        assert element is not None
        lists = column.lists(answer)
        absent = column.absent(answer)
        if absent.any():
            default = np.array(column.default or [], element.numpy)
            lists = [default if is_absent else one for one, is_absent in zip(lists, absent.tolist(), strict=True)]
        columns[name] = flat(lists, element)
    of_entities = aligned(columns)
    count = len(of_entities.offsets) - 1
    places: Column = answer.per_row(service.columns[names[0]].group, np.arange(count))
    return of_entities if len(places) == count and (places == np.arange(count)).all() else of_entities.rows(places)


def flat(lists: Iterable[Any], element: DType) -> tuple[Column, Column]:
    """The elements of m lists, (total,) of the numpy type, and their lengths, (m,) int64."""
    arrays = list(lists)
    lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
    return np.concatenate([np.zeros(0, element.numpy), *arrays]).astype(element.numpy, copy=False), lengths
