"""
Every exception that otel_scorer raises on purpose.

OtelScorerError
├── ConfigError                 a setting, file or reference that cannot be used: reported once, at start (exit code 2)
│   └── AddressInUseError       a port that somebody else listens on
├── ScorerError                 a scorer that is declared or called in a way that cannot work
├── AssessmentValueError        a field of a Feedback or Expectation that cannot be meant
├── StoreError                  a store that was opened cannot be read or written any more
│   └── SpoolFullError          no room for another request, in the spool or on its disk
├── RequestError                what a receiver tells its client
│   ├── InvalidRequestError     nothing in the request is usable        400 / INVALID_ARGUMENT
│   ├── RequestTooLargeError    over the size limit                     413 / RESOURCE_EXHAUSTED
│   │   └── TooManyPartsError   made of too many messages, likewise
│   ├── UnsupportedSignalError  this signal is not taken here           404 / UNIMPLEMENTED
│   └── OverloadedError         try again later                         503 / UNAVAILABLE with a retry hint
└── TransportError              what a backend told our forwarder
    ├── PermanentError          it will fail again
    │   └── TooLargeError       fewer items may get through
    ├── RetryableError          it may succeed later
    ├── TraceMissingError       a score came before its trace
    └── QueueFullError          no room to wait for the backend
"""

from __future__ import annotations

__all__ = [
    "AddressInUseError",
    "AssessmentValueError",
    "ConfigError",
    "InvalidRequestError",
    "OtelScorerError",
    "OverloadedError",
    "PermanentError",
    "QueueFullError",
    "RequestError",
    "RequestTooLargeError",
    "RetryableError",
    "ScorerError",
    "SpoolFullError",
    "StoreError",
    "TooLargeError",
    "TooManyPartsError",
    "TraceMissingError",
    "TransportError",
    "UnsupportedSignalError",
]


class OtelScorerError(Exception):
    """Base of everything that otel_scorer raises on purpose."""


class ConfigError(OtelScorerError):
    """A setting, file or reference cannot be used. The message says which one and what to do."""


class AddressInUseError(ConfigError):
    """A receiver cannot listen because its address is taken."""


class ScorerError(OtelScorerError):
    """A scorer is declared or called in a way that cannot work."""


class AssessmentValueError(OtelScorerError, ValueError):
    """A field of a Feedback, Expectation or AssessmentSource cannot be meant."""


class StoreError(OtelScorerError):
    """A store of traces that was opened cannot be read or written any more: full disk, damage, a lock."""


class SpoolFullError(StoreError):
    """A request cannot be written down for want of room; it is refused, and may be sent again."""


class RequestError(OtelScorerError):
    """A received request is answered with an error."""


class InvalidRequestError(RequestError):
    """Nothing in the request is usable; sending it again will not help."""


class RequestTooLargeError(RequestError):
    """The request is over the size limit, before or after decompression."""


class TooManyPartsError(RequestTooLargeError):
    """The request is made of so many messages that next to nothing can be in each of them."""


class UnsupportedSignalError(RequestError):
    """This signal is not accepted here."""


class OverloadedError(RequestError):
    """
    The request was refused before anything of it was admitted; the client should send it again.

    Attributes:
        retry_after: Seconds after which a retry makes sense.
    """

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TransportError(OtelScorerError):
    """
    A backend did not take what we sent.

    Attributes:
        code: gRPC status name (`UNAVAILABLE`), `HTTP 503`, or a short word of ours (`connect`).
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class PermanentError(TransportError):
    """The same request will fail again: drop it and count it."""


class TooLargeError(PermanentError):
    """The backend refused the request for its size: fewer items may get through."""


class RetryableError(TransportError):
    """
    The same request may succeed later.

    Attributes:
        retry_after: Seconds that the backend asked us to wait, if it said so.
    """

    def __init__(self, message: str, *, code: str, retry_after: float | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class TraceMissingError(TransportError):
    """
    A backend does not have the trace or span that a score is about, or not yet.

    Attributes:
        traces: Ids of those that it says are missing, if it says which.
    """

    def __init__(self, message: str, *, traces: frozenset[str] = frozenset()) -> None:
        super().__init__(message, code="no_trace")
        self.traces = traces


class QueueFullError(TransportError):
    """The queue to a backend has no room left."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="queue_full")
