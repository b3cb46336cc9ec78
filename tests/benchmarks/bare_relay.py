"""The least that a Python process between application and backend does: it answers when the backend has answered."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def main() -> None:
    """Pass requests on to the backend whose address is given; print the address to send to."""
    channel: Any = grpc.insecure_channel(sys.argv[1], options=UNLIMITED)
    export = channel.unary_unary(EXPORT)
    service, method = EXPORT.strip("/").split("/")
    handler = grpc.unary_unary_rpc_method_handler(lambda data, _: export(data))
    server = grpc.server(ThreadPoolExecutor(8), options=UNLIMITED)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"ready grpc=127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
