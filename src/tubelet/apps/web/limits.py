"""Limits of the server: shown on the page before an upload, and enforced by the server."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 1_000_000
MAX_SIDE = 4096  # pixels of a video's width and height
BASE_THRESHOLD = 0.1  # tracks with lower scores are not stored; the lower end of the page's slider
SHOWN_THRESHOLD = 0.5  # first position of the slider, as in `tubelet predict`
MAX_TRACKS = 254  # stored of one video, best first: as many as a DAVIS palette has
MAX_WINDOW = 64  # most frames in a window that a browser may ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the server waits for one connection, in seconds (`rate` in bytes a second)."""

    head: float = 10.0  # for a request's first line and headers
    body: float = 15.0  # without a byte of the body, or behind what `rate` would have sent
    rate: float = 10_000.0  # lowest speed of a body
    whole: float = 3600.0  # for the whole body
    reader: float = 60.0  # for the client to read what is ready for it, some 64 kB
    linger: float = 2.0  # for the rest of a refused body, so that the client reads the response


PATIENCE = Patience()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that the command line can set."""

    megabytes: int = 500  # of one upload
    frames: int = 9000  # of one video: five minutes at 30 frames a second
    waiting: int = 8  # jobs in the queue, without the running one
    kept: int = 50  # videos on the disk; beyond, the oldest that no job uses is removed
    uploads: int = 4  # at the same time, of all addresses
    uploads_each: int = 2  # at the same time, of one address
    requests_each: int = 40  # at the same time, of one address; 0 is no limit
    rate: float = 50.0  # requests a second, of one user and of one address; 0 is no limit
    guesses: int = 10  # wrong tokens a minute, of one address; 0 is no limit
    gigabytes: int = 0  # of memory, for the worker; 0 is as much as the machine has
    minutes: int = 360  # of one video's run; 0 is no limit
    silence: float = 900.0  # seconds without progress after which a job fails

    @property
    def bytes(self) -> int:
        """Most bytes of one upload."""
        return self.megabytes * MEGABYTE

    def described(self) -> dict[str, int]:
        """The limits that the page shows, as JSON."""
        return {"megabytes": self.megabytes, "frames": self.frames, "side": MAX_SIDE, "window": MAX_WINDOW}
