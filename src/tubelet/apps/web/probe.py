"""Read size, length and codec of an untrusted video file in a process of its own, which a hostile file may crash.

Only plain containers are opened. A playlist is refused, because it could name other files and addresses.
`python -m tubelet.apps.web.probe PATH MAX_FRAMES` prints one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tubelet.apps.web import sandbox
from tubelet.apps.web.limits import MAX_SIDE
from tubelet.core.errors import InputError

CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif,h264,hevc,ivf,mxf,apng,webp_anim"
SECONDS = 30  # most time for one file
MEMORY = 2 << 30  # most bytes of the probing process
NO_VIDEO = "this file is not a video that can be read"

# what every current browser plays: FFmpeg's name of a container -> codecs
PLAYED = {"mov,mp4,m4a,3gp,3g2,mj2": {"h264"}, "matroska,webm": {"vp8", "vp9"}}
PLAYED_PIXELS = {"yuv420p", "yuvj420p"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """Properties of a video file."""

    width: int
    height: int
    frames: int
    seconds: float
    codec: str
    playable: bool  # whether browsers play it as it is, with frame times that start at 0
    webm: bool


def probe(path: Path, max_frames: int) -> Probed:
    """Read an untrusted file's properties in a new process.

    Raises InputError, with a line that a browser may show, if the file is not a video, cannot be read in SECONDS, or
    has more than `max_frames` frames or MAX_SIDE pixels on a side.
    """
    command = [sys.executable, "-m", "tubelet.apps.web.probe", str(path), str(max_frames)]
    try:
        process = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)
        answer = json.loads(process.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        raise InputError(NO_VIDEO) from None

    if "error" in answer:
        raise InputError(answer["error"])
    return Probed(**answer)


def probe_here(path: Path, max_frames: int) -> Probed:
    """Read a file's properties in this process. Raises InputError as `probe` does."""
    import av

    from tubelet.video.media import open_media

    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        with open_media(str(path), options=options) as container:
            return _properties(container, max_frames)
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise error if isinstance(error, InputError) else InputError(NO_VIDEO) from None


def _properties(container: Any, max_frames: int) -> Probed:
    stream = container.streams.best("video")
    if stream is None:
        raise InputError("there is no video in this file, only sound or data")
    if stream.codec_context is None:  # no decoder knows it; PyAV before 18.1 crashes when asked to decode it
        raise InputError(NO_VIDEO)

    frame = next(container.decode(stream), None)
    if frame is None:
        raise InputError(NO_VIDEO)
    if max(frame.width, frame.height) > MAX_SIDE:
        raise InputError(f"{frame.width} x {frame.height} pixels are too many: at most {MAX_SIDE} on a side")

    if container.format.name != "gif":
        container.seek(0, stream=stream)
    frames, seconds = _length(container, stream, max_frames)

    return Probed(
        width=frame.width,
        height=frame.height,
        frames=frames,
        seconds=round(seconds, 3),
        codec=stream.codec_context.name,
        playable=_is_playable(container, stream, frame),
        webm="webm" in container.format.name,
    )


def _is_playable(container: Any, stream: Any, frame: Any) -> bool:
    """Whether browsers play the file and show the same frame at the same time as we do."""
    if stream.codec_context.name not in PLAYED.get(container.format.name, set()):
        return False
    if frame.format.name not in PLAYED_PIXELS or frame.rotation:
        return False
    if stream.start_time or container.start_time:
        return False
    return _brand(container) != "qt"


def _length(container: Any, stream: Any, max_frames: int) -> tuple[int, float]:
    """Count frames and seconds over all packets; the header's claims are not trusted."""
    frames = 0
    end = 0.0
    for packet in container.demux(stream):
        if packet.size == 0 or packet.is_discard:
            continue
        frames += 1
        if frames > max_frames:
            raise InputError(f"this video is too long: at most {max_frames:,} frames are taken")
        if packet.pts is not None and packet.time_base:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    if frames == 0:
        raise InputError(NO_VIDEO)
    return frames, end


def _brand(container: Any) -> str:
    return str(container.metadata.get("major_brand", "")).strip()


def lock_up(path: Path) -> None:
    """Let this process read one file and write none, without network."""
    room = sandbox.Room(reads=[path], address_space=MEMORY, file_bytes=0, seconds=SECONDS)
    sandbox.lock_up(room)
    sandbox.deny_calls()


def _main(path: str, max_frames: str) -> None:
    lock_up(Path(path))
    try:
        answer: dict[str, Any] = asdict(probe_here(Path(path), int(max_frames)))
    except InputError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    _main(*sys.argv[1:])
