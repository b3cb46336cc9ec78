"""`check`: files and folders that `serve` reads and writes are looked at as it does, and left as they are."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from otel_scorer.config import FileExporter, NativeExporter, OtlpExporter
from otel_scorer.errors import ConfigError
from otel_scorer.pipeline.workers.memory_use import available_memory
from otel_scorer.service.parts import make_authenticator
from otel_scorer.transport.tls import client_context, server_context

if TYPE_CHECKING:
    from otel_scorer.config import Config

__all__ = ["check_files"]


def check_files(config: Config) -> list[str]:
    """
    Look at what `serve` would read and write, and return remarks on it. Nothing is made or changed.

    Raises:
        ConfigError: A certificate or a file with credentials cannot be used, a file cannot be appended to, the store or
            the spool cannot be had, or the limits of memory contradict each other on this machine.
    """
    protocols = config.receivers.otlp.protocols
    for name, settings in (("grpc", protocols.grpc), ("http", protocols.http)):
        if settings.tls.files is not None:
            server_context(settings.tls.files)
        make_authenticator(name, settings.auth, settings.tls)
    for exporter in config.exporters.values():
        if isinstance(exporter, OtlpExporter | NativeExporter):
            if exporter.tls.is_meant:
                client_context(exporter.tls.files)
            if exporter.dead_letters is not None:
                _check_appending(Path(exporter.dead_letters))
        elif isinstance(exporter, FileExporter):
            _check_appending(Path(exporter.path))
    config.memory.limits(available_memory())
    if config.store is not None:
        _check_store(Path(config.store))
    return [] if config.spool.directory is None else _check_spool(Path(config.spool.directory))


def _check_appending(path: Path) -> None:
    """Open a file as `serve` does; one that was not there is not there afterwards."""
    is_new = not path.exists()
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(f"Cannot write to {path}: {error.strerror}") from error
    if is_new:
        path.unlink(missing_ok=True)


def _check_store(path: Path) -> None:
    if path.exists():
        _check_appending(path)
    else:
        _check_folder(path.absolute().parent, f"the store {path}")


def _check_spool(folder: Path) -> list[str]:
    from otel_scorer.stores.spool_file import check_file
    from otel_scorer.stores.spool_lock import FolderLock

    _check_folder(folder, f"the spool {folder}")
    if (folder / "spool.db").exists():
        check_file(folder / "spool.db")
    if not (folder / "lock").exists():
        return []
    try:
        FolderLock(folder).release()
    except ConfigError as error:
        # It may well be the one that is to be restarted with this configuration.
        return [str(error)]
    return []


def _check_folder(folder: Path, what: str) -> None:
    """Find out whether files can be made in a folder, or in the nearest one above that is there."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ConfigError(f"Cannot make {what}: {error.strerror} ({there})") from error
