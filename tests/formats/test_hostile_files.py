"""Whatever a file holds, reading it ends in a data set or in one clear error, never in a traceback of another kind."""

from __future__ import annotations

import contextlib
import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tubelet
from tubelet.core.errors import InputError, TubeletError
from tubelet.core.types import VideoSet
from tubelet.formats import registry, ytvis
from tubelet.formats.ytvis.document import Faults
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import write

PACKAGE = Path(tubelet.__file__).parent
STRANGE = (
    None, True, -1, 0, 10**12, 1e300, 2.5, "", "x", "../../up", "a\0b", [], {}, [[]], [None], {"size": [1, 1]}, "é",
)  # fmt: skip
SEEDS = range(60)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small generated set in every form."""
    root = tmp_path_factory.mktemp("hostile")
    write(root / "ytvis", Synthetic(height=24, width=32, frames=2, objects=(2, 2), size=(0.6, 0.9)), seed=1, videos=1)
    for name in ("coco-video", "cvat", "mots", "mots-png", "davis", "png"):
        registry.convert(root / "ytvis", root / name, to=name)
    return root


def read_all(videos: VideoSet) -> None:
    for video in videos.videos:
        for frame in video.frames:
            assert frame.shape[1:] == video.size
        for track in video.tracks or ():
            assert len(track.rles) == len(video)


def survives(read: Callable[[], VideoSet]) -> bool:
    """Whether it could be read; anything but a clear error fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read_all(read())
        except TubeletError:
            return False
    return True


def leaves(tree: Any, path: tuple = ()) -> list[tuple]:
    """Paths to every value in a JSON tree, inner ones too."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(leaf for key, child in children for leaf in leaves(child, (*path, key)))]


def changed(tree: Any, rng: np.random.Generator) -> Any:
    """The tree with one value replaced by something strange, or removed."""
    tree = copy.deepcopy(tree)
    paths = leaves(tree)[1:]
    path = paths[rng.integers(len(paths))]
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if rng.random() < 0.2:
        del parent[path[-1]]
    else:
        parent[path[-1]] = STRANGE[rng.integers(len(STRANGE))]
    return tree


@pytest.mark.parametrize("name", ["coco-video", "coco"])
def test_json_with_a_strange_value_is_read_or_refused(name, sets, tmp_path):
    source = sets / "coco-video"
    tree = json.loads((source / "instances.json").read_text())
    path = tmp_path / "changed.json"
    outcomes = set()
    for seed in range(150):
        path.write_text(json.dumps(changed(tree, np.random.default_rng(seed))))
        outcomes.add(survives(lambda: registry.open_set(path, name, source / "images")))
    assert outcomes == {True, False}


@pytest.mark.parametrize("long", ["x" * 300 + ".png", "x" * 300 + "/0.png"])
@pytest.mark.parametrize("name", ["ytvis", "coco-video"])
def test_a_name_that_is_too_long_for_any_file_is_read_or_refused(name, long, sets):
    tree = json.loads((sets / name / "instances.json").read_text())
    path = sets / name / "long.json"
    for *parents, last in leaves(tree)[1:]:
        whole = copy.deepcopy(tree)
        parent = whole
        for key in parents:
            parent = parent[key]
        if isinstance(parent[last], str):
            parent[last] = long
            path.write_text(json.dumps(whole))
            survives(lambda: registry.open_set(path, name))
    path.unlink()


REGION = {"id": "a", "original_width": 8, "original_height": 4}
BRUSHED = {"type": "brushlabels", "value": {"rle": [0, 0, 0, 128, 57, 191, 131], "brushlabels": ["dog"]}, **REGION}
DRAWN = {"type": "polygonlabels", "value": {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["dog"]}, **REGION}
TASKS = [{"data": {"image": "/up/a.png"}, "annotations": [{"result": [{**DRAWN, "id": "b"}, BRUSHED]}]}]
MASKLETS = {"masklet": [[{"size": [4, 8], "counts": "0P1"}]], "masklet_id": [3]}


@pytest.mark.parametrize(("name", "tree"), [("label-studio", TASKS), ("sav", MASKLETS)])
def test_a_task_or_masklet_with_a_strange_value_is_read_or_refused(name, tree, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 8, 3), np.uint8))
    (tmp_path / "v.mp4").write_bytes((PACKAGE / "apps" / "demo.mp4").read_bytes())
    path = tmp_path / "v_manual.json"
    for seed in range(120):
        path.write_text(json.dumps(changed(tree, np.random.default_rng(seed))))
        survives(lambda: registry.open_set(tmp_path, name))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("coco-video", "instances.json"),
        ("cvat", "00000/annotations.xml"),
        ("mots", "instances_txt/00000.txt"),
        ("mots", "classes.txt"),
        ("mots-png", "instances/00000/000000.png"),
        ("davis", "Annotations/00000/00001.png"),
        ("davis", "JPEGImages/00000/00000.png"),
    ],
)
def test_a_file_with_damaged_bytes_is_read_or_refused(name, file, sets):
    path = sets / name / file
    whole = path.read_bytes()
    try:
        for seed in SEEDS:
            rng = np.random.default_rng(seed)
            data = bytearray(whole[: rng.integers(len(whole))] if seed % 3 == 0 else whole)
            for place in rng.integers(0, max(len(data), 1), 3) if data else ():
                data[place] = rng.integers(256)
            path.write_bytes(bytes(data))
            survives(lambda: registry.open_set(sets / name, name))
    finally:
        path.write_bytes(whole)
    assert survives(lambda: registry.open_set(sets / name, name))


def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_unpacked(sets):
    path = sets / "davis/Annotations/00000/00001.png"
    whole = path.read_bytes()
    start = whole.index(b"IHDR") + 4
    path.write_bytes(whole[:start] + (60000).to_bytes(4, "big") * 2 + whole[start + 8 :])
    try:
        assert not survives(lambda: registry.open_set(sets / "davis"))
    finally:
        path.write_bytes(whole)


GOOD = {
    "videos": [{"id": 1, "width": 4, "height": 4, "length": 1, "file_names": ["v/0.png"]}],
    "categories": [{"id": 1, "name": "a"}],
    "annotations": [
        {"id": 1, "video_id": 1, "category_id": 1, "iscrowd": 0, "segmentations": [{"size": [4, 4], "counts": "0@0"}]}
    ],
}
MASK = b'{"size": [4, 4], "counts": "0@0"}'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"0@0", b"0\x80"),
        (b"0@0", b"0\\ud800"),
        (MASK, b"[[NaN, 1, 2, 3, 4, 5]]"),
        (MASK, b"[[Infinity, 1, 2, 3, 4, 5]]"),
        (MASK, b"[[1e999, 1, 2, 3, 4, 5]]"),
        (MASK, b"1e999"),
        (MASK, b"9" * 5000),
        (MASK, b"[" * 3000 + b"]" * 3000),
        (b'"a"', b'"\\ud800"'),
        (b'"a"', b'"\xff"'),
        (b'"id": 1, "video_id"', b'"id": 1' + b"0" * 30 + b', "video_id"'),
    ],
)
def test_the_smallest_broken_annotations_are_refused_by_every_reader(before, after, tmp_path):
    path = tmp_path / "instances.json"
    path.write_bytes(json.dumps(GOOD).encode().replace(before, after, 1))
    assert path.read_bytes() != json.dumps(GOOD).encode()
    with pytest.raises(TubeletError):
        ytvis.read(path)
    with pytest.raises(TubeletError):
        ytvis.read_predictions(path, VideoSet(videos=(), classes=("a",)))
    lenient = Faults(lenient=True)
    with contextlib.suppress(TubeletError):
        assert ytvis.read(path, faults=lenient).videos[0].tracks == ()
        assert lenient.counts


def test_a_broken_archive_beside_others_is_named(tmp_path):
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4junk")
    with pytest.raises(InputError, match=r"cut\.zip: not a zip archive"):
        registry.open_set(tmp_path)


def test_a_frame_of_another_size_is_refused_before_it_is_decoded(sets, monkeypatch):
    path = min((sets / "ytvis").rglob("*.png"))
    whole = path.read_bytes()
    start = whole.index(b"IHDR") + 4
    path.write_bytes(whole[:start] + (16000).to_bytes(4, "big") * 2 + whole[start + 8 :])
    monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("decoded"))
    try:
        with pytest.raises(InputError, match="expected an image of 32x24, got 16000x16000"):
            registry.open_set(sets / "ytvis").videos[0].frames[0]
    finally:
        path.write_bytes(whole)
