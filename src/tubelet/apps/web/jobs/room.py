"""What the worker may use: the videos and models of the server's folder, its caches, and a part of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tubelet.apps.web.jobs.store import TEMPORARY
from tubelet.apps.web.limits import Limits
from tubelet.apps.web.sandbox import Room

FILE_SHARE = 50  # a file that is made is at most so many times as large as an upload may be


def room_for(root: Path, limits: Limits, models: Iterable[str]) -> Room:
    """The room of a worker with these models, by name or path, for a server's folder `root`."""
    root = root.absolute()
    temporary = root / TEMPORARY
    paths = [Path(model).absolute() for model in models if Path(model).exists()]
    caches = list(_caches())
    for cache in caches:
        with suppress(OSError):  # a service may have no home
            cache.mkdir(parents=True, exist_ok=True)
    return Room(
        reads=(root / "videos", root / "models", *paths),
        writes=(root / "scratch", temporary, root / "trainings", *caches),
        temporary=temporary,
        memory=limits.gigabytes * 1_000_000_000 or _memory(),
        file_bytes=FILE_SHARE * limits.bytes,
    )


def _caches() -> Iterable[Path]:
    """Where models of the hub are kept, and networks as an engine wants them."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    yield home / "tubelet"
    yield Path(os.environ.get("HF_HOME") or home / "huggingface")
    yield Path(os.environ.get("TORCH_HOME") or home / "torch")


def _memory() -> int | None:
    """Bytes of memory of this machine; None if it does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        return None
