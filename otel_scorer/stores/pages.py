"""A list that is somewhere else and read page by page, so that only a few of its pages are in memory."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PagedSequence"]

T = TypeVar("T")

_KEPT: Final = 2048


class PagedSequence(Sequence[T]):
    """
    Reads its items when they are asked for, and again when they are asked for again; thread-safe.

    The last 2048 or so that were read are kept, and are the same objects when they are asked for again. It equals any
    list or sequence of this kind with equal items.

    Args:
        page_size: Items on a page; only the last page may have fewer.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._pages: OrderedDict[int, Sequence[T]] = OrderedDict()
        self._lock = threading.Lock()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _read(self, page: int) -> Sequence[T]:
        """Return the items of a page, from 0."""

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        page, place = divmod(number, self._page_size)
        return self._page(page)[place]

    def __iter__(self) -> Iterator[T]:
        page = 0
        while page * self._page_size < len(self):
            yield from self._page(page)
            page += 1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | PagedSequence):
            return NotImplemented
        others = cast("Sequence[object]", other)
        return len(self) == len(others) and all(map(_equal, self, others))

    __hash__ = None  # type: ignore[assignment]  # as of a list: what is in it may be changed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)}>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in {"_pages", "_lock"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._pages, self._lock = OrderedDict(), threading.Lock()

    def _page(self, page: int) -> Sequence[T]:
        with self._lock:
            found = self._pages.get(page)
            if found is not None:
                self._pages.move_to_end(page)
                return found
        found = self._read(page)
        with self._lock:
            # Who comes first decides which objects everybody gets.
            found = self._pages.setdefault(page, found)
            if len(self._pages) > max(1, _KEPT // self._page_size):
                self._pages.popitem(last=False)
        return found


def _equal(one: object, other: object) -> bool:
    return one is other or one == other
