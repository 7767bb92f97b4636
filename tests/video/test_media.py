"""Files whose titles are not UTF-8, as older cameras and converters write them, with any supported PyAV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest

from tubelet.apps.web.probe import probe_here
from tubelet.core.errors import InputError
from tubelet.video.media import open_media
from tubelet.video.reader import open_video

TITLE = "M??nchen"
LATIN_1 = "Mü§nchen".encode("latin-1")


@pytest.fixture(params=["mp4", "mov", "mkv", "avi"])
def titled(request: pytest.FixtureRequest, make_clip: Callable[..., Path], tmp_path: Path) -> Path:
    """A clip of twelve frames whose file's and stream's titles are in Latin-1."""
    path = tmp_path / f"titled.{request.param}"
    with (
        av.open(str(make_clip("plain.mp4", "mpeg4", length=12, b_frames=0))) as source,
        av.open(str(path), "w") as target,
    ):
        target.metadata["title"] = TITLE
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.metadata["title"] = TITLE
        stream.metadata["handler_name"] = TITLE
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)

    content = path.read_bytes()
    assert TITLE.encode() in content
    path.write_bytes(content.replace(TITLE.encode(), LATIN_1))
    return path


def test_a_title_in_latin_1_does_not_hide_a_video(titled: Path, number_of: Callable[..., int]) -> None:
    video = open_video(titled)
    assert [number_of(video.frames[n]) for n in range(len(video))] == list(range(12))


def test_a_title_in_latin_1_does_not_hide_what_is_opened_as_a_stream(titled: Path) -> None:
    with open_media(f"file:{titled}", options={"protocol_whitelist": "file"}, timeout=10.0) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12


def test_a_title_in_latin_1_passes_the_page(titled: Path) -> None:
    assert probe_here(titled, max_frames=100).frames == 12


@pytest.mark.parametrize("read", [open_video, lambda path: probe_here(path, 100)])
def test_a_film_that_no_decoder_knows_is_refused(
    read: Callable[[Path], object], make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "unknown.mp4"
    path.write_bytes(make_clip("plain.mp4").read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(InputError):
        read(path)
