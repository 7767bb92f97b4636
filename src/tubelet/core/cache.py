"""The user's cache folder: $XDG_CACHE_HOME/tubelet, or ~/.cache/tubelet."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return the cache folder of this name; it may not exist yet.

    Example:
        >>> from tubelet.core.cache import cache_folder
        >>> cache_folder("graphs").name
        'graphs'
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "tubelet" / name
