"""Addresses to listen on, `host:port`, and readable errors when one cannot be had."""

from __future__ import annotations

import errno
import ipaddress
import socket
from urllib.parse import urlsplit

from otel_scorer.errors import AddressInUseError, ConfigError

__all__ = ["explain_bind_error", "is_loopback", "listen", "shown_url", "split_address", "with_port"]

_MAX_PORT = 65_535


def split_address(address: str) -> tuple[str, int]:
    """
    Return host and port of `host:port`, `[ipv6]:port` or `:port` (all interfaces).

    Raises:
        ConfigError: It is none of these.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > _MAX_PORT or (":" in host and not host.startswith("[")):
        raise ConfigError(f"Cannot listen on {address!r}: expected HOST:PORT, such as 127.0.0.1:4317")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104 - an empty host says so


def with_port(host: str, port: int) -> str:
    """Join host and port; the counterpart of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shown_url(url: str) -> str:
    """Return a URL to be shown or logged: what may be secret in it, user, password and query, is hidden."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        parts = parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2])
    return (parts._replace(query="***") if parts.query else parts).geturl()


def listen(address: str) -> socket.socket:
    """
    Return a listening TCP socket.

    Raises:
        AddressInUseError: Somebody else listens there.
        ConfigError: The address is no address, or not one of this machine, or not allowed.
    """
    host, port = split_address(address)
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(target[:2], family=family, backlog=1024)
    except OSError as error:
        raise explain_bind_error(address, error) from error


def explain_bind_error(address: str, error: OSError) -> ConfigError:
    """Say what is wrong with an address that could not be bound."""
    if error.errno == errno.EADDRINUSE:
        return AddressInUseError(f"Cannot listen on {address}: the port is in use by another program")
    return ConfigError(f"Cannot listen on {address}: {error.strerror or error}")


def is_loopback(host: str) -> bool:
    """Tell whether a name or address, IPv6 in brackets or not, can only mean this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        found = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
