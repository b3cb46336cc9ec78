"""
OTLP requests out of files: JSON, JSON lines (the Collector's file exporter), protobuf, each also gzip or zstd.

What a file is, its contents say, not its name. A damaged file gives what can be read of it; the rest is reported.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from otel_scorer.errors import ConfigError, InvalidRequestError, TooManyPartsError
from otel_scorer.model.otlp_json import decode_object
from otel_scorer.model.wire import Signal, check_request, count_items, read_traces
from otel_scorer.stores.byte_streams import decompressed
from otel_scorer.stores.json_texts import json_values

if TYPE_CHECKING:
    import io
    from collections.abc import Generator, Iterator, Mapping

__all__ = ["STDIN", "FileProblem", "OtlpFile"]

STDIN: Final = "-"
"""The name of standard input."""

_KEYS: Final = {
    Signal.TRACES: ("resourceSpans", "resource_spans"),
    Signal.LOGS: ("resourceLogs", "resource_logs"),
    Signal.METRICS: ("resourceMetrics", "resource_metrics"),
}
_TEXT_SAMPLE: Final = 1024
_NO_TEXT: Final = frozenset(range(0x20)) - frozenset(b"\t\n\r\f")
_MAX_PROBLEMS: Final = 100
_RESOURCE_TAG: Final = b"\x0a"  # field 1, length-delimited: resource_spans, resource_logs, resource_metrics
_LENGTH_SIZE: Final = 4
_PART: Final = 1 << 20
_VARINT_BITS: Final = 63


@dataclass(frozen=True, slots=True)
class FileProblem:
    """
    Something in a file that could not be read.

    Attributes:
        file: Its name, `-` for standard input.
        message: What is wrong.
        line: From 1, in text.
        offset: In bytes, after decompression unless the compressed data itself is damaged.
    """

    file: str
    message: str
    line: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        line = "" if self.line is None else f"line {self.line}"
        offset = "" if self.offset is None else f"byte {self.offset}"
        where = ", ".join(filter(None, [line, offset]))
        return f"{self.file}{f' ({where})' if where else ''}: {self.message}"


class OtlpFile:
    """
    One file of OTLP requests, read once.

    Args:
        path: The file, or `-` for standard input.

    Attributes:
        name: The path as it was given.
        size: Bytes on disk; None for what is no regular file.
        problems: What could not be read so far; the first 100.
        problem_count: How many there are.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self.size: int | None = None
        self.problems: list[FileProblem] = []
        self.problem_count = 0
        self._source: BinaryIO | None = None

    @property
    def position(self) -> int:
        """Bytes read so far, of `size`."""
        source = self._source
        return 0 if source is None or source.closed or self.size is None else source.tell()

    def requests(self) -> Iterator[tuple[Signal, bytes]]:
        """
        Yield each request as protobuf, in order of arrival.

        Raises:
            ConfigError: The file cannot be opened, or reading it fails.
        """
        try:
            if self.name == STDIN:
                yield from self._read(sys.stdin.buffer)
                return
            path = Path(self.name)
            with path.open("rb") as source:
                self._source = source
                self.size = path.stat().st_size if path.is_file() else None
                yield from self._read(source)
        except OSError as error:
            raise ConfigError(f"Cannot read {self.name}: {error.strerror or error}") from error

    def report(self, message: str, line: int | None = None, offset: int | None = None) -> None:
        """Note something that cannot be read."""
        self.problem_count += 1
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(FileProblem(self.name, message, line, offset))

    def _read(self, source: BinaryIO) -> Iterator[tuple[Signal, bytes]]:
        stream = decompressed(source, lambda message, offset: self.report(message, offset=offset))
        if _NO_TEXT.isdisjoint(stream.peek(_TEXT_SAMPLE)[:_TEXT_SAMPLE]):
            for value, line, offset in json_values(stream, self.report):
                yield from self._from_json(value, line, offset)
        else:
            yield from self._from_protobuf(stream)

    def _from_json(self, value: Any, line: int, offset: int) -> Iterator[tuple[Signal, bytes]]:
        if isinstance(value, list):
            for item in cast("list[Any]", value):
                yield from self._from_json(item, line, offset)
            return
        if not isinstance(value, dict):
            self.report(f"not OTLP: expected an object, found {type(value).__name__}", line, offset)
            return
        found = cast("Mapping[str, Any]", value)
        if isinstance(found.get("requests"), list):
            for request in found["requests"]:
                yield from self._from_capture(request, line, offset)
            return
        signals = [signal for signal, keys in _KEYS.items() if any(key in found for key in keys)]
        if not signals and found:
            keys = ", ".join(sorted(found)[:5])
            self.report(f"not OTLP: no resourceSpans or resourceLogs, but {keys[:100]}", line, offset)
        for signal in signals:
            part = {key: found[key] for key in _KEYS[signal] if key in found}
            yield from self._decode(signal, part, line, offset)

    def _from_capture(self, request: Any, line: int, offset: int) -> Iterator[tuple[Signal, bytes]]:
        """Read one request of a capture file; what is not OTLP (calls of other APIs) is not meant to be read."""
        if not isinstance(request, dict):
            self.report("not a captured request: expected an object", line, offset)
            return
        captured = cast("Mapping[str, Any]", request)
        signal, body = captured.get("signal"), captured.get("body")
        if signal in set(Signal) and isinstance(body, dict):
            yield from self._decode(Signal(signal), cast("Mapping[str, Any]", body), line, offset)

    def _decode(
        self, signal: Signal, body: Mapping[str, Any], line: int, offset: int
    ) -> Iterator[tuple[Signal, bytes]]:
        if signal is Signal.METRICS:
            return
        try:
            request = decode_object(signal, body)
        except InvalidRequestError as error:
            self.report(str(error), line, offset)
            return
        if request.rejected:
            self.report(request.message, line, offset)
        yield signal, request.data

    def _from_protobuf(self, stream: io.BufferedReader) -> Iterator[tuple[Signal, bytes]]:
        start = b""
        if not stream.peek(1).startswith(_RESOURCE_TAG):
            # No request begins like that: it is the length of the first of them.
            unread = yield from self._from_frames(stream)
            if unread is None:
                return
            start = unread
        data = start + stream.read()
        try:
            messages = _messages(data)
        except TooManyPartsError as error:
            self.report(str(error))
            return
        if messages is None:
            self.report("neither OTLP/JSON nor OTLP protobuf, or cut off", offset=_first_bad(data))
            messages = _resources(data)
        for offset, message in messages:
            yield from self._from_message(message, offset)

    def _from_frames(self, stream: io.BufferedReader) -> Generator[tuple[Signal, bytes], None, bytes | None]:
        """
        Read requests with lengths in front, one at a time.

        Returns:
            None: the data is read. Otherwise what was read of it, for it is something else.
        """
        framed, start = _frames(stream)
        if framed is None:
            return start
        for offset, message in framed:
            if message is None:
                self.report("the last request is cut off", offset=offset)
            else:
                yield from self._from_message(message, offset)
        return None

    def _from_message(self, message: bytes, offset: int) -> Iterator[tuple[Signal, bytes]]:
        try:
            signal = _signal_of(message)
        except TooManyPartsError as error:
            self.report(str(error), offset=offset)
            return
        if signal is None:
            self.report("not an OTLP request", offset=offset)
        elif signal is not Signal.METRICS:
            rejection = read_traces(message).message if signal is Signal.TRACES else ""
            if rejection:
                self.report(rejection, offset=offset)
            yield signal, message


def _signal_of(data: bytes) -> Signal | None:
    """Tell what kind of request it is: all three have the same outer shape, and only one fits the contents."""
    try:
        if read_traces(data).spans:
            return Signal.TRACES
    except InvalidRequestError:
        pass
    for signal in (Signal.LOGS, Signal.METRICS):
        try:
            if check_request(signal, data):
                return signal
        except InvalidRequestError:
            continue
    return Signal.TRACES if _is_empty(data) else None


def _is_empty(data: bytes) -> bool:
    try:
        return not read_traces(data).spans and count_items(Signal.TRACES, data) == 0
    except InvalidRequestError:
        return False


def _messages(data: bytes) -> list[tuple[int, bytes]] | None:
    """Return the requests in the data with their offsets: one, or several with lengths in front; None: neither."""
    if _signal_of(data) is not None and not _is_empty(data):
        return [(0, data)]
    for framed in (_framed_by_length(data), _framed_by_varint(data)):
        if framed and all(_signal_of(message) is not None for _, message in framed):
            return framed
    return [(0, data)] if _is_empty(data) else None


def _frames(stream: io.BufferedReader) -> tuple[Iterator[tuple[int, bytes | None]] | None, bytes]:
    """
    Split data that begins with a length and a request, without reading it as a whole.

    Returns:
        The offset of each request and the request, None if its end is missing; or None and what was read, if it does
        not begin like that.
    """
    start = stream.read(_LENGTH_SIZE)
    # Requests of 16 MB and more behind four bytes are told from the other kind only when all is there.
    is_varint = start[:1] != b"\0"
    size, at = (_varint(start, 0) or (0, 0)) if is_varint else (int.from_bytes(start, "big"), _LENGTH_SIZE)
    if size + at <= _LENGTH_SIZE:
        return None, start
    start += _read(stream, size + at - len(start))
    first = start[at:]
    if len(first) < size or not _is_request(first):
        return None, start
    return chain([(at, first)], _next_frames(stream, len(start), is_varint=is_varint)), b""


def _next_frames(stream: io.BufferedReader, offset: int, *, is_varint: bool) -> Iterator[tuple[int, bytes | None]]:
    while prefix := _read_varint(stream) if is_varint else stream.read(_LENGTH_SIZE):
        offset += len(prefix)
        size = _size_of(prefix, is_varint=is_varint)
        data = b"" if size is None else _read(stream, size)
        if size is None or len(data) < size:
            yield offset, None
            return
        yield offset, data
        offset += size


def _size_of(prefix: bytes, *, is_varint: bool) -> int | None:
    """Return the length that stands in front of a request; None if its own end is missing."""
    if is_varint:
        read = _varint(prefix, 0)
        return None if read is None else read[0]
    return int.from_bytes(prefix, "big") if len(prefix) == _LENGTH_SIZE else None


def _read_varint(stream: io.BufferedReader) -> bytes:
    """Return the bytes of a varint, without its end if that is missing."""
    read = bytearray()
    while len(read) * 7 < _VARINT_BITS and (byte := stream.read(1)):
        read += byte
        if byte[0] < 0x80:  # noqa: PLR2004 - the continuation bit
            break
    return bytes(read)


def _read(stream: io.BufferedReader, size: int) -> bytes:
    """Return so many bytes, or what there is of them: the size may be anything, and takes no memory by itself."""
    parts: list[bytes] = []
    while size and (part := stream.read(min(size, _PART))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _is_request(data: bytes) -> bool:
    try:
        return _signal_of(data) is not None and not _is_empty(data)
    except TooManyPartsError:
        return True


def _framed_by_length(data: bytes) -> list[tuple[int, bytes]] | None:
    """Split messages behind 4 bytes of length, big-endian, as the Collector's file exporter writes them."""
    messages: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        start = at + _LENGTH_SIZE
        end = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or end > len(data):
            return None
        messages.append((start, data[start:end]))
        at = end
    return messages


def _framed_by_varint(data: bytes) -> list[tuple[int, bytes]] | None:
    """Split messages behind a varint of length, protobuf's own way (`writeDelimitedTo`)."""
    messages: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        read = _varint(data, at)
        if read is None or read[1] + read[0] > len(data):
            return None
        size, start = read
        messages.append((start, data[start : start + size]))
        at = start + size
    return messages


def _resources(data: bytes) -> list[tuple[int, bytes]]:
    """Return the leading complete resources of a request that is cut off, each as a request of its own."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while data[at : at + 1] == _RESOURCE_TAG:
        read = _varint(data, at + 1)
        if read is None or read[1] + read[0] > len(data):
            break
        end = read[1] + read[0]
        if _signal_of(data[at:end]) is None:
            break
        found.append((at, data[at:end]))
        at = end
    return found


def _first_bad(data: bytes) -> int:
    complete = _resources(data)
    return complete[-1][0] + len(complete[-1][1]) if complete else 0


def _varint(data: bytes, at: int) -> tuple[int, int] | None:
    """Return a varint and the offset behind it, or None if the data ends before it does."""
    value = 0
    for shift in range(0, _VARINT_BITS, 7):
        if at >= len(data):
            return None
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at
    return None
