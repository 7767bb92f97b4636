"""What a file from outside is, told by its content in a process of its own: a hostile file can end only that.

Only plain containers are opened: a playlist, which could name other files and addresses, is no video here.
`python -m tubelet.apps.web.probe PATH MAX_FRAMES` prints one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tubelet.apps.web.limits import MAX_SIDE
from tubelet.core.errors import InputError

CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif,h264,hevc,ivf,mxf,apng,webp_anim"
SECONDS = 30  # until a file that keeps the parser busy is given up
MEMORY = 2 << 30  # bytes of the probing process
NO_VIDEO = "this file is not a video that can be read"

# what every current browser plays; a container's name as FFmpeg says it -> codecs
PLAYED = {"mov,mp4,m4a,3gp,3g2,mj2": {"h264"}, "matroska,webm": {"vp8", "vp9"}}
PLAYED_PIXELS = {"yuv420p", "yuvj420p"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """Facts of a video file."""

    width: int
    height: int
    frames: int
    seconds: float
    codec: str
    playable: bool  # by browsers as it is, with frame times that start at 0
    webm: bool


def probe(path: Path, max_frames: int) -> Probed:
    """Facts of an untrusted file; raises InputError, in one line fit for a browser, for what is not taken."""
    command = [sys.executable, "-m", "tubelet.apps.web.probe", str(path), str(max_frames)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)
        told = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        raise InputError(NO_VIDEO) from None
    if "error" in told:
        raise InputError(told["error"])
    return Probed(**told)


def look(path: Path, max_frames: int) -> Probed:
    """The same in this process."""
    import av

    from tubelet.video.media import open_media

    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        with open_media(str(path), options=options) as container:
            return _facts(container, max_frames)
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise error if isinstance(error, InputError) else InputError(NO_VIDEO) from None


def _facts(container: Any, max_frames: int) -> Probed:
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
    container.seek(0, stream=stream) if container.format.name != "gif" else None
    frames, end = _measured(container, stream, max_frames)
    played = PLAYED.get(container.format.name, set())
    plain = frame.format.name in PLAYED_PIXELS and not frame.rotation
    starts = not stream.start_time and not container.start_time
    return Probed(
        width=frame.width,
        height=frame.height,
        frames=frames,
        seconds=round(end, 3),
        codec=stream.codec_context.name,
        playable=stream.codec_context.name in played and plain and starts and _brand(container) != "qt",
        webm="webm" in container.format.name,
    )


def _measured(container: Any, stream: Any, max_frames: int) -> tuple[int, float]:
    """Frames and seconds by walking over the packets: what a header claims is not trusted."""
    frames, end = 0, 0.0
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


def _main(path: str, max_frames: str) -> None:
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        told: dict[str, Any] = asdict(look(Path(path), int(max_frames)))
    except InputError as error:
        told = {"error": str(error)}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    _main(*sys.argv[1:])
