"""A real Chromium without a window, driven over the pipes of its debugging protocol: nothing else to install."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--remote-debugging-pipe",
]
# It takes messages from descriptor 3 and answers on 4.
START = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3])
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
SECONDS = 40.0


class Page:
    """
    One page.

    Attributes:
        complaints: Errors, warnings and exceptions that the page caused.
        addresses: What it asked the network for, itself included.
    """

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(1400, 900)

    def call(self, method: str, **parameters: object) -> Any:
        """Call a method of the debugging protocol and return its result."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        return self._wait_for(lambda said: said.get("id") == self._number, method)["result"]

    def open(self, path: Path, fragment: str = "") -> None:
        """Open a file and wait until it is there."""
        self.visit(path.as_uri() + fragment)

    def visit(self, url: str) -> None:
        """Open a page and wait until it is there."""
        self.call("Page.navigate", url=url)
        self._wait_for(lambda said: said.get("method") == "Page.loadEventFired", "the page to load")

    def run(self, script: str) -> Any:
        """Return what an expression is, as JSON data."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, key: str) -> None:
        """Press and let go a key."""
        text = {"Enter": "\r", " ": " "}.get(key)
        code = {"Enter": 13, " ": 32, "Tab": 9, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "ArrowRight": 39,
                "ArrowLeft": 37, "End": 35, "Home": 36}[key]  # fmt: skip
        shared = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **shared, **({} if text is None else {"text": text}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """Prefer `light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        """Write what can be seen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _wait_for(self, is_it: Any, what: str) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while True:
            said = self._next(deadline, what)
            self._note(said)
            if is_it(said):
                assert "error" not in said, said
                return said

    def _next(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"Chromium did not answer: {what}"
            data = os.read(self._receive, 1 << 20)
            assert data, f"Chromium ended: {what}"
            self._unread += data
        message, _, self._unread = self._unread.partition(b"\0")
        said: dict[str, Any] = json.loads(message)
        return said

    def _note(self, said: dict[str, Any]) -> None:
        method, told = said.get("method"), said.get("params", {})
        if method == "Network.requestWillBeSent":
            self.addresses.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(told["entry"]["text"])


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Start Chromium with a profile of its own, give a page, and end it."""
    assert CHROMIUM is not None
    (child_reads, we_send), (we_receive, child_writes) = os.pipe(), os.pipe()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            START,
            str(child_reads),
            str(child_writes),
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={profile}",
        ],
        pass_fds=(child_reads, child_writes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(child_reads)
    os.close(child_writes)
    try:
        yield Page(we_send, we_receive)
    finally:
        # Told that nobody is there any more, it ends with all its processes.
        os.close(we_send)
        os.close(we_receive)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
