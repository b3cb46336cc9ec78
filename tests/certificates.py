"""Certificates for tests, made by the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["Authority", "Pair"]


class Pair(NamedTuple):
    """PEM files of a certificate and its key."""

    certificate: Path
    key: Path

    def replace_by(self, other: Pair) -> None:
        """Put another certificate in the place of this one, each file at once, as those who rotate them do."""
        for mine, theirs in zip(self, other, strict=True):
            new = mine.with_suffix(".new")
            new.write_bytes(theirs.read_bytes())
            new.replace(mine)


class Authority:
    """Issues certificates for localhost. Skips the test where there is no openssl."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("needs the openssl program")
        self.folder = folder
        self._name = name
        self._issued = 0
        self._own = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        # Python 3.13 and newer ask for the key usage, as RFC 5280 does.
        extensions = [
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ]
        self._make(self._own, f"/CN={name}", *extensions)

    @property
    def certificate(self) -> Path:
        return self._own.certificate

    def issue(self, name: str = "localhost", *, hosts: str = "DNS:localhost,IP:127.0.0.1") -> Pair:
        self._issued += 1
        pair = Pair(self.folder / f"{self._name}-{self._issued}.pem", self.folder / f"{self._name}-{self._issued}.key")
        signer = ["-CA", str(self.certificate), "-CAkey", str(self._own.key)]
        extensions = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"subjectAltName={hosts}"]
        self._make(pair, f"/CN={name}", *signer, *extensions)
        return pair

    def _make(self, pair: Pair, subject: str, *more: str) -> None:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(pair.key)]
        command = ["openssl", "req", "-x509", *key, "-out", str(pair.certificate), "-days", "2", "-subj", subject]
        subprocess.run([*command, *more], check=True, capture_output=True, timeout=30)
