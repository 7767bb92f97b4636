"""Clips that were trimmed by copying their packets: what is shown is what a player shows, however it is read."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from clips import trimmed
from tubelet.video.reader import open_video

Make = Callable[..., Path]
Number = Callable[[Tensor], int]

LENGTH = 48  # frames, at 25 a second
GROUPS = {"closed": "open-gop=0:scenecut=0", "open": "open-gop=1:scenecut=0"}


def decoded(path: Path) -> tuple[list[Tensor], list[float]]:
    """Frames and seconds of a plain decoding from the first packet to the last."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        images = [torch.from_numpy(frame.to_ndarray(format="rgb24", threads=1)).permute(2, 0, 1) for frame in frames]
        return images, [float((frame.pts - frames[0].pts) * frame.time_base) for frame in frames]


def check(path: Path) -> None:
    """Count, times and pixels are those of a plain decoding, in order and at random, and nothing is warned of."""
    images, times = decoded(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        video = open_video(path)
        assert len(video) == len(images), path.name
        assert all(torch.equal(*pair) for pair in zip(video.frames, images, strict=True)), path.name
        for t in np.random.default_rng(0).permutation(len(images)):
            assert torch.equal(video.frames[t], images[t]), f"{path.name}: frame {t}"
    assert video.times == pytest.approx(times, abs=1e-3)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts"])
def test_a_clip_trimmed_anywhere_shows_what_a_player_shows(ending: str, group: str, make_clip: Make) -> None:
    # an MP4 holds the codec's head once; a stream that may be cut anywhere repeats it
    source = make_clip(
        f"whole.{'ts' if ending == 'ts' else 'mp4'}",
        length=LENGTH,
        gop=16,
        size=(32, 64),
        options={"x264-params": GROUPS[group]},
    )
    discarded = 0
    for tenth in range(0, 10 * LENGTH // 25):
        cut = trimmed(source, source.with_name(f"{tenth}.{ending}"), tenth / 10)
        with av.open(str(cut)) as container:
            discarded += sum(packet.is_discard for packet in container.demux(video=0))
        check(cut)
    assert (discarded > 0) == (ending in ("mp4", "mov"))


@pytest.mark.parametrize("group", GROUPS)
def test_the_end_that_an_edit_leaves_out_is_not_missing(group: str, make_clip: Make) -> None:
    source = make_clip("whole.mp4", length=LENGTH, gop=16, options={"x264-params": GROUPS[group]})
    cut = trimmed(source, source.with_name("start.mp4"), 0.3)
    data = bytearray(cut.read_bytes())
    (second,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)  # in the unit of edits' durations
    edits = data.index(b"elst")  # version, flags, number of edits, then duration, start, rate
    struct.pack_into(">I", data, edits + 12, second)
    cut.write_bytes(data)
    check(cut)
    assert len(open_video(cut)) == pytest.approx(25, abs=1)
