"""Who is whose parent in a trace, whatever ids arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from otel_scorer.model.facts import SpanKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_scorer.model.span import Span

__all__ = ["Tree"]


@final
class Tree:
    """
    Parents and children of a trace's spans.

    Survives what arrives in practice: cycles, self-parents, missing parents, several roots, and a client and a server
    span that share an id (then the server is the client's child, and the spans below hang on the server).
    """

    __slots__ = ("_children", "_parents", "_walked", "heads")

    def __init__(self, spans: Sequence[Span]) -> None:
        # Each of these is asked several times below, and every question to a view has its price.
        ids = [span.span_id for span in spans]
        self._parents = _find_parents(spans, ids)
        starts = {id(span): (span.start_time_ns, span_id) for span, span_id in zip(spans, ids, strict=True)}
        self.heads: tuple[Span, ...] = ()
        """Spans without a parent here, the trace's root first: real roots, then local roots, then orphans."""
        self._children: dict[int, list[Span]] = {}
        self._link(spans, starts)
        self._walked = self._walk()
        if len(self._walked) < len(spans):
            # What cannot be reached from a head is in a cycle of parents, or below one.
            _cut_cycles(spans, self._parents)
            self._link(spans, starts)
            self._walked = self._walk()

    def parent_of(self, span: Span) -> Span | None:
        """Return the parent, if it is in the trace."""
        return self._parents.get(id(span))

    def children_of(self, span: Span) -> tuple[Span, ...]:
        """Return the spans directly below, by start time."""
        return tuple(self._children.get(id(span), ()))

    def walk(self) -> list[tuple[Span, int]]:
        """Return every span with its depth, in pre-order."""
        return list(self._walked)

    def _link(self, spans: Sequence[Span], starts: Mapping[int, tuple[int, str]]) -> None:
        """Find heads and children, in order."""
        children: dict[int, list[Span]] = {}
        heads: list[Span] = []
        for span in spans:
            parent = self._parents.get(id(span))
            (heads if parent is None else children.setdefault(id(parent), [])).append(span)
        for siblings in children.values():
            if len(siblings) > 1:
                siblings.sort(key=lambda span: (*starts[id(span)], span.kind))
        if len(heads) > 1:
            heads.sort(
                key=lambda span: (span.parent_id is not None, not span.is_local_root, *starts[id(span)], span.kind)
            )
        self._children, self.heads = children, tuple(heads)

    def _walk(self) -> list[tuple[Span, int]]:
        """Go down from the heads, without recursion: traces can be deep."""
        out: list[tuple[Span, int]] = []
        todo = [(head, 0) for head in reversed(self.heads)]
        children = self._children
        while todo:
            span, depth = todo.pop()
            out.append((span, depth))
            below = children.get(id(span))
            if below:
                todo += [(child, depth + 1) for child in reversed(below)]
        return out


def _find_parents(spans: Sequence[Span], ids: Sequence[str]) -> dict[int, Span]:
    by_id: dict[str, list[Span]] = {}
    for span, span_id in zip(spans, ids, strict=True):
        by_id.setdefault(span_id, []).append(span)
    for twins in by_id.values():
        if len(twins) > 1:
            twins.sort(key=lambda span: (span.kind is SpanKind.SERVER, *_by_start(span)))
    parents: dict[int, Span] = {}
    for span, span_id in zip(spans, ids, strict=True):
        twins = by_id[span_id]
        parent_id = span.parent_id
        if len(twins) > 1 and twins[0] is not span:
            parents[id(span)] = twins[0]
        elif parent_id is not None and parent_id != span_id and parent_id in by_id:
            parents[id(span)] = by_id[parent_id][-1]
    return parents


def _cut_cycles(spans: Sequence[Span], parents: dict[int, Span]) -> None:
    """Make the earliest span of each parent cycle a head, so that everything can be reached."""
    safe: set[int] = set()
    for start in spans:
        path: list[Span] = []
        on_path: set[int] = set()
        span: Span | None = start
        while span is not None and id(span) not in safe and id(span) not in on_path:
            path.append(span)
            on_path.add(id(span))
            span = parents.get(id(span))
        if span is not None and id(span) in on_path:
            cycle = path[path.index(span) :]
            del parents[id(min(cycle, key=_by_start))]
        safe |= on_path


def _by_start(span: Span) -> tuple[int, str, str]:
    return (span.start_time_ns, span.span_id, span.kind)
