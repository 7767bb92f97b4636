"""Videos of the kinds that people have: what is read is what FFmpeg's linear decoding shows, in order and at random."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from clips import ORANGE, Colours, disc_column, number_of
from field.boxes import EMPTY, with_edits
from field.films import (
    Edit,
    Film,
    as_file,
    avi_header,
    content,
    into,
    joined,
    on_bytes,
    renamed,
    shifted,
    sound_only,
    stamped,
    together,
    trimmed,
    without,
)
from field.player import Shown, play
from tubelet.core.errors import InputError
from tubelet.core.types import Video
from tubelet.video import decoding
from tubelet.video.reader import TruncatedVideoWarning, open_video


class Kind:
    """One row of the table: a film, what was done to it, and what a person sees then.

    Args:
        film: The film as it was made.
        edits: What was done to the file, in turn.
        shows: The numbers of the frames; by default all of the film.
        says: The warning, as a regular expression; by default there is none.
        refused: The error's only line, as a regular expression.
        compared: False for what this FFmpeg does not decode.
        same_pixels: False where we show another picture than FFmpeg: without combs, or with HDR's light brought down.
        true_colours: False where the orange of the disc cannot be expected.
        timed: False for files without times.
    """

    def __init__(
        self,
        film: Film,
        *edits: Edit,
        shows: Sequence[int] | None = None,
        says: str | None = None,
        refused: str | None = None,
        compared: bool = True,
        same_pixels: bool = True,
        true_colours: bool = True,
        timed: bool = True,
    ) -> None:
        self.film = film
        self.edits = edits
        self.shows = film.numbers if shows is None else tuple(shows)
        self.says = says
        self.refused = refused
        self.compared = compared
        self.same_pixels = same_pixels
        self.true_colours = true_colours
        self.timed = timed

    @property
    def pixel_aspect(self) -> Fraction:
        aspect = self.film.aspect or Fraction(1)
        return 1 / aspect if self.film.quarters % 2 else aspect

    def make(self, folder: Path) -> Path:
        path = self.film.write(folder)
        for edit in self.edits:
            path = edit(path)
        return path


B_FRAMES = Film(b_frames=2)
OPEN = Film(b_frames=2, gop=5, options="crf=8 preset=veryfast x264-params=scenecut=0:open-gop=1")
TS = Film(suffix=".ts", b_frames=2)
CCTV = Film(suffix=".avi", codec="mpeg4", b_frames=0)
LATER = tuple(range(12, 24))
LATER_TIMES = tuple(1 + number / 25 for number in LATER)
VFR = (0.0, 0.04, 0.05, 0.3, 0.31, 1.2, 1.25, 2.0, 2.001, 2.002, 3.0, 9.0)
STILLS = (0.0, 0.1, 4.0, 4.1, 4.2, 30.0, 30.1, 90.0, 90.5, 91.0, 300.0, 301.0)
BT601 = Colours(6, 6, 6, 1)
BT601_FULL = Colours(6, 6, 6, 2)
BT709 = Colours(1, 1, 1, 1)
BT709_FULL = Colours(1, 1, 1, 2)
BT2020 = Colours(9, 14, 9, 1)
PQ = Colours(9, 16, 9, 1)
HLG = Colours(9, 18, 9, 1)
VP9 = {"codec": "libvpx-vp9", "suffix": ".webm"}

KINDS: dict[str, Kind] = {
    # containers and codecs
    "h264 in mp4": Kind(Film()),
    "h264 in mp4, B-frames": Kind(B_FRAMES),
    "h264 in mp4, open groups": Kind(OPEN),
    "h264 in mp4, one keyframe": Kind(Film(gop=100, b_frames=2)),
    "h264 in mp4, keyframes only": Kind(Film(gop=1)),
    "h264 in mp4, refreshed in stripes": Kind(Film(options="x264-params=intra-refresh=1:scenecut=0 crf=8")),
    "h264 in mp4, index in front": Kind(Film(container_options="movflags=+faststart")),
    "h264 in mp4, fragments": Kind(
        Film(b_frames=2, container_options="movflags=frag_keyframe+empty_moov+default_base_moof")
    ),
    "h264 in mp4, a fragment a frame": Kind(Film(container_options="movflags=frag_every_frame+empty_moov")),
    "h264 in mp4, without an edit list": Kind(Film(b_frames=2, container_options="use_editlist=0")),
    "h264 in mp4, dash": Kind(Film(b_frames=2, container_options="movflags=dash+frag_keyframe")),
    "h264 in mp4, negative offsets": Kind(Film(b_frames=2, container_options="movflags=negative_cts_offsets")),
    "h264 in m4v": Kind(Film(suffix=".m4v")),
    "h264 in mov": Kind(Film(suffix=".mov", b_frames=2)),
    "h264 in 3gp": Kind(Film(suffix=".3gp", size=(48, 64))),
    "h264 in mkv": Kind(Film(suffix=".mkv", b_frames=2)),
    "h264 in mkv, streamed": Kind(Film(suffix=".mkv", b_frames=2, container_options="live=1")),
    "h264 in ts": Kind(TS),
    "h264 in m2ts": Kind(Film(suffix=".m2ts", b_frames=2)),
    "h264 in flv": Kind(Film(suffix=".flv", b_frames=2)),
    "h264 in avi": Kind(Film(suffix=".avi", b_frames=2), timed=False),
    "h264 raw": Kind(Film(suffix=".h264", b_frames=2), timed=False),
    "h265 in mp4": Kind(Film(codec="libx265")),
    "h265 in mkv, B-frames": Kind(Film(codec="libx265", suffix=".mkv", b_frames=2)),
    "av1 in mp4": Kind(Film(codec="libsvtav1")),
    "av1 in webm": Kind(Film(codec="libsvtav1", suffix=".webm")),
    "vp8 in webm": Kind(Film(codec="libvpx", suffix=".webm")),
    "vp9 in webm": Kind(Film(**VP9)),
    "vp9 in webm, from a browser": Kind(Film(**VP9, times=VFR, container_options="live=1")),
    "vp9 in mp4": Kind(Film(codec="libvpx-vp9")),
    "mpeg4 in avi": Kind(CCTV),
    "mpeg4 in avi, B-frames": Kind(Film(codec="mpeg4", suffix=".avi", b_frames=2)),
    "mpeg4 in mp4": Kind(Film(codec="mpeg4", b_frames=2)),
    "msmpeg4 in avi": Kind(Film(codec="msmpeg4v2", suffix=".avi", size=(96, 128))),
    "wmv2 in wmv": Kind(Film(codec="wmv2", suffix=".wmv")),
    "flv1 in flv": Kind(Film(codec="flv", suffix=".flv")),
    "h263 in 3gp": Kind(Film(codec="h263", suffix=".3gp", size=(96, 128), aspect=Fraction(12, 11))),
    "mpeg1 in mpg": Kind(Film(codec="mpeg1video", suffix=".mpg", b_frames=2)),
    "mpeg2 in mpg": Kind(Film(codec="mpeg2video", suffix=".mpg", b_frames=2)),
    "mpeg2 in ts": Kind(Film(codec="mpeg2video", suffix=".ts", b_frames=2)),
    "mpeg2 in mxf": Kind(Film(codec="mpeg2video", suffix=".mxf")),
    "motion jpeg in avi": Kind(Film(codec="mjpeg", suffix=".avi", pixels="yuvj420p")),
    "motion jpeg in mov": Kind(Film(codec="mjpeg", suffix=".mov", pixels="yuvj422p")),
    "motion jpeg raw": Kind(Film(codec="mjpeg", suffix=".mjpeg", pixels="yuvj420p"), timed=False),
    "prores in mov": Kind(Film(codec="prores_ks", suffix=".mov", pixels="yuv422p10le")),
    "dnxhr in mov": Kind(
        Film(codec="dnxhd", suffix=".mov", pixels="yuv422p", size=(120, 256), options="profile=dnxhr_sq")
    ),
    "png in mov": Kind(Film(codec="png", suffix=".mov", pixels="rgb24")),
    "raw pictures in avi": Kind(Film(codec="rawvideo", suffix=".avi", pixels="bgr24")),
    "raw pictures in mov": Kind(Film(codec="rawvideo", suffix=".mov", pixels="uyvy422")),
    "huffyuv in avi": Kind(Film(codec="huffyuv", suffix=".avi", pixels="yuv422p")),
    "utvideo in avi": Kind(Film(codec="utvideo", suffix=".avi", pixels="gbrp")),
    "ffv1 in mkv": Kind(Film(codec="ffv1", suffix=".mkv", pixels="bgr0")),
    "screen codec of a player": Kind(Film(codec="zmbv", suffix=".avi", pixels="bgr0")),
    "flash screen video": Kind(Film(codec="flashsv", suffix=".flv", pixels="bgr24")),
    "animation in mov": Kind(Film(codec="qtrle", suffix=".mov", pixels="rgb24")),
    "cinepak in avi": Kind(Film(codec="cinepak", suffix=".avi", pixels="rgb24"), true_colours=False),
    "vp8 in ogv": Kind(Film(codec="libvpx", suffix=".ogv")),
    "vp8 in ivf": Kind(Film(codec="libvpx", suffix=".ivf")),
    "h264 in nut": Kind(Film(suffix=".nut")),
    "yuv4mpeg": Kind(Film(codec="wrapped_avframe", suffix=".y4m")),
    "gif": Kind(Film(codec="gif", suffix=".gif", pixels="rgb8"), true_colours=False),
    "animated png": Kind(Film(suffix=".png")),
    "animated webp": Kind(Film(suffix=".webp"), compared=False),
    "animated avif": Kind(Film(codec="libsvtav1", suffix=".avif")),
    # times
    "uneven times, mp4": Kind(Film(times=VFR)),
    "uneven times, B-frames, mp4": Kind(Film(times=VFR, b_frames=2)),
    "uneven times, mkv": Kind(Film(suffix=".mkv", times=VFR, b_frames=2)),
    "uneven times, ts": Kind(Film(suffix=".ts", times=VFR)),
    "a screen recorder's long stills, mp4": Kind(Film(times=STILLS)),
    "a screen recorder's long stills, webm": Kind(Film(**VP9, times=STILLS)),
    "starts at 7 s, mp4": Kind(B_FRAMES, shifted(7)),
    "starts at 7 s, mkv": Kind(Film(suffix=".mkv", b_frames=2), shifted(7)),
    "starts after a day, ts": Kind(TS, shifted(86_400)),
    "the clock of a ts wraps": Kind(TS, shifted(2**33 / 90_000 - 1.64)),
    "starts before 0, mp4": Kind(B_FRAMES, shifted(-0.12), shows=range(3, 12)),
    "repeated times, mkv": Kind(Film(suffix=".mkv"), stamped(0, 40, 80, 80, 160, 200, 200, 200, 320, 360, 400, 440)),
    "audio longer than video": Kind(Film(seconds_of_sound=3)),
    "audio longer than video, mkv": Kind(Film(suffix=".mkv", seconds_of_sound=3)),
    "one frame, mp4": Kind(Film(numbers=(5,))),
    "one frame, webm": Kind(Film(**VP9, numbers=(5,))),
    "one frame, avi": Kind(Film(codec="mpeg4", suffix=".avi", numbers=(5,))),
    "one frame, ts": Kind(Film(suffix=".ts", numbers=(5,))),
    "two frames, B-frames": Kind(Film(numbers=(5, 6), b_frames=2)),
    # edit lists
    "edit: from a keyframe": Kind(B_FRAMES, on_bytes(with_edits((4, 8))), shows=range(4, 12)),
    "edit: from between keyframes": Kind(B_FRAMES, on_bytes(with_edits((6, 6))), shows=range(6, 12)),
    "edit: from between open groups": Kind(OPEN, on_bytes(with_edits((7, 5))), shows=range(7, 12)),
    "edit: without the end": Kind(B_FRAMES, on_bytes(with_edits((0, 7))), shows=range(7)),
    "edit: the middle": Kind(B_FRAMES, on_bytes(with_edits((3, 5))), shows=range(3, 8)),
    "edit: a pause first": Kind(B_FRAMES, on_bytes(with_edits((EMPTY, 10), (0, 12)))),
    "edit: the middle cut out": Kind(B_FRAMES, on_bytes(with_edits((0, 4), (8, 4))), shows=[*range(4), *range(8, 12)]),
    "edit: two parts between keyframes": Kind(
        B_FRAMES, on_bytes(with_edits((1, 4), (7, 4))), shows=[1, 2, 3, 4, 7, 8, 9, 10]
    ),
    "edit: a part twice": Kind(B_FRAMES, on_bytes(with_edits((4, 4), (4, 4))), shows=[4, 5, 6, 7, 4, 5, 6, 7]),
    "edit: parts in another order": Kind(
        B_FRAMES, on_bytes(with_edits((8, 4), (0, 4))), shows=[8, 9, 10, 11, 0, 1, 2, 3]
    ),
    "trimmed at a keyframe, mp4": Kind(B_FRAMES, trimmed(0.16), shows=range(4, 12)),
    "trimmed between keyframes, mp4": Kind(B_FRAMES, trimmed(0.24), shows=range(6, 12)),
    "trimmed between keyframes, mov": Kind(Film(suffix=".mov", b_frames=2), trimmed(0.24), shows=range(6, 12)),
    "trimmed between open groups, mp4": Kind(OPEN, trimmed(0.3), shows=range(8, 12)),
    # as displayed
    **{
        f"a phone held at {90 * quarters}{', mirrored' * mirrored}, {suffix[1:]}": Kind(
            Film(suffix=suffix, quarters=quarters, mirrored=mirrored, size=(64, 48))
        )
        for quarters in (0, 1, 2, 3)
        for mirrored in (False, True)
        for suffix in (".mp4", ".mkv")
        if quarters or mirrored
    },
    "anamorphic pixels": Kind(Film(aspect=Fraction(16, 11))),
    "anamorphic pixels on its side": Kind(Film(aspect=Fraction(16, 11), quarters=1, size=(64, 48))),
    "odd size, vp9": Kind(Film(**VP9, size=(47, 65))),
    "odd size, h264 444": Kind(Film(pixels="yuv444p", size=(47, 65))),
    "odd size, png": Kind(Film(codec="png", suffix=".mov", pixels="rgb24", size=(47, 65))),
    "odd size, gif": Kind(Film(codec="gif", suffix=".gif", pixels="rgb8", size=(47, 65)), true_colours=False),
    "not a multiple of 16": Kind(Film(size=(50, 70))),
    "very wide": Kind(Film(size=(16, 1024)), true_colours=False),
    "very tall": Kind(Film(size=(512, 16)), true_colours=False),
    "size changes, ts": Kind(
        TS,
        joined(Film(suffix=".ts", size=(96, 128), numbers=LATER, times=LATER_TIMES)),
        shows=range(24),
        true_colours=False,
    ),
    "two recordings joined, ts": Kind(TS, joined(TS), shows=[*range(12), *range(12)], timed=False),
    "interlaced h264": Kind(Film(options="crf=8 x264-params=tff=1:scenecut=0"), same_pixels=False),
    "interlaced h264, bottom field first": Kind(
        Film(options="crf=8 x264-params=bff=1:scenecut=0", b_frames=2), same_pixels=False
    ),
    "interlaced mpeg2 in ts": Kind(
        Film(codec="mpeg2video", suffix=".ts", b_frames=2, options="flags=+ildct+ilme b=2M"), same_pixels=False
    ),
    "a second, smaller stream": Kind(B_FRAMES, together(Film(numbers=LATER, size=(24, 32)))),
    "a second, larger stream": Kind(Film(numbers=LATER, size=(24, 32)), together(B_FRAMES)),
    "two streams of a camera, mkv": Kind(Film(suffix=".mkv"), together(Film(numbers=LATER))),
    # colours
    "bt.601": Kind(Film(colours=BT601)),
    "bt.601, full range": Kind(Film(colours=BT601_FULL, pixels="yuvj420p")),
    "bt.709": Kind(Film(colours=BT709)),
    "bt.709, full range": Kind(Film(colours=BT709_FULL, pixels="yuvj420p")),
    "bt.2020, 10 bit": Kind(Film(colours=BT2020, pixels="yuv420p10le")),
    "10 bit": Kind(Film(pixels="yuv420p10le")),
    "10 bit 4:2:2": Kind(Film(pixels="yuv422p10le")),
    "12 bit": Kind(Film(codec="libx265", pixels="yuv420p12le")),
    "4:4:4": Kind(Film(pixels="yuv444p")),
    "rgb in h264": Kind(Film(codec="libx264rgb", pixels="rgb24", options="crf=4")),
    "grey": Kind(Film(pixels="gray"), true_colours=False),
    "16 bit rgb": Kind(Film(codec="png", suffix=".mov", pixels="rgb48be")),
    "pq, 10 bit": Kind(Film(codec="libx265", colours=PQ, pixels="yuv420p10le"), same_pixels=False, true_colours=False),
    "hlg, 10 bit": Kind(
        Film(codec="libx265", colours=HLG, pixels="yuv420p10le"), same_pixels=False, true_colours=False
    ),
    "pq in vp9": Kind(Film(**VP9, colours=PQ), same_pixels=False, true_colours=False),
    "alpha, vp9": Kind(Film(**VP9, pixels="yuva420p")),
    "alpha, prores 4444": Kind(Film(codec="prores_ks", suffix=".mov", pixels="yuva444p10le")),
    "alpha, png": Kind(Film(codec="png", suffix=".mov", pixels="rgba")),
    "alpha, animation": Kind(Film(codec="qtrle", suffix=".mov", pixels="argb")),
    # recorders' faults
    "cctv: no frames in the header": Kind(CCTV, avi_header(0)),
    "cctv: too few frames in the header": Kind(CCTV, avi_header(3)),
    "cctv: too many frames in the header": Kind(CCTV, avi_header(100), says=r"0\.5 of 4\.0 seconds are in the file"),
    "cctv: no index": Kind(CCTV, renamed(b"idx1", b"JUNK")),
    "no first keyframe, mkv": Kind(
        Film(options="x264-params=scenecut=0 crf=8"), without(0), into(".mkv"), shows=range(4, 12)
    ),
    "another container's suffix": Kind(B_FRAMES, as_file(".avi")),
    "a suffix of capitals": Kind(B_FRAMES, as_file(".MP4")),
    "no suffix": Kind(B_FRAMES, as_file("")),
    # no videos
    "an empty file": Kind(Film(), content(b""), refused=r"is empty|not a video that can be read"),
    "a page of the web": Kind(
        Film(), content(b"<html>not found</html>" * 20), refused=r"not a video that can be read|no video stream"
    ),
    "zeros": Kind(Film(), content(bytes(10_000)), refused=r"not a video that can be read"),
    "sound only": Kind(Film(), sound_only, refused=r"no video stream"),
}


def watch(path: Path) -> tuple[Video, list[torch.Tensor], dict[int, torch.Tensor], list[str]]:
    """The opened video, its frames in order, the same read in another order, and the words of warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        video = open_video(path)
        in_order = list(video.frames)
        order = np.random.default_rng(0).permutation(len(video)).tolist()
        at_random = {t: video.frames[t] for t in order}
    assert all(issubclass(warning.category, TruncatedVideoWarning) for warning in caught)
    return video, in_order, at_random, [str(warning.message) for warning in caught]


def agrees_with_a_player(video: Video, in_order: list[torch.Tensor], shown: list[Shown], kind: Kind) -> None:
    assert len(video) == len(shown)
    assert video.size == tuple(shown[0].image.shape[1:])
    assert video.pixel_aspect == kind.pixel_aspect
    if kind.timed:
        assert video.times == pytest.approx([frame.time for frame in shown], abs=1.5e-3)
    if kind.same_pixels:
        assert all(torch.equal(image, frame.image) for image, frame in zip(in_order, shown, strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_a_video_of_the_field_is_shown_as_by_a_player(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "NEAR", 2)  # so that films this short are read by seeking too
    kind = KINDS[name]
    path = kind.make(tmp_path)
    if kind.refused is not None:
        with pytest.raises(InputError, match=kind.refused) as caught:
            open_video(path)
        assert "\n" not in str(caught.value)
        return

    video, in_order, at_random, said = watch(path)
    assert [number_of(image) for image in in_order] == list(kind.shows)
    assert all(torch.equal(image, in_order[t]) for t, image in at_random.items())
    if kind.compared:
        agrees_with_a_player(video, in_order, play(path), kind)
    if kind.true_colours:
        shows_orange(in_order, kind)
    assert all(kind.says and re.search(kind.says, words) for words in said)
    assert bool(said) == (kind.says is not None)


def shows_orange(images: list[torch.Tensor], kind: Kind) -> None:
    """The disc's middle has its colour, within what lossy coding leaves of it."""
    height, width = images[0].shape[1:]
    row = 3 * height // 4
    for number, image in zip(kind.shows, images, strict=True):
        column = disc_column(number, width)
        if 4 <= column < width - 4:
            middle = image[:, row - 1 : row + 2, column - 1 : column + 2].float().mean((1, 2))
            assert middle.tolist() == pytest.approx(ORANGE, abs=12), number
