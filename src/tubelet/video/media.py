"""Opening a media file or an address with any supported PyAV."""

from __future__ import annotations

from functools import partial

import av
from av.container import InputContainer

# PyAV 19 reads titles that are not UTF-8 and has no such argument; older ones refuse the file without it.
_READS_ANY_TITLE = int(av.__version__.split(".")[0]) >= 19
_open = av.open if _READS_ANY_TITLE else partial(av.open, metadata_errors="ignore")


def open_media(source: str, *, options: dict[str, str], timeout: float | None = None) -> InputContainer:
    """An open container, whatever bytes its titles hold; raises what PyAV raises.

    `options` are FFmpeg's; `timeout` is in seconds.
    """
    return _open(source, options=options, timeout=timeout)
