"""A web application and a task queue with the processor in them, for servers to run in processes of their own."""

import os
import threading
from collections.abc import Awaitable, Callable, Iterable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider

from otel_scorer import ScoringSpanProcessor, Trace


def span_count(trace: Trace) -> int:
    return len(trace.spans)


async def later(trace: Trace) -> bool:
    return True


provider = TracerProvider()
processor = ScoringSpanProcessor(
    OTLPSpanExporter(os.environ["BACKEND"]), [span_count, later], schedule_delay=float(os.environ.get("DELAY", "0.1"))
)
provider.add_span_processor(processor)
tracer = provider.get_tracer("shop")
if "FINISH_ON_SIGTERM" in os.environ:
    processor.finish_on_sigterm()

with tracer.start_as_current_span("import"):
    pass


def sell() -> str:
    with tracer.start_as_current_span("sell"), tracer.start_as_current_span("pack"):
        # Lets other requests of the same process in between, where requests are greenlets.
        threading.Event().wait(0.01)
    return f"{os.getpid()}"


def wsgi(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [sell().encode()]


async def asgi(
    scope: dict[str, object], receive: Callable[..., object], send: Callable[..., Awaitable[object]]
) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": sell().encode()})
