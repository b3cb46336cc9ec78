"""What was said of many subjects, packed: beyond some megabytes it is in a file, and read when it is looked at."""

from __future__ import annotations

from array import array
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from otel_scorer.reporting.subject import Evidence, Subject
from otel_scorer.stores.overflow import Overflow
from otel_scorer.stores.packing import Held, Packer, pack_decisions, unpack_decisions
from otel_scorer.stores.pages import PagedSequence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.reporting.report import Judged

__all__ = ["JudgementLog", "Judgements"]

_PAGE: Final = 64
# In place of where the bytes end: there are none, what was noted is an object in memory.
_HELD: Final = -1


class Judgements(PagedSequence["Judged"]):
    """
    Subjects with the decisions about them, in order.

    Args:
        load: Returns the evidence of a subject, given its number and what was noted of it.
        pack: Writes and reads values.
        data: Where they are.
        pages: Where each page begins in `data`, and where the last one ends.
        size: How many there are.
    """

    def __init__(
        self, load: Callable[[int, Any], Evidence], pack: Packer, data: Overflow, pages: Sequence[int], size: int
    ) -> None:
        super().__init__(_PAGE)
        self._load = load
        self._packer = pack
        self._data = data
        self._at = pages
        self._size = size

    def __len__(self) -> int:
        return self._size

    def _read(self, page: int) -> list[Judged]:
        begin, end = self._at[2 * page], self._at[2 * page + 1]
        packed: list[Any] = self._packer.unpack(self._data.read(begin, end - begin))
        return [
            (self._subject(page * _PAGE + place, *row[:-1]), unpack_decisions(row[-1]))
            for place, row in enumerate(packed)
        ]

    def _subject(self, number: int, begin: int, end: int, *facts: Any) -> Subject:
        name, trace_id, root_id, close_reason, complete, problem = facts
        load = partial(self._evidence, number, begin, end)
        return Subject(name, trace_id, root_id, close_reason, complete, load, problem)

    def _evidence(self, number: int, begin: int, end: int) -> Evidence:
        if end == _HELD:
            return self._load(number, self._packer.held_at(begin))
        noted = self._packer.unpack(self._data.read(begin, end - begin)) if end > begin else None
        return self._load(number, noted)


class JudgementLog:
    """
    Takes judgements one after the other.

    Args:
        load: See `Judgements`.
    """

    def __init__(self, load: Callable[[int, Any], Evidence]) -> None:
        self._load = load
        self._packer = Packer()
        self._data = Overflow()
        self._pages = array("Q")
        self._page: list[Any] = []
        self._size = 0

    def add(self, subject: Subject, decisions: Sequence[Decision], noted: object = None) -> None:
        """
        Take one.

        Args:
            subject: What was judged; how it loads its evidence is not kept.
            decisions: What became of the scorers.
            noted: What the evidence is made from, beside the number of the subject; packed, so that what is changed
                later does not show, or `Held`.
        """
        begin = end = 0
        if isinstance(noted, Held):
            begin, end = self._packer.hold(noted.value), _HELD
        elif noted is not None:
            packed = self._packer.pack(noted)
            begin = self._data.append(packed)
            end = begin + len(packed)
        self._page.append(
            (
                begin,
                end,
                subject.name,
                subject.trace_id,
                subject.root_id,
                subject.close_reason,
                subject.complete,
                subject.problem,
                pack_decisions(decisions),
            )
        )
        self._size += 1
        if len(self._page) == _PAGE:
            self._flush()

    def finish(self) -> Judgements:
        """Return all of them; none can be added any more."""
        self._flush()
        return Judgements(self._load, self._packer, self._data, self._pages, self._size)

    def _flush(self) -> None:
        page, self._page = self._page, []
        if page:
            packed = self._packer.pack(page)
            begin = self._data.append(packed)
            self._pages.extend((begin, begin + len(packed)))
