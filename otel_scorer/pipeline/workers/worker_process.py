"""One scorer worker as the sidecar sees it: a child process, the pipe to it, and the page with its heartbeats."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

from otel_scorer.errors import ConfigError
from otel_scorer.pipeline.workers.jobs import ScorerProfile
from otel_scorer.pipeline.workers.protocol import HEARTBEAT_BYTES, Beat, Heartbeat, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["WorkerProcess", "WorkerScorer"]

# The worker sees the modules that we see, in the same order, wherever it was started.
_BOOT: Final = (
    "import os, sys; sys.path[:] = sys.argv.pop(1).split(os.pathsep); "
    "from otel_scorer.pipeline.workers.worker import main; sys.exit(main(sys.argv[1:]))"
)


@dataclass(frozen=True, slots=True)
class WorkerScorer:
    """
    What a worker says of a scorer that it has loaded.

    Attributes:
        name: Its name.
        version: Its version.
        sample_rate: 0 to 1.
        timeout: Seconds for one call; None: no limit.
        is_async: Whether it is a coroutine scorer.
        is_per_span: Whether it has one target per span of its types, instead of the trace.
    """

    name: str
    version: str
    sample_rate: float
    timeout: float | None
    is_async: bool
    is_per_span: bool

    @property
    def profile(self) -> ScorerProfile:
        """What the engine needs to know."""
        return ScorerProfile(self.name, self.version, self.sample_rate)


class WorkerProcess:
    """
    Starts with its construction; `ready` must follow.

    Attributes:
        process: The child process.
        connection: The pipe to it. One thread may read while another writes.
        scorers: What it has loaded, once it is ready.
        memory_limit: Bytes that it may have for itself; None: no limit.
        left_out: Why optional scorers are not among them.
    """

    def __init__(self, setup: Mapping[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        page = tempfile.TemporaryFile(prefix="otel-scorer-")  # noqa: SIM115 - lives as long as the worker
        page.truncate(HEARTBEAT_BYTES)
        self._page = mmap.mmap(page.fileno(), HEARTBEAT_BYTES)
        self._heartbeats = Heartbeat(self._page, 0), Heartbeat(self._page, 1)
        for heartbeat in self._heartbeats:
            heartbeat.end()
        with theirs, page:
            self.process = subprocess.Popen(  # noqa: S603 - our own module, with our own interpreter
                [
                    sys.executable,
                    "-P",
                    "-c",
                    _BOOT,
                    os.pathsep.join(sys.path),
                    str(theirs.fileno()),
                    str(page.fileno()),
                ],
                pass_fds=(theirs.fileno(), page.fileno()),
                stdin=subprocess.DEVNULL,
                process_group=0,  # what its scorers start and leave behind ends with it
            )
        self._socket = ours
        # Once nobody has this object any more; closed by itself it would warn.
        weakref.finalize(self, ours.close).atexit = False
        self.connection = Connection(os.dup(ours.fileno()))
        self.memory_limit: int | None = setup.get("memory_limit")
        self.scorers: list[WorkerScorer] = []
        self.left_out: list[str] = []
        # One that has ended already is found out by `ready`.
        with contextlib.suppress(OSError):
            self.connection.send_bytes(pack(setup))

    def ready(self, timeout: float) -> list[WorkerScorer]:
        """
        Wait until the scorers are loaded and return what is known of them.

        Raises:
            ConfigError: They cannot be loaded; the message says why.
        """
        try:
            if not self.connection.poll(timeout):
                msg = f"The scorers were not loaded within {timeout:g} seconds"
                raise ConfigError(msg)
            answer, _ = unpack(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            self.process.wait()
            msg = f"The scorer worker ended while it loaded the scorers ({self.cause})"
            raise ConfigError(msg) from error
        if "error" in answer:
            raise ConfigError(answer["error"])
        self.scorers = [WorkerScorer(**scorer) for scorer in answer["scorers"]]
        self.left_out = answer["left_out"]
        return self.scorers

    def beats(self) -> list[Beat]:
        """Return what runs in it, or ran when it ended: a function scorer, a step of a coroutine scorer, or both."""
        return [beat for heartbeat in self._heartbeats if (beat := heartbeat.read()) is not None]

    @property
    def cause(self) -> str:
        """How it ended."""
        code = self.process.poll()
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it: somebody else's doing, mostly."""
        return self.process.poll() == -signal.SIGKILL

    def receive(self, timeout: float) -> bytes | None:
        """
        Return the next message; None if there is none within so many seconds.

        Raises:
            EOFError: The process has ended. Its end of the pipe may live on in a process that a scorer has started.
        """
        if self.connection.poll(timeout):
            return self.connection.recv_bytes()
        if self.process.poll() is not None:
            raise EOFError
        return None

    def kill(self) -> None:
        """End the process at once, and those that its scorers have started."""
        self.process.kill()
        self._kill_group()
        self.process.wait()

    def wait(self, timeout: float) -> None:
        """Give the process so many seconds to end by itself; what its scorers have started ends with it."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        else:
            self._kill_group()

    def _kill_group(self) -> None:
        # There is no such group once nobody is left in it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """
        Say that nothing more will come: the process ends when it is done, and our reader sees the end.

        The descriptor itself stays open while any thread of ours may use it.
        """
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
