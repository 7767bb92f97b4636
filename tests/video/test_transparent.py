"""Videos with transparency: what is clear stays clear, and frames have their times."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from toy import Toy, moving_patches
from tubelet.core.errors import InputError
from tubelet.inference.predict import predict
from tubelet.video.transparent import TransparentWriter


def decoded(path: Path) -> list[tuple[float, np.ndarray]]:
    """Times and RGBA pictures; FFmpeg's own decoder of VP9 knows no transparency, libvpx's does."""
    with av.open(str(path)) as container:
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
        times = [float(packet.pts * packet.time_base) for packet in packets]
    return [(time, frame.to_ndarray(format="rgba")) for time, frame in zip(times, frames, strict=True)]


def test_what_is_clear_stays_clear(tmp_path: Path) -> None:
    frame = np.zeros((48, 64, 4), np.uint8)
    frame[10:30, 10:30] = (200, 30, 30, 255)
    with TransparentWriter(tmp_path / "a.webm", (48, 64), fps=10) as writer:
        for time in (0.0, 0.1, 0.3):
            writer.write(frame, time)
    frames = decoded(tmp_path / "a.webm")
    assert [time for time, _ in frames] == pytest.approx([0.0, 0.1, 0.3])
    for _, picture in frames:
        assert picture[20, 20, 3] > 240
        assert picture[40, 50, 3] < 10
        assert abs(int(picture[20, 20, 0]) - 200) < 30


def test_one_identity_is_cut_out_of_a_video(tmp_path: Path) -> None:
    prediction = predict(Toy(shrink=1), moving_patches(4))
    prediction.cutout(tmp_path / "red.webm", prediction.ids[0])
    for t, (_, picture) in enumerate(decoded(tmp_path / "red.webm")):
        mask = prediction[0].mask(t)
        assert (picture[..., 3][mask] > 200).mean() > 0.9
        assert (picture[..., 3][~mask] < 60).mean() > 0.95


def test_another_suffix_size_or_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.webm"):
        TransparentWriter(tmp_path / "a.mp4", (48, 64))
    with (
        pytest.raises(InputError, match=r"expected frames of uint8 \[48, 64, 4\]"),
        TransparentWriter(tmp_path / "a.webm", (48, 64)) as writer,
    ):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(InputError, match="no frame to write"), TransparentWriter(tmp_path / "a.webm", (48, 64)):
        pass
    assert list(tmp_path.iterdir()) == []
