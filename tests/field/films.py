"""Small films of the kinds that people have, and what programs do to them afterwards."""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
from PIL import Image

import clips
from clips import Colours, copying

Edit = Callable[[Path], Path]  # a file -> the edited file beside it

ANIMATED_BY_PILLOW = (".png", ".webp")


@dataclass(frozen=True, kw_only=True)
class Film:
    """A file of numbered frames at 25 a second; the fields are those of `clips.write_clip`."""

    suffix: str = ".mp4"
    codec: str = "libx264"
    numbers: tuple[int, ...] = tuple(range(12))
    size: tuple[int, int] = (48, 64)
    pixels: str = "yuv420p"
    times: tuple[float, ...] | None = None
    gop: int = 4
    b_frames: int = 0
    quarters: int = 0
    mirrored: bool = False
    aspect: Fraction | None = None
    colours: Colours | None = None
    seconds_of_sound: float = 0
    options: str = ""  # of the encoder, "name=value name=value"
    container_options: str = ""

    def write(self, folder: Path) -> Path:
        """Write the file into a folder."""
        path = folder / f"film{self.suffix}"
        path.write_bytes(_encoded(self))
        return path


@cache
def _encoded(film: Film) -> bytes:
    """The bytes of a film, since many kinds are edits of the same one."""
    with TemporaryDirectory() as folder:
        path = Path(folder, f"film{film.suffix}")
        if film.suffix in ANIMATED_BY_PILLOW:
            _write_pictures(film, path)
        else:
            _write_video(film, path)
        return path.read_bytes()


def _write_video(film: Film, path: Path) -> None:
    clips.write_clip(
        path,
        film.codec,
        numbers=film.numbers,
        size=film.size,
        pixels=film.pixels,
        times=film.times,
        gop=film.gop,
        b_frames=film.b_frames,
        quarters=film.quarters,
        mirrored=film.mirrored,
        aspect=film.aspect,
        colours=film.colours,
        seconds_of_sound=film.seconds_of_sound,
        options=_options(film.options) or _clean(film.codec),
        container_options=_options(film.container_options),
    )


def _write_pictures(film: Film, path: Path) -> None:
    first, *rest = (Image.fromarray(clips.picture(number, film.size)) for number in film.numbers)
    first.save(path, save_all=True, append_images=rest, duration=40, lossless=True)


def _options(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split())


def _clean(codec: str) -> dict[str, str]:
    """Options with which colours survive, and with which no keyframe comes unasked."""
    return {
        "libx264": {"crf": "8", "preset": "veryfast", "x264-params": "scenecut=0:open-gop=0"},
        "libx265": {"crf": "8", "preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"},
        "libsvtav1": {"crf": "10", "preset": "12", "svtav1-params": "lp=1"},
        "libvpx": {"crf": "4", "b": "2M", "deadline": "realtime", "cpu-used": "8"},
        "libvpx-vp9": {"crf": "8", "b": "0", "deadline": "realtime", "cpu-used": "8"},
    }.get(codec, {"b": "2M"})


# edits of whole packets, as cutting programs do them


def trimmed(start: float) -> Edit:
    """Cut off what is before `start` seconds, without encoding again."""
    return lambda path: clips.trimmed(path, _beside(path), start)


def without(*numbers: int) -> Edit:
    """Leave out packets, counted in the order of the file."""
    return lambda path: clips.changed(path, _beside(path), lambda n, data: None if n in numbers else data)


def into(suffix: str, options: str = "") -> Edit:
    """Copy the packets into another container."""
    return lambda path: _restamped(path, path.with_name(f"copied{suffix}"), lambda n, pts: pts, options)


def shifted(seconds: float) -> Edit:
    """Add to all time stamps."""

    def shift(path: Path) -> Path:
        with av.open(str(path)) as container:
            ticks = round(seconds / container.streams.video[0].time_base)
        return _restamped(path, _beside(path), lambda n, pts: pts + ticks)

    return shift


def stamped(*stamps: int) -> Edit:
    """Give the packets these time stamps, in the file's own unit."""
    return lambda path: _restamped(path, _beside(path), lambda n, pts: stamps[n])


def joined(*others: Film) -> Edit:
    """Append the bytes of other films, as a recorder does whose settings change."""

    def join(path: Path) -> Path:
        files = [path, *(film.write(_fresh_folder(path, n)) for n, film in enumerate(others))]
        target = _beside(path)
        target.write_bytes(b"".join(file.read_bytes() for file in files))
        return target

    return join


def together(other: Film) -> Edit:
    """Add another film's video stream to the same file."""

    def add(path: Path) -> Path:
        target = _beside(path)
        second = other.write(_fresh_folder(path, 0))
        with av.open(str(path)) as one, av.open(str(second)) as two, av.open(str(target), "w") as taken:
            sources = [one.streams.video[0], two.streams.video[0]]
            streams = [taken.add_stream_from_template(source) for source in sources]
            for source, stream in zip(sources, streams, strict=True):
                for packet in source.container.demux(source):
                    if packet.size:
                        packet.stream = stream
                        taken.mux(packet)
        return target

    return add


# edits of bytes


def on_bytes(change: Callable[[bytes], bytes]) -> Edit:
    """An edit of a file as a change of its bytes."""

    def edit(path: Path) -> Path:
        target = _beside(path)
        target.write_bytes(change(path.read_bytes()))
        return target

    return edit


def avi_header(frames: int) -> Edit:
    """Write another number of frames into both headers of an AVI, as surveillance recorders do."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        struct.pack_into("<I", changed, data.index(b"avih") + 8 + 16, frames)
        struct.pack_into("<I", changed, data.index(b"strh") + 8 + 32, frames)
        return bytes(changed)

    return on_bytes(change)


def renamed(old: bytes, new: bytes) -> Edit:
    """Overwrite the last occurrence of a chunk's name."""

    def change(data: bytes) -> bytes:
        start = data.rindex(old)
        return data[:start] + new + data[start + len(old) :]

    return on_bytes(change)


def as_file(suffix: str) -> Edit:
    """Give the file another suffix."""
    return lambda path: path.rename(path.with_suffix(suffix))


def sound_only(path: Path) -> Path:
    """Replace the file by one of sound."""
    target = path.with_suffix(".wav")
    with wave.open(str(target), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16_000))
    return target


def content(data: bytes) -> Edit:
    """Replace the whole file."""
    return on_bytes(lambda _: data)


def _restamped(path: Path, target: Path, stamp: Callable[[int, int], int], options: str = "") -> Path:
    with copying(path, target, _options(options)) as copy:
        for n, packet in enumerate(copy.packets):
            delay = None if packet.dts is None else packet.pts - packet.dts
            packet.pts = stamp(n, packet.pts)
            packet.dts = None if delay is None else packet.pts - delay
            copy.put(packet)
    return target


def _beside(path: Path) -> Path:
    return path.with_name(f"edited_{path.name}")


def _fresh_folder(path: Path, n: int) -> Path:
    folder = path.parent / f"other{n}"
    folder.mkdir()
    return folder
