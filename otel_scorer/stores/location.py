"""
Where the store is if nobody says.

The environment is read here and not in config/, because a scorer that registers itself asks too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STORE_VARIABLE", "store_path"]

STORE_VARIABLE: Final = "OTEL_SCORER_STORE"
"""Names the file in which traces and registered scorers are kept."""


def store_path(environ: Mapping[str, str] | None = None) -> Path:
    """
    Return where the store is if nobody says: `OTEL_SCORER_STORE`, else `.otel_scorer/traces.db` in the working folder.

    Args:
        environ: Default: the environment of this process.
    """
    from otel_scorer.stores.database import default_store_path

    named = (os.environ if environ is None else environ).get(STORE_VARIABLE, "").strip()
    return Path(named).expanduser() if named else default_store_path()
