"""What the server takes: said on the page before an upload, and held while it runs."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 1_000_000
MAX_SIDE = 4096  # pixels
BASE_THRESHOLD = 0.1  # tracks below are never kept; the page's slider starts here
SHOWN_THRESHOLD = 0.5  # where the slider stands at first, as in `tubelet predict`
MAX_TRACKS = 254  # what a DAVIS palette holds, the best ones
MAX_WINDOW = 64  # frames at a time that a browser may ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long one connection may keep the server waiting; all in seconds."""

    head: float = 10.0  # for a request's line and headers
    body: float = 15.0  # without a byte of the body, or as much behind `rate`
    rate: float = 10_000.0  # bytes a second: the least of a body
    whole: float = 3600.0  # for all of a body
    reader: float = 60.0  # until a reader has taken what is ready for it, some 64 kB
    linger: float = 2.0  # for the rest of a refused body, so that the answer is read


PATIENCE = Patience()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that the command line can set."""

    megabytes: int = 500  # of one upload
    frames: int = 9000  # of one video: five minutes at 30 frames a second
    waiting: int = 8  # jobs in the queue beside the running one
    kept: int = 50  # videos on the disk; the oldest that no job is using make place
    uploads: int = 4  # at the same time
    uploads_each: int = 2  # of one address
    requests_each: int = 40  # of one address at the same time; 0 is no limit
    silence: float = 900.0  # seconds without news of a job, after which it is given up

    @property
    def bytes(self) -> int:
        """Of one upload."""
        return self.megabytes * MEGABYTE

    def described(self) -> dict[str, int]:
        """For the page."""
        return {"megabytes": self.megabytes, "frames": self.frames, "side": MAX_SIDE, "window": MAX_WINDOW}
