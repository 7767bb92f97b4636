from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tubelet.core import masks
from tubelet.core.errors import ConfigError, FormatError, InputError
from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats import registry
from tubelet.formats.registry import FORMS, convert, detect, open_set
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import write

POLYGONS = ("labelme", "yolo-seg")  # no holes: tests/formats/test_outlines.py
WRITTEN = [name for name, form in FORMS.items() if form.write and name not in POLYGONS]
CLASSES = ("car", "pedestrian", "giant_panda")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generated videos, in YouTube-VIS form."""
    out = tmp_path_factory.mktemp("forms") / "source"
    write(out, Synthetic(height=40, width=64, frames=5, objects=(2, 3), size=(0.5, 0.9), leaving=0.5), seed=4, videos=2)
    return out


def random_set(seed: int, overlapping: bool, ignored: bool) -> VideoSet:
    """Two small videos with random masks; without overlap, each pixel is one object's."""
    rng = np.random.default_rng(seed)
    videos = []
    for n in range(2):
        size, length = (int(rng.integers(3, 9)), int(rng.integers(3, 9))), int(rng.integers(1, 5))
        owner = rng.integers(0, 4, (length, *size))
        shapes = [rng.random((length, *size)) < 0.3 if overlapping else owner == k + 1 for k in range(3)]
        tracks = []
        for k, shape in enumerate(shapes):
            column = [masks.encode(mask[None])[0] if mask.any() else None for mask in shape]
            if any(column):
                tracks.append(
                    Track(id=10 * n + k + 1, label=k, score=1.0, rles=tuple(column), ignore=ignored and k == 2)
                )
        frames = torch.from_numpy(rng.integers(0, 256, (length, 3, *size), dtype=np.uint8))
        videos.append(Video(id=f"v{n}", size=size, frames=list(frames), tracks=tuple(tracks)))
    return VideoSet(videos=videos, classes=CLASSES)


def shapes_of(video: Video) -> list[tuple]:
    """Masks of each object without its id, in an order of their own."""
    return sorted([tuple(rle.counts if rle else b"" for rle in track.rles) for track in video.tracks])


@pytest.mark.parametrize("name", WRITTEN)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_round_trip_keeps_every_frame_and_mask(name, seed, tmp_path_factory):
    videos = random_set(seed, overlapping=False, ignored=False)
    out = tmp_path_factory.mktemp("trip") / "set"
    losses = FORMS[name].write(out, videos, True)
    assert detect(out) == name
    read = open_set(out)
    for before, after in zip(videos.videos, read.videos, strict=True):
        assert before.size == after.size
        assert all(torch.equal(a, b) for a, b in zip(before.frames, after.frames, strict=True))
        assert shapes_of(before) == shapes_of(after)
    assert all("pixels" not in line for line in losses.lines())


@pytest.mark.parametrize("name", ["ytvis", "coco-video", "cvat", "png"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_forms_of_masks_keep_ids_classes_overlaps_and_crowds(name, seed, tmp_path_factory):
    videos = random_set(seed, overlapping=True, ignored=True)
    out = tmp_path_factory.mktemp("trip") / "set"
    losses = FORMS[name].write(out, videos, True)
    read = open_set(out)
    for before, after in zip(videos.videos, read.videos, strict=True):
        kept = [
            (t.id, None if t.ignore and name == "png" else videos.classes[t.label], t.ignore, tuple(t.rles))
            for t in before.tracks
        ]
        found = [
            (t.id, None if t.ignore and name == "png" else read.classes[t.label], t.ignore, tuple(t.rles))
            for t in after.tracks
        ]
        assert kept == found
    expected = {"classes of ignored regions", "classes without an object"} if name == "png" else set()
    assert set(losses.counts) <= expected


@pytest.mark.parametrize(
    ("name", "folder"), [*((name, "") for name in WRITTEN), ("ytvis", "my set"), ("coco-video", "my set")]
)
def test_a_zip_archive_is_read_like_the_folder_in_it(name, folder, tmp_path):
    out = tmp_path / "set"
    FORMS[name].write(out, random_set(3, overlapping=False, ignored=False), True)
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(out.rglob("*")):
            file.write(path, Path(folder) / path.relative_to(out))
    assert detect(archive) == name
    unpacked, packed = open_set(out), open_set(archive)
    assert packed.classes == unpacked.classes
    for before, after in zip(unpacked.videos, packed.videos, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before.frames, after.frames, strict=True))
        assert shapes_of(before) == shapes_of(after)


def test_an_archive_without_annotations_or_frames_says_what_is_missing(tmp_path):
    out = tmp_path / "set"
    FORMS["ytvis"].write(out, random_set(3, overlapping=False, ignored=False), True)
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(out / "instances.json", "instances.json")
    videos = open_set(archive)
    with pytest.raises(InputError, match=r"set\.zip/JPEGImages, which is not there"):
        videos.videos[0].frames[0]
    with zipfile.ZipFile(archive, "w") as file:
        file.write(out / "instances.json", "deep/in/instances.json")
        file.write(out / "instances.json", "other/instances.json")
    with pytest.raises(InputError, match="expected one JSON file at its top"):
        open_set(archive, "ytvis")


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_form_cannot_hold_is_said(name, tmp_path):
    videos = random_set(1, overlapping=True, ignored=True)
    videos = replace(videos, videos=[replace(video, fps=12.0) for video in videos.videos])
    lines = " ".join(FORMS[name].write(tmp_path / "set", videos, True).lines())
    assert "frame rates" in lines
    assert ("pixels that two objects claim" in lines) == (name in ("davis", "mots", "mots-png"))
    assert ("classes of objects (all become one): 2" in lines) == (name == "davis")
    assert ("ids of objects (they are numbered anew)" in lines) == (name in ("mots", "mots-png"))


@pytest.mark.parametrize("name", WRITTEN)
def test_converting_there_and_back_gives_the_same_pixels(name, source, tmp_path):
    convert(source, tmp_path / "there", to=name)
    convert(tmp_path / "there", tmp_path / "back", to="ytvis")
    first, last = open_set(source), open_set(tmp_path / "back")
    for before, after in zip(first.videos, last.videos, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before.frames, after.frames, strict=True))
        assert shapes_of(before) == shapes_of(after)


def test_frames_that_are_files_are_copied_as_they_are(source, tmp_path):
    convert(source, tmp_path / "davis", to="davis")
    one = (source / "JPEGImages/00000/00003.png").read_bytes()
    assert (tmp_path / "davis/JPEGImages/00000/00003.png").read_bytes() == one


def test_annotations_alone_can_be_written(source, tmp_path):
    convert(source, tmp_path / "bare", to="ytvis", frames=False)
    assert [path.name for path in (tmp_path / "bare").iterdir()] == ["instances.json"]
    assert len(open_set(tmp_path / "bare").videos[0].tracks) > 0


@pytest.mark.parametrize("name", WRITTEN)
def test_nothing_is_left_of_a_conversion_that_fails(name, tmp_path):
    class Broken(list):
        def __iter__(self):
            raise InputError("broken frame")

    video = replace(random_set(0, overlapping=False, ignored=False).videos[0], frames=Broken([0] * 9))
    with pytest.raises(InputError, match="broken frame"):
        FORMS[name].write(tmp_path / "set", VideoSet(videos=[video], classes=CLASSES), True)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_written_into(source, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    with pytest.raises(InputError, match="there is something already"):
        convert(source, tmp_path / "mine", to="davis")
    assert (tmp_path / "mine" / "file").read_text() == "x"


def test_names_and_paths_that_are_wrong_are_said(source, tmp_path, coco_folder):
    with pytest.raises(ConfigError, match="no form 'davs'; did you mean 'davis'"):
        open_set(source, "davs")
    with pytest.raises(ConfigError, match="the form 'coco' is only read"):
        convert(source, tmp_path / "x", to="coco")
    with pytest.raises(InputError, match="no such file or folder"):
        open_set(tmp_path / "nothing")
    (tmp_path / "dull").mkdir()
    with pytest.raises(FormatError, match="cannot tell which form"):
        open_set(tmp_path / "dull")
    (tmp_path / "some.json").write_text('{"a": 1}')
    with pytest.raises(FormatError, match="neither YouTube-VIS nor COCO"):
        open_set(tmp_path / "some.json")
    assert detect(coco_folder) == "coco"
    assert detect(source / "instances.json") == "ytvis"


def test_two_videos_of_one_name_are_refused(tmp_path):
    videos = random_set(0, overlapping=False, ignored=False)
    twins = replace(videos, videos=[replace(video, id="same") for video in videos.videos])
    with pytest.raises(InputError, match="2 videos are called 'same'"):
        registry.named("davis").write(tmp_path / "set", twins, True)


def test_more_objects_than_a_form_has_numbers_for_are_refused(tmp_path):
    one = masks.encode(np.ones((1, 2, 2), bool))[0]
    tracks = tuple(Track(id=n, label=0, score=1.0, rles=(one,)) for n in range(1, 1002))
    frame = torch.zeros(3, 2, 2, dtype=torch.uint8)
    crowd = VideoSet(videos=[Video(id="v", size=(2, 2), frames=[frame], tracks=tracks)], classes=("car", "pedestrian"))
    with pytest.raises(InputError, match="a palette holds 254 objects, not 1001"):
        registry.named("davis").write(tmp_path / "davis", crowd, True)
    with pytest.raises(InputError, match="MOTS holds 1000 objects of a class, not 1001"):
        registry.named("mots").write(tmp_path / "mots", crowd, True)
