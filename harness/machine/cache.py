"""Where this project caches files for a user."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path | None:
    """Return this project's folder in the user's cache, or None without a home."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(cache) if Path(cache).is_absolute() else Path("~/.cache")
    try:
        return folder.expanduser() / "rnn-harness"
    except RuntimeError:
        return None
