"""Video files: frame t is frame t in any order, and what is damaged is said.

Every container and codec is in `tests/field`.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from tubelet.core.errors import InputError
from tubelet.video import decoding
from tubelet.video.reader import TruncatedVideoWarning, open_video

Make = Callable[..., Path]
Number = Callable[[Tensor], int]


def test_any_order_of_reading_gives_the_same_frames(make_clip: Make, number_of: Number) -> None:
    frames = open_video(make_clip("clip.mp4", length=60, gop=17)).frames

    @given(st.lists(st.integers(-60, 59), max_size=12))
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def reads_right(order: list[int]) -> None:
        assert [number_of(frames[t]) for t in order] == [t % 60 for t in order]

    reads_right()


def test_times_that_are_not_even_are_kept(make_clip: Make) -> None:
    times = [0.0, 0.04, 0.05, 0.3, 0.31, 1.2, 1.25, 2.0]
    for name in ("clip.mp4", "clip.mkv"):
        video = open_video(make_clip(name, length=8, times=times))
        assert video.times == pytest.approx(times)
        assert video.fps == pytest.approx(3.5)


def test_a_clip_that_starts_late_starts_at_zero(make_clip: Make, number_of: Number) -> None:
    for name in ("late.mkv", "late.mp4", "late.ts"):
        video = open_video(make_clip(name, length=30, times=[7 + t / 25 for t in range(30)]))
        assert video.times == pytest.approx([t / 25 for t in range(30)])
        assert [number_of(video.frames[t]) for t in (29, 0, 15)] == [29, 0, 15]


def test_pixels_that_are_not_square_are_told(make_clip: Make, tmp_path: Path) -> None:
    for turned, expected in ((0, Fraction(16, 11)), (1, Fraction(11, 16))):
        path = make_clip(f"{turned}.mp4", length=3, size=(96, 64), turned=turned, aspect=Fraction(16, 11))
        video = open_video(path)
        assert video.pixel_aspect == expected
        assert video.shown_size == (96, round(64 * expected))
    assert open_video(make_clip("square.mp4", length=3)).pixel_aspect == 1


@pytest.mark.parametrize("name", ["12:30:05.mp4", "file:a.mp4", "concat:b.mp4", "a|b.mp4", "%03d.mp4"])
def test_a_relative_name_is_no_address(
    name: str, make_clip: Make, number_of: Number, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip("clip.mp4", length=5)
    monkeypatch.chdir(path.parent)
    path.rename(name)
    frames = open_video(name).frames
    assert [number_of(frame) for frame in frames] == list(range(5))
    assert number_of(frames[3]) == 3


def test_colours_survive(make_clip: Make, picture: Callable[..., np.ndarray]) -> None:
    frame = open_video(make_clip("clip.mp4", size=(96, 128), options={"crf": "4"})).frames[5]
    error = np.abs(frame.permute(1, 2, 0).numpy().astype(int) - picture(5, (96, 128)))
    assert error.mean() < 4


def test_a_clip_without_its_first_keyframe_starts_at_the_next(make_clip: Make, remux: Make, number_of: Number) -> None:
    whole = make_clip("clip.mp4", options={"x264-params": "scenecut=0"})
    video = open_video(remux(whole, "cut.mkv", lambda n, data: data if n else None))
    numbers = [number_of(frame) for frame in video.frames]
    assert numbers == list(range(40 - len(video), 40))
    assert 25 <= len(video) <= 31
    assert video.time(0) == 0.0
    assert [number_of(video.frames[t]) for t in (20, 0, 9)] == [numbers[20], numbers[0], numbers[9]]


@pytest.mark.filterwarnings("ignore::tubelet.video.reader.TruncatedVideoWarning")
def test_frames_that_must_be_counted_are_counted_from_the_first_keyframe(
    make_clip: Make, remux: Make, number_of: Number
) -> None:
    cut = remux(make_clip("clip.avi", "mpeg4"), "cut.avi", lambda n, data: data if n else None)
    video = open_video(cut)
    numbers = [number_of(frame) for frame in video.frames]
    # two frames after the keyframe refer to pictures before it; without stamps nothing tells them from the others
    assert numbers == [*range(12, 40), 39, 39]
    assert [number_of(video.frames[t]) for t in (27, 0, 29, 9)] == [39, 12, 39, 21]


def test_a_hidden_picture_of_vp8_is_no_frame(make_clip: Make, remux: Make, number_of: Number) -> None:
    def hide(n: int, data: bytes) -> bytes:
        return bytes([data[0] & ~0x10]) + data[1:] if n in (6, 17) else data

    video = open_video(remux(make_clip("clip.webm", "libvpx", b_frames=None), "hidden.webm", hide))
    shown = [t for t in range(40) if t not in (6, 17)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [number_of(frame) for frame in video.frames] == shown
    assert [number_of(video.frames[t]) for t in (37, 16, 6)] == [shown[37], shown[16], shown[6]]


@pytest.mark.parametrize("name", ["clip.mkv", "clip.webm", "clip.avi", "clip.mp4"])
def test_what_is_there_of_a_truncated_video_is_kept_and_said(name: str, make_clip: Make, number_of: Number) -> None:
    codec = {"webm": "libvpx", "avi": "msmpeg4v2"}.get(name[-4:].strip("."), "libx264")
    # a heavy picture, so that the header is a small part of the file
    path = make_clip(name, codec, length=60, size=(240, 320), b_frames=0, options={"qmin": "1", "b": "2M"})
    path = _remuxed(path, {"movflags": "+faststart"}) if name == "clip.mp4" else path
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])
    with pytest.warns(TruncatedVideoWarning, match=r"clip\.\w+: is incomplete, .* are in the file"):
        video = open_video(path)
    assert 10 < len(video) < 55
    in_order = list(video.frames)
    assert [number_of(frame) for frame in in_order] == list(range(len(video)))
    for t in np.random.default_rng(0).permutation(len(video)):
        assert torch.equal(video.frames[t], in_order[t]), f"frame {t}"


def test_a_fragmented_recording_that_broke_off_says_so(make_clip: Make, number_of: Number) -> None:
    path = _remuxed(make_clip("clip.mp4", length=60, size=(240, 320), options={"crf": "10"}), FRAGMENTED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(open_video(path)) == 60
    data = path.read_bytes()
    last = data.rindex(b"moof")
    # inside a fragment's pictures, and inside its table
    for end in (int(0.6 * len(data)), last + 20):
        path.write_bytes(data[:end])
        with pytest.warns(
            TruncatedVideoWarning, match=r"clip\.mp4: is incomplete, its last part is cut off; \d+ frames"
        ):
            video = open_video(path)
        assert 10 < len(video) < 60
        assert [number_of(frame) for frame in video.frames] == list(range(len(video)))


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


def _remuxed(path: Path, options: dict[str, str]) -> Path:
    """The same clip, its packets copied into a file that is laid out in another way."""
    target = path.with_name("fast_" + path.name)
    with av.open(str(path)) as given, av.open(str(target), "w", options=options) as taken:
        into = taken.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                packet.stream = into
                taken.mux(packet)
    return target.replace(path)


def test_a_frame_that_does_not_decode_shows_the_one_before(make_clip: Make, remux: Make, number_of: Number) -> None:
    damaged = remux(
        make_clip("clip.mkv", b_frames=0, gop=1),
        "damaged.mkv",
        lambda n, data: bytes(len(data)) if n in (9, 10, 39) else data,
    )
    expected = [8 if t in (9, 10) else 38 if t == 39 else t for t in range(40)]
    video = open_video(damaged)
    with pytest.warns(TruncatedVideoWarning, match=r"3 of 40 frames do not decode"):
        assert [number_of(frame) for frame in video.frames] == expected
    with pytest.warns(TruncatedVideoWarning, match="frame 39 does not decode"):
        assert number_of(video.frames[39]) == 38
    with pytest.warns(TruncatedVideoWarning, match="frame 10 does not decode"):
        assert number_of(video.frames[10]) == 8
    assert number_of(video.frames[11]) == 11


def test_a_video_of_which_nothing_decodes_is_an_error(make_clip: Make, remux: Make) -> None:
    broken = remux(make_clip("clip.mkv", b_frames=0), "broken.mkv", lambda n, data: bytes(len(data)))
    with pytest.raises(InputError, match=r"broken\.mkv: no frame in it can be decoded"):
        open_video(broken)


def test_a_file_that_vanishes_is_an_error_of_one_line(make_clip: Make) -> None:
    path = make_clip("clip.mp4")
    frames = open_video(path).frames
    path.unlink()
    for read in (lambda: frames[3], lambda: list(frames)):
        with pytest.raises(InputError, match=r"clip\.mp4"):
            read()


def test_opening_decodes_one_frame_only(make_clip: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip("clip.mp4", length=120, b_frames=0)
    packets: list[object] = []
    decode = decoding._decode_packet
    monkeypatch.setattr(
        decoding, "_decode_packet", lambda stream, packet: packets.append(packet) or decode(stream, packet)
    )
    assert len(open_video(path)) == 120
    assert len(packets) < 10


def test_reading_on_does_not_seek(make_clip: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip("clip.mp4", gop=5)
    starts: list[int] = []
    start = decoding._Cursor._start
    monkeypatch.setattr(decoding._Cursor, "_start", lambda self, key: starts.append(key) or start(self, key))
    frames = open_video(path).frames
    for t in [*range(40), 39, 39]:
        frames[t]
    assert starts == []
    frames[12]
    assert len(starts) == 1
    for t in (12, 13, 16):
        frames[t]
    assert len(starts) == 1


def test_two_loops_over_one_video_do_not_disturb_each_other(make_clip: Make, number_of: Number) -> None:
    frames = open_video(make_clip("clip.mp4")).frames
    for t, (first, second) in enumerate(zip(frames, frames, strict=True)):
        assert number_of(first) == number_of(second) == t
        assert number_of(frames[39 - t]) == 39 - t


def test_threads_may_share_a_video(make_clip: Make, number_of: Number) -> None:
    frames = open_video(make_clip("clip.mp4", gop=20)).frames
    order = [int(t) for t in np.random.default_rng(1).integers(0, 40, 60)]
    with ThreadPoolExecutor(4) as pool:
        assert [number_of(frame) for frame in pool.map(lambda t: frames[t], order)] == order


def test_frames_survive_pickling_after_use(make_clip: Make, number_of: Number) -> None:
    video = open_video(make_clip("clip.mp4"))
    assert number_of(video.frames[5]) == 5
    copied = pickle.loads(pickle.dumps(video))
    assert [number_of(copied.frames[t]) for t in (30, 2)] == [30, 2]


class _Numbers(torch.utils.data.Dataset):
    """Frames of a video as a data set, as a training worker reads them."""

    def __init__(self, frames: object, number: Number) -> None:
        self.frames, self.number = frames, number

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, t: int) -> int:
        return self.number(self.frames[t])


def test_workers_that_fork_read_right_while_the_parent_reads_too(make_clip: Make, number_of: Number) -> None:
    # frames so large that each is read from the file when it is decoded: a place in it that is shared would show
    frames = open_video(make_clip("raw.avi", "rawvideo", pixels="bgr24", b_frames=None, size=(120, 160))).frames
    assert number_of(frames[0]) == 0
    seen = []
    for batch in DataLoader(_Numbers(frames, number_of), batch_size=8, num_workers=2, multiprocessing_context="fork"):
        seen += batch.tolist()
        assert number_of(frames[len(seen) - 1]) == len(seen) - 1
    assert seen == list(range(40))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files where the system shows them")
def test_many_videos_keep_few_files_open(make_clip: Make, number_of: Number) -> None:
    path = make_clip("clip.mp4", length=10)
    before = len(os.listdir("/proc/self/fd"))
    videos = [open_video(path) for _ in range(3 * decoding.MAX_OPEN)]
    assert all(number_of(video.frames[4]) == 4 for video in videos)
    assert len(os.listdir("/proc/self/fd")) <= before + decoding.MAX_OPEN
    assert number_of(videos[0].frames[9]) == 9


def test_leaving_a_loop_closes_its_file(make_clip: Make) -> None:
    frames = open_video(make_clip("clip.mp4")).frames
    loop = iter(frames)
    next(loop)
    loop.close()  # type: ignore[attr-defined]
    assert next(iter(frames)).shape == (3, 48, 64)


def test_the_text_of_a_playlist_cannot_open_other_addresses(tmp_path: Path) -> None:
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match=r"list\.m3u8"):
        open_video(playlist)
