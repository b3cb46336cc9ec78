"""
Traces that were scored, with what was said of them: written by `evaluate`, `score` and `serve`, read by searches.

Spans and log records are kept as OTLP bytes and come back as they were. Writing is in batches, reading in pages:
neither needs memory for more than one.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import StoreError
from otel_scorer.model.feedback import Expectation, Feedback, assessment_from_dictionary
from otel_scorer.model.otlp_attributes import utf8_text
from otel_scorer.model.reader import registered_reader
from otel_scorer.model.trace_bytes import trace_from_bytes
from otel_scorer.stores.search_filter import parse_filter
from otel_scorer.stores.trace_entries import (
    Entry,
    StoredEntry,
    TraceRecord,
    decisions_of,
    expectation_row,
    unpacked,
)
from otel_scorer.stores.trace_search import condition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from otel_scorer.model.reader import Reader
    from otel_scorer.model.trace import Trace
    from otel_scorer.stores.database import Database, Row, Transaction

__all__ = ["Entry", "StoredEntry", "TraceRecord", "TraceStore"]

_PAGE: Final = 200
_MILLISECOND: Final = 1_000_000


_TRACE_COLUMNS: Final = (
    "trace_id, spans, logs, packed, name, root_id, service_name, session_id, user_id, state, start_ms, end_ms, tags, "
    "close_reason, complete, revision, stored_ms, unit"
)
# Spans that came late replace what was stored before them; the number, and so the place in searches, stays, and so do
# tags, which somebody may have added.
_PUT_TRACE: Final = f"""INSERT INTO traces ({_TRACE_COLUMNS}) VALUES ({", ".join("?" * 18)})
    ON CONFLICT (trace_id, unit) DO UPDATE SET
    spans = excluded.spans, logs = excluded.logs, packed = excluded.packed, name = excluded.name,
    root_id = excluded.root_id,
    service_name = excluded.service_name, session_id = excluded.session_id, user_id = excluded.user_id,
    state = excluded.state, start_ms = excluded.start_ms, end_ms = excluded.end_ms,
    tags = json_patch(tags, excluded.tags),
    close_reason = excluded.close_reason, complete = excluded.complete, revision = excluded.revision,
    stored_ms = excluded.stored_ms
    WHERE spans IS NOT excluded.spans OR logs IS NOT excluded.logs OR tags IS NOT json_patch(tags, excluded.tags)
    OR revision IS NOT excluded.revision OR close_reason IS NOT excluded.close_reason"""
_PUT_ENTRY: Final = """INSERT INTO entries (run_id, trace_id, position, given, error, decisions, stored_ms, unit)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_PUT_FEEDBACK: Final = "INSERT INTO feedback (trace_id, run_id, name, number, text, unit) VALUES (?, ?, ?, ?, ?, ?)"
_PUT_EXPECTATION: Final = "INSERT OR REPLACE INTO expectations VALUES (?, ?, ?, ?, ?)"
_KEEP_EXPECTATION: Final = "INSERT OR IGNORE INTO expectations VALUES (?, ?, ?, ?, ?)"

_OLDEST_LIVE: Final = """SELECT trace_id, unit FROM traces t
    WHERE NOT EXISTS
        (SELECT 1 FROM entries e WHERE (e.trace_id, e.unit) = (t.trace_id, t.unit) AND e.run_id IS NOT NULL)
    AND EXISTS (SELECT 1 FROM entries e WHERE (e.trace_id, e.unit) = (t.trace_id, t.unit))
    AND NOT EXISTS (SELECT 1 FROM expectations x WHERE x.trace_id = t.trace_id)
    ORDER BY id LIMIT ?"""


class TraceStore:
    """
    The stored traces of a database.

    Args:
        database: Where they are.
        reader: Tells what attributes of stored spans mean. Default: the one that knows all dialects.
    """

    def __init__(self, database: Database, reader: Reader | None = None) -> None:
        self._database = database
        self._reader = reader

    @property
    def path(self) -> Path:
        """The file, as an absolute path."""
        return self._database.path

    def start_run(self, name: str | None = None) -> str:
        """
        Begin a run and return its id, 32 hex digits.

        Raises:
            StoreError: The store cannot be written.
        """
        run_id = uuid.uuid4().hex
        with self._database.transaction() as write:
            write.execute("INSERT INTO runs (run_id, name, created_ms) VALUES (?, ?, ?)", (run_id, name, _now_ms()))
        return run_id

    def has_run(self, run_id: str) -> bool:
        """Tell whether there is such a run."""
        return bool(self._database.query("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)))

    def put(self, entries: Iterable[Entry], run_id: str | None = None) -> None:
        """
        Store judgements, all or none of them.

        A trace that is there already is replaced, and what was said of it stays; only live verdicts on an earlier
        revision go, and what is said live of a revision that is no longer the latest is left out.

        Args:
            entries: The judgements; some hundreds at a time are quick.
            run_id: From `start_run`; None: judged live.

        Raises:
            StoreError: The store cannot be written.
        """
        batch, now = list(entries), _now_ms()
        if run_id is None:
            batch = self._latest(batch)
        # Made before anybody else has to wait for us.
        traces = [entry.record.row(now) for entry in batch]
        judged = [entry.row(run_id, now) for entry in batch]
        feedback = [row for entry in batch for row in entry.feedback_rows(run_id)]
        expectations = [expectation_row(entry.record.trace_id, each) for entry in batch for each in entry.expectations]
        attached = [expectation_row(entry.record.trace_id, each) for entry in batch for each in entry.attached]
        with self._database.transaction() as write:
            if run_id is None:
                _forget_earlier(write, [entry.record for entry in batch if entry.record.revision > 1])
            write.execute_many(_PUT_TRACE, traces)
            write.execute_many(_PUT_ENTRY, judged)
            write.execute_many(_PUT_FEEDBACK, feedback)
            write.execute_many(_PUT_EXPECTATION, expectations)
            write.execute_many(_KEEP_EXPECTATION, attached)

    def _latest(self, batch: Sequence[Entry]) -> list[Entry]:
        """Leave out what is about an earlier revision than the one in the store: scorers overtake one another."""
        known: dict[tuple[str, str], int] = {}
        for entry in batch:
            key = entry.record.trace_id, entry.record.unit
            stored = self._database.query("SELECT revision FROM traces WHERE trace_id = ? AND unit = ?", key)
            known[key] = max(known.get(key, 0), entry.record.revision, *(revision for (revision,) in stored))
        return [entry for entry in batch if entry.record.revision == known[entry.record.trace_id, entry.record.unit]]

    def expect(self, trace_id: str, expectations: Iterable[Expectation]) -> None:
        """
        Attach expectations to a stored trace; an earlier one of the same name is replaced.

        Raises:
            StoreError: There is no such trace, or the store cannot be written.
        """
        with self._database.transaction() as write:
            if not write.execute("SELECT 1 FROM traces WHERE trace_id = ?", (trace_id,)):
                raise StoreError(f"The store {self._database.path} has no trace {trace_id}")
            write.execute_many(_PUT_EXPECTATION, [expectation_row(trace_id, each) for each in expectations])

    def prune_live(self, max_bytes: int) -> int:
        """
        Make room: delete traces that were judged live, the oldest first, until the store takes no more than it may.

        Traces of a run, and those that somebody attached an expectation to, stay.

        Returns:
            How many traces went.

        Raises:
            StoreError: The store cannot be written.
        """
        gone = 0
        while self._database.used_bytes() > max_bytes:
            with self._database.transaction() as write:
                doomed = write.execute(_OLDEST_LIVE, (_PAGE,))
                for table in ("feedback", "entries", "traces"):
                    write.execute_many(f"DELETE FROM {table} WHERE (trace_id, unit) = (?, ?)", doomed)
            if not doomed:
                break
            gone += len(doomed)
        return gone

    def search(
        self, run_id: str | None = None, filter_string: str | None = None, max_results: int | None = None
    ) -> Iterator[Trace]:
        """
        Yield stored traces: those of a run in its order, others the latest first.

        Args:
            run_id: Only traces of this run.
            filter_string: MLflow's search grammar; see `condition`.
            max_results: At most so many.

        Raises:
            ConfigError: The filter cannot be read, or asks for what is not stored.
            StoreError: There is no such run, or the store cannot be read.
        """
        wanted = condition(parse_filter(utf8_text(filter_string or "")))
        if run_id is not None and not self.has_run(run_id):
            raise StoreError(f"The store {self._database.path} has no run {run_id}")
        left = sys.maxsize if max_results is None else max_results
        for row in self._pages(run_id, wanted.sql, wanted.parameters):
            if left <= 0:
                return
            trace = self._trace(row)
            if all(holds(trace) for holds in wanted.on_spans):
                left -= 1
                yield trace

    def trace(self, trace_id: str) -> Trace | None:
        """Return one stored trace with its assessments, of several units the first one; None if it is not here."""
        rows = self._database.query(
            f"SELECT id, 0, {_TRACE_COLUMNS} FROM traces WHERE trace_id = ? ORDER BY id LIMIT 1", (trace_id,)
        )
        return self._trace(rows[0]) if rows else None

    def content(self, trace_id: str) -> tuple[bytes, bytes] | None:
        """Return the spans and the logs of a trace (of several units the first) as they were stored, if it is here."""
        rows = self._database.query(
            "SELECT spans, logs, packed FROM traces WHERE trace_id = ? ORDER BY id LIMIT 1", (trace_id,)
        )
        return unpacked(*rows[0]) if rows else None

    def entry_count(self, run_id: str) -> int:
        """Return of how many rows something was said in a run."""
        [(number,)] = self._database.query("SELECT count(*) FROM entries WHERE run_id = ?", (run_id,))
        return int(number)

    def entries(self, run_id: str, *, first: int = 0, most: int = sys.maxsize) -> Iterator[StoredEntry]:
        """
        Yield what was said in a run, in its order.

        Args:
            run_id: The run.
            first: Position of the first row.
            most: At most so many.

        Raises:
            StoreError: The store cannot be read.
        """
        after = (first, -1)
        while most > 0:
            page = min(_PAGE, most)
            rows = self._database.query(
                "SELECT e.position, e.id, e.given, e.error, e.decisions, "
                "t.trace_id, t.name, t.root_id, t.close_reason, t.complete "
                "FROM entries e JOIN traces t ON (t.trace_id, t.unit) = (e.trace_id, e.unit) "
                "WHERE e.run_id = ? AND (e.position, e.id) > (?, ?) ORDER BY e.position, e.id LIMIT ?",
                (run_id, *after, page),
            )
            for position, _, given, error, decisions, trace_id, name, root_id, close_reason, complete in rows:
                yield StoredEntry(
                    trace_id,
                    name,
                    root_id,
                    close_reason,
                    bool(complete),
                    position,
                    None if given is None else json.loads(given),
                    error,
                    decisions_of(decisions),
                )
            if len(rows) < page:
                return
            after, most = rows[-1][:2], most - page

    def _pages(self, run_id: str | None, sql: str, parameters: Sequence[object]) -> Iterator[Row]:
        """Yield rows with a key of two numbers in front, page by page: nobody has to wait for a slow reader."""
        source, order, after = "traces t", "t.start_ms DESC, t.id DESC", "(t.start_ms, t.id) < (?, ?)"
        key, here = "t.id, t.start_ms", (sys.maxsize, sys.maxsize)
        about: tuple[object, ...] = ()
        if run_id is not None:
            source, order = "entries e JOIN traces t ON (t.trace_id, t.unit) = (e.trace_id, e.unit)", "e.position, e.id"
            # A trace that was judged twice in a run is found once, where it came first.
            after = (
                "e.run_id = ? AND (e.position, e.id) > (?, ?) AND NOT EXISTS (SELECT 1 FROM entries d WHERE "
                "(d.trace_id, d.unit, d.run_id) = (e.trace_id, e.unit, e.run_id) "
                "AND (d.position, d.id) < (e.position, e.id))"
            )
            key, here, about = "e.id, e.position", (-1, -1), (run_id,)
        columns = ", ".join(f"t.{name}" for name in _TRACE_COLUMNS.split(", "))
        while True:
            rows = self._database.query(
                f"SELECT {key}, {columns} FROM {source} WHERE {after} AND {sql} ORDER BY {order} LIMIT ?",
                (*about, *here, *parameters, _PAGE),
            )
            yield from rows
            if len(rows) < _PAGE:
                return
            here = (rows[-1][1], rows[-1][0])

    def _trace(self, row: Row) -> Trace:
        trace_id, spans, logs = row[2], *unpacked(row[3], row[4], row[5])
        return trace_from_bytes(
            spans,
            logs,
            self._reader or registered_reader(),
            close_reason=row[15],
            is_complete=bool(row[16]),
            revision=row[17],
            assessments=[*self._expectations(trace_id), *self._feedback(trace_id, row[19])],
            tags=json.loads(row[14]),
        )

    def _expectations(self, trace_id: str) -> list[Feedback | Expectation]:
        rows = self._database.query("SELECT document FROM expectations WHERE trace_id = ?", (trace_id,))
        return [assessment_from_dictionary(json.loads(document)) for (document,) in rows]

    def _feedback(self, trace_id: str, unit: str) -> list[Feedback]:
        rows = self._database.query(
            "SELECT decisions FROM entries WHERE trace_id = ? AND unit = ? ORDER BY id", (trace_id, unit)
        )
        return [feedback for (text,) in rows for decision in decisions_of(text) for feedback in decision.feedbacks]


def _now_ms() -> int:
    return time.time_ns() // _MILLISECOND


def _forget_earlier(write: Transaction, records: Sequence[TraceRecord]) -> None:
    """Drop live verdicts on earlier revisions of traces: what is said now takes their place."""
    for table in ("entries", "feedback"):
        write.execute_many(
            f"DELETE FROM {table} WHERE (trace_id, unit) = (?, ?) AND run_id IS NULL",
            [(record.trace_id, record.unit) for record in records],
        )
