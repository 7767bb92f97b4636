"""Open a media file or a network address with any supported version of PyAV."""

from __future__ import annotations

from functools import partial

import av
from av.container import InputContainer

# PyAV 19 reads titles that are not UTF-8 and has no such argument; older ones refuse the file without it.
_READS_ANY_TITLE = int(av.__version__.split(".")[0]) >= 19
_open = av.open if _READS_ANY_TITLE else partial(av.open, metadata_errors="ignore")


def open_media(source: str, *, options: dict[str, str], timeout: float | None = None) -> InputContainer:
    """Open a file or address with PyAV, even if its titles are not valid UTF-8.

    Args:
        source: The path or address.
        options: Options for FFmpeg.
        timeout: Seconds; None to wait for ever.

    Raises:
        av.FFmpegError, OSError, ValueError: as `av.open` does.
    """
    return _open(source, options=options, timeout=timeout)
