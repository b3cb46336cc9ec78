"""Who is whose parent in a trace, whatever ids arrived."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeAlias, final

from otel_scorer.model.facts import SpanKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otel_scorer.model.span import Span

__all__ = ["Tree"]

_Row: TypeAlias = "tuple[tuple[int, bytes, bytes], Span]"
"""A span after its `position`, so that rows are sorted without a Python call for each."""

_BY_POSITION: Final = itemgetter(0)


@final
class Tree:
    """
    Parents and children of a trace's spans.

    Survives what arrives in practice: cycles, self-parents, missing parents, several roots, and a client and a server
    span that share an id (then the server is the client's child, and the spans below hang on the server).
    """

    __slots__ = ("_children", "_parents", "_rows", "_walked", "heads")

    def __init__(self, spans: Sequence[Span]) -> None:
        self._rows: list[_Row] = sorted([(span.position, span) for span in spans], key=_BY_POSITION)
        self.heads: tuple[Span, ...] = ()
        """Spans without a parent here, the trace's root first: real roots, then local roots, then orphans."""
        self._parents: dict[Span, Span] = {}
        self._children: dict[Span, list[Span]] = {}
        self._walked: list[tuple[Span, int]] | None = None
        if not self._link_in_order():
            self._parents = _find_parents(self._rows)
            self._link()
            self._walked = self._walk()
            if len(self._walked) < len(spans):
                # What cannot be reached from a head is in a cycle of parents, or below one.
                _cut_cycles((span for _, span in self._rows), self._parents)
                self._link()
                self._walked = self._walk()

    def parent_of(self, span: Span) -> Span | None:
        """Return the parent, if it is in the trace."""
        return self._parents.get(span)

    def children_of(self, span: Span) -> tuple[Span, ...]:
        """Return the spans directly below, by start time."""
        return tuple(self._children.get(span, ()))

    def walk(self) -> Sequence[tuple[Span, int]]:
        """Return every span with its depth, in pre-order."""
        walked = self._walked
        if walked is None:
            walked = self._walked = self._walk()
        return walked

    @property
    def root_count(self) -> int:
        """Number of spans without a parent id."""
        return sum([not parent_id for (_, _, parent_id), _ in self._rows])

    @property
    def missing_parent_count(self) -> int:
        """Number of different parent ids that are named but not here."""
        here = {span_id for (_, span_id, _), _ in self._rows}
        return len({parent_id for (_, _, parent_id), _ in self._rows if parent_id} - here)

    def by_start(self) -> list[Span]:
        """Return all spans, the root first, then by start time; a parent before a child that started with it."""
        rows = self._rows
        if len({start for (start, _, _), _ in rows}) < len(rows):
            depths: Mapping[Span, int] = dict(self.walk())
            ranked = [((start, depths[span], span_id), span) for (start, span_id, _), span in rows]
            ranked.sort(key=_BY_POSITION)
            spans = [span for _, span in ranked]
        else:
            spans = [span for _, span in rows]
        if spans and spans[0] is not self.heads[0]:
            spans.remove(self.heads[0])
            spans.insert(0, self.heads[0])
        return spans

    def _link_in_order(self) -> bool:
        """
        Find parents, heads and children in one go, as nearly every trace allows; False: it takes more than that.

        Where every parent begins before its children, and no two spans share an id, there can be no cycle.
        """
        by_id: dict[bytes, Span] = {}
        parents = self._parents
        children: dict[Span, list[Span]] = {}
        heads: list[Span] = []
        missing: list[bytes] = []
        for (_, span_id, parent_id), span in self._rows:
            parent = by_id.get(parent_id) if parent_id else None
            if parent is None:
                heads.append(span)
                if parent_id:
                    missing.append(parent_id)
            else:
                parents[span] = parent
                if parent in children:
                    children[parent].append(span)
                else:
                    children[parent] = [span]
            by_id[span_id] = span
        if len(by_id) < len(self._rows) or not by_id.keys().isdisjoint(missing):
            return False
        self._put(heads, children)
        return True

    def _link(self) -> None:
        """Find heads and children, in order."""
        children: dict[Span, list[Span]] = {}
        heads: list[Span] = []
        parents = self._parents
        for _, span in self._rows:
            parent = parents.get(span)
            if parent is None:
                heads.append(span)
            elif parent in children:
                children[parent].append(span)
            else:
                children[parent] = [span]
        self._put(heads, children)

    def _put(self, heads: list[Span], children: dict[Span, list[Span]]) -> None:
        if len(heads) > 1:
            heads.sort(key=lambda span: (span.parent_id is not None, not span.is_local_root))
        self._children, self.heads = children, tuple(heads)

    def _walk(self) -> list[tuple[Span, int]]:
        """Go down from the heads, without recursion: traces can be deep."""
        out: list[tuple[Span, int]] = []
        children = self._children
        # Of the span that was walked last and of those above it: the spans beside it that are still to come.
        levels = [iter(self.heads)]
        while levels:
            depth = len(levels) - 1
            for span in levels[-1]:
                out.append((span, depth))
                below = children.get(span)
                if below is not None:
                    levels.append(iter(below))
                    break
            else:
                levels.pop()
        return out


def _find_parents(rows: list[_Row]) -> dict[Span, Span]:
    by_id = {span_id: span for (_, span_id, _), span in rows}
    if len(by_id) < len(rows):
        return _find_parents_of_twins(rows)
    return {
        span: parent
        for (_, _, parent_id), span in rows
        if parent_id and (parent := by_id.get(parent_id)) is not None and parent is not span
    }


def _find_parents_of_twins(rows: list[_Row]) -> dict[Span, Span]:
    """Find parents where spans share ids; sorts the rows anew: their positions do not tell such spans apart."""
    rows.sort(key=lambda row: (*row[0][:2], row[1].kind))
    by_id: dict[bytes, list[Span]] = {}
    for (_, span_id, _), span in rows:
        by_id.setdefault(span_id, []).append(span)
    for twins in by_id.values():
        twins.sort(key=lambda span: span.kind is SpanKind.SERVER)
    parents: dict[Span, Span] = {}
    for (_, span_id, parent_id), span in rows:
        twins = by_id[span_id]
        if twins[0] is not span:
            parents[span] = twins[0]
        elif parent_id and parent_id != span_id and parent_id in by_id:
            parents[span] = by_id[parent_id][-1]
    return parents


def _cut_cycles(spans: Iterable[Span], parents: dict[Span, Span]) -> None:
    """Make the earliest span of each parent cycle a head, so that everything can be reached."""
    safe: set[Span] = set()
    for start in spans:
        path: list[Span] = []
        on_path: set[Span] = set()
        span: Span | None = start
        while span is not None and span not in safe and span not in on_path:
            path.append(span)
            on_path.add(span)
            span = parents.get(span)
        if span is not None and span in on_path:
            cycle = path[path.index(span) :]
            del parents[min(cycle, key=lambda each: (each.position, each.kind))]
        safe |= on_path
