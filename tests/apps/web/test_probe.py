"""What a file is, by its content; the command in a process of its own is tried once, the rest in this one."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from toy import moving_patches
from tubelet.apps.demo import VIDEO
from tubelet.apps.web.probe import probe, probe_here
from tubelet.core.errors import InputError
from tubelet.video.writer import VideoWriter


def coded(path: Path, codec: str, form: str, *, pixels: str = "yuv420p", length: int = 6, first: int = 0) -> Path:
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for t, image in enumerate(moving_patches(length)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = t + first, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_the_example_is_played_as_it_is() -> None:
    facts = probe(VIDEO, 1000)
    assert (facts.width, facts.height, facts.frames, facts.codec, facts.playable) == (640, 360, 144, "h264", True)
    assert facts.seconds == pytest.approx(6, abs=0.1)


@pytest.mark.parametrize(
    ("codec", "form", "playable"),
    [("libx264", "mp4", True), ("libx264", "mov", False), ("libx264", "matroska", False), ("mpeg4", "avi", False),
     ("libvpx-vp9", "webm", True), ("mpeg2video", "mpegts", False)],
)  # fmt: skip
def test_only_what_browsers_play_is_left_as_it_is(tmp_path: Path, codec: str, form: str, playable: bool) -> None:
    facts = probe_here(coded(tmp_path / "source", codec, form), 100)
    assert (facts.frames, facts.playable) == (6, playable)


def test_colours_that_browsers_do_not_show_are_encoded_anew(tmp_path: Path) -> None:
    assert not probe_here(coded(tmp_path / "source", "libx264", "mp4", pixels="yuv444p"), 100).playable


def test_a_file_is_told_by_its_content_and_never_by_its_name(tmp_path: Path) -> None:
    lying = tmp_path / "film.mp4"
    lying.write_bytes(b"#!/bin/sh\necho hello\n" * 100)
    with pytest.raises(InputError, match="not a video"):
        probe_here(lying, 100)
    named = coded(tmp_path / "notes.txt", "libx264", "mp4")
    assert probe_here(named, 100).frames == 6


@pytest.mark.parametrize(
    "text",
    ["#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{}'\n"],
)
def test_a_playlist_that_names_another_file_is_no_video(tmp_path: Path, text: str) -> None:
    other = coded(tmp_path / "other.ts", "mpeg2video", "mpegts")
    playlist = tmp_path / "source"
    playlist.write_text(text.format(other))
    with pytest.raises(InputError, match="not a video"):
        probe_here(playlist, 100)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "source"
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(InputError, match="not a video"):
        probe_here(path, 100)


def test_a_video_over_the_limit_is_refused_by_counting(tmp_path: Path) -> None:
    path = coded(tmp_path / "source", "libx264", "mp4", length=12)
    assert probe_here(path, 12).frames == 12
    with pytest.raises(InputError, match="at most 11 frames"):
        probe_here(path, 11)


def test_a_frame_over_the_limit_is_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "wide.mp4", (16, 4100)) as writer:
        writer.write(np.zeros((16, 4100, 3), np.uint8))
    with pytest.raises(InputError, match="at most 4096"):
        probe_here(tmp_path / "wide.mp4", 100)


def test_damaged_files_are_refused_or_measured_but_never_crash(tmp_path: Path) -> None:
    whole = coded(tmp_path / "whole", "libx264", "mp4").read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(20):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(data), 4):
            data[place] = rng.integers(256)
        (tmp_path / "source").write_bytes(bytes(data))
        with contextlib.suppress(InputError):
            outcomes.add(probe_here(tmp_path / "source", 100).frames)
    assert outcomes <= set(range(1, 7))


def test_what_crashes_the_parser_ends_only_the_probing_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(InputError, match="not a video"):
        probe(VIDEO, 1000)
