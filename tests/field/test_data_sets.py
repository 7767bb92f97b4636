"""Labelled data sets with the traps of the field: the same masks, ids and class names are read, or one line refuses."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_masks

from tubelet.core import masks
from tubelet.core.errors import TubeletError
from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats.registry import FORMS, open_set

SIZE = (8, 10)
LENGTH = 3
NAMES = ("dog", "cat")
TEXTS = (".json", ".xml", ".txt", ".yaml", ".csv")
IMAGES = (".jpg", ".png")


def box(name: str, t: int) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of an object; the cat touches two borders and is gone in the last frame."""
    if name == "dog":
        return (t + 1, 2, t + 4, 5)
    return (7, 5, 10, 8) if t < 2 else None


def mask_of(name: str, t: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    sides = box(name, t)
    if sides is not None:
        left, top, right, bottom = sides
        mask[top:bottom, left:right] = True
    return mask


def picture(t: int) -> np.ndarray:
    return np.full((*SIZE, 3), 40 * t, np.uint8)


TRUTH = {name: [mask_of(name, t) for t in range(LENGTH)] for name in NAMES}


def read(path: Path, form: str) -> dict[str, list[np.ndarray]]:
    """The masks of each class, frame by frame: of one video, or of videos of one frame in order of their numbers."""
    videos = open_set(path, form)
    for video in videos.videos:
        assert len(list(video.frames)) == len(video)
    ordered = sorted(videos.videos, key=lambda video: (len(video.id), video.id))
    return {
        name: [mask for video in ordered for mask in masks_of(video, videos.classes.index(name))]
        for name in videos.classes
        if any(track.label == videos.classes.index(name) for video in ordered for track in video.tracks or ())
    }


def masks_of(video: Video, label: int) -> list[np.ndarray]:
    union = [np.zeros(video.size, bool) for _ in range(len(video))]
    for track in video.tracks or ():
        if track.label == label and any(track.rles):
            union = [before | track.mask(t) for t, before in enumerate(union)]
    return union


def assert_same(found: dict[str, list[np.ndarray]], expected: dict[str, list[np.ndarray]]) -> None:
    assert sorted(found) == sorted(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name)


# what happens to the folder of a data set, whatever its form


def with_byte_order_marks(root: Path) -> None:
    for path in texts_in(root):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def with_windows_line_ends(root: Path) -> None:
    for path in texts_in(root):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def with_blank_lines_at_the_end(root: Path) -> None:
    for path in texts_in(root):
        path.write_bytes(path.read_bytes() + b"\n\n")


def with_suffixes_in_capitals(root: Path) -> None:
    for path in sorted(root.rglob("*")):
        if path.suffix in IMAGES:
            path.rename(path.with_suffix(path.suffix.upper()))


def with_rubbish_of_file_managers(root: Path) -> None:
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(b"\0\1")
        for path in list(folder.iterdir()):
            if path.is_file() and path.name[0] != ".":
                (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7")


def with_empty_folders(root: Path) -> None:
    (root / "notes").mkdir()


def texts_in(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.suffix in TEXTS]


FOLDER_TRAPS = (
    with_byte_order_marks,
    with_windows_line_ends,
    with_blank_lines_at_the_end,
    with_suffixes_in_capitals,
    with_rubbish_of_file_managers,
    with_empty_folders,
)
WRITTEN = [name for name, form in FORMS.items() if form.write]


def small_set() -> VideoSet:
    tracks = []
    for number, name in enumerate(NAMES):
        column = tuple(masks.encode(mask[None])[0] if mask.any() else None for mask in TRUTH[name])
        tracks.append(Track(id=3 * number + 2, label=number, score=1.0, rles=column))
    frames = [torch.from_numpy(picture(t)).permute(2, 0, 1) for t in range(LENGTH)]
    video = Video(id="a street", size=SIZE, frames=frames, tracks=tuple(tracks))
    return VideoSet(videos=[video], classes=NAMES)


@pytest.mark.filterwarnings("ignore::tubelet.formats.files.FormatWarning")
@pytest.mark.parametrize("trap", FOLDER_TRAPS, ids=lambda trap: trap.__name__)
@pytest.mark.parametrize("form", WRITTEN)
def test_what_systems_do_to_files_changes_nothing(form: str, trap: Callable[[Path], None], tmp_path: Path) -> None:
    FORMS[form].write(tmp_path / "as written", small_set(), True)
    FORMS[form].write(tmp_path / "Müllers Hund 犬", small_set(), True)
    trap(tmp_path / "Müllers Hund 犬")
    assert_same(read(tmp_path / "Müllers Hund 犬", form), read(tmp_path / "as written", form))


@pytest.mark.parametrize("form", WRITTEN)
def test_an_archive_of_a_mac_is_read_like_its_folder(form: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    FORMS[form].write(root, small_set(), True)
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(root.rglob("*")):
            member = Path("set") / path.relative_to(root)
            file.write(path, member)
            file.writestr(f"__MACOSX/{member.parent.as_posix()}/._{path.name}", b"\0\5\x16\7")
    assert_same(read(archive, form), read(root, form))


# JSON as other programs write it

Segmentation = Any
Document = dict[str, Any]


def as_polygon(mask: np.ndarray) -> Segmentation:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    left, right, top, bottom = (int(side) for side in (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1))
    return [[left, top, right, top, right, bottom, left, bottom]]


def as_text(mask: np.ndarray) -> Segmentation:
    rle = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(SIZE), "counts": rle["counts"].decode()}


def as_counts(mask: np.ndarray) -> Segmentation:
    """Run lengths as plain numbers, column by column, background first."""
    flat = np.concatenate([[False], mask.T.ravel()])
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), mask.size)
    return {"size": list(SIZE), "counts": np.diff(ends, prepend=0).tolist()}


def as_triangles(mask: np.ndarray) -> Segmentation:
    """The same box as two rings that share a side."""
    ((left, top, right, _, _, bottom, *_),) = as_polygon(mask)
    middle = (left + right) // 2
    return [
        [left, top, middle, top, middle, bottom, left, bottom],
        [middle, top, right, top, right, bottom, middle, bottom],
    ]


def ytvis_document(shape: Callable[[np.ndarray], Segmentation]) -> Document:
    annotations = [
        {
            "id": number,
            "video_id": 1,
            "category_id": number,
            "iscrowd": 0,
            "segmentations": [shape(mask) if mask.any() else None for mask in TRUTH[name]],
        }
        for number, name in enumerate(NAMES, start=1)
    ]
    names = [f"street/{t:05d}.png" for t in range(LENGTH)]
    video = {"id": 1, "height": SIZE[0], "width": SIZE[1], "length": LENGTH, "file_names": names}
    return {"videos": [video], "categories": categories(), "annotations": annotations}


def coco_document(shape: Callable[[np.ndarray], Segmentation]) -> Document:
    """Serves for images, and with track_id and video_id for videos."""
    images = [
        {
            "id": t + 1,
            "video_id": 1,
            "frame_id": t,
            "file_name": f"street/{t:05d}.png",
            "height": SIZE[0],
            "width": SIZE[1],
        }
        for t in range(LENGTH)
    ]
    present = [(number, name, t) for t in range(LENGTH) for number, name in enumerate(NAMES, start=1) if box(name, t)]
    annotations = [
        {
            "id": row,
            "image_id": t + 1,
            "track_id": number,
            "category_id": number,
            "iscrowd": 0,
            "segmentation": shape(TRUTH[name][t]),
        }
        for row, (number, name, t) in enumerate(present, start=1)
    ]
    videos = [{"id": 1, "name": "street"}]
    return {"videos": videos, "images": images, "categories": categories(), "annotations": annotations}


def categories() -> list[Document]:
    return [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]


DOCUMENTS = {"ytvis": ytvis_document, "coco-video": coco_document, "coco": coco_document}
REFERENCES = ("id", "image_id", "video_id", "category_id", "track_id")


def renumbered(change: Callable[[int], Any]) -> Callable[[Document], None]:
    """Change every id and every reference to it."""

    def edit(document: Document) -> None:
        for rows in document.values():
            for row in rows:
                row.update({key: change(row[key]) for key in REFERENCES if key in row})

    return edit


def each(table: str, change: Callable[[Document], None]) -> Callable[[Document], None]:
    """Change each row of a table, if the document has it."""

    def edit(document: Document) -> None:
        for row in document.get(table, []):
            change(row)

    return edit


def files_of(document: Document, change: Callable[[str], str]) -> None:
    for video in document["videos"]:
        if "file_names" in video:
            video["file_names"] = [change(name) for name in video["file_names"]]
    for image in document.get("images", []):
        image["file_name"] = change(image["file_name"])


def reverse_all(document: Document) -> None:
    for rows in document.values():
        rows.reverse()


def swap_sides(document: Document) -> None:
    for row in [*document["videos"], *document.get("images", [])]:
        if "height" in row:
            row["height"], row["width"] = row["width"], row["height"]


def first(table: str, **values: Any) -> Callable[[Document], None]:
    return lambda document: document[table][0].update(values)


def more_of(segmentation: Segmentation) -> Callable[[Document], None]:
    """Add an object whose masks have no pixel."""

    def edit(document: Document) -> None:
        row = deepcopy(document["annotations"][0])
        row["id"] = 99
        if "segmentations" in row:
            row["segmentations"] = [segmentation] * LENGTH
        else:
            row.update(track_id=99, segmentation=segmentation)
        document["annotations"].append(row)

    return edit


def repeat_first(table: str) -> Callable[[Document], None]:
    return lambda document: document[table].append(deepcopy(document[table][0]))


SHAPES = {shape.__name__: shape for shape in (as_polygon, as_text, as_counts, as_triangles)}
TRAPS: dict[str, Callable[[Document], None]] = {
    "as it should be": lambda document: None,
    "ids with gaps": renumbered(lambda number: 1000 * number + 7),
    "ids from zero": renumbered(lambda number: number - 1),
    "huge ids": renumbered(lambda number: 10**15 + number),
    "tables in another order": reverse_all,
    "a class that nothing has": lambda document: document["categories"].append({"id": 77, "name": "fish"}),
    "class ids in no order": lambda document: document["categories"].reverse(),
    "keys that nobody knows": each("annotations", lambda row: row.update(attributes={"a": [1]}, note="x", score=0.5)),
    "no iscrowd": each("annotations", lambda row: row.pop("iscrowd")),
    "iscrowd as a truth value": each("annotations", lambda row: row.update(iscrowd=False)),
    "areas and boxes of nonsense": each("annotations", lambda row: row.update(area=-1, bbox=[0, 0, 0, 0])),
    "masks without a pixel": more_of(as_counts(np.zeros(SIZE, bool))),
    "a polygon without a pixel": more_of([[2, 2, 5, 2, 2, 2]]),
    "an object with a box alone": more_of([]),
    "an object without anything": more_of(None),
    "paths of Windows": lambda document: files_of(document, lambda name: name.replace("/", "\\")),
    "paths from here": lambda document: files_of(document, lambda name: f"./{name}"),
    "file names in capitals": lambda document: files_of(document, lambda name: name.replace(".png", ".PNG")),
    "file names of another kind": lambda document: files_of(document, lambda name: name.replace(".png", ".jpg")),
    "info and licences": lambda document: document.update(info=[], licenses=[]),
}


def save(root: Path, document: Document, encoding: str = "utf-8") -> Path:
    for folder in (root / "street", root / "images" / "street", root / "JPEGImages" / "street"):
        folder.mkdir(parents=True)
        for t in range(LENGTH):
            cv2.imwrite(str(folder / f"{t:05d}.png"), picture(t))
    path = root / "instances.json"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding=encoding)
    return path


@pytest.mark.filterwarnings("ignore::tubelet.formats.files.FormatWarning")
@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("form", DOCUMENTS)
def test_a_document_with_traps_is_read_as_it_is_meant(form: str, trap: str, tmp_path: Path) -> None:
    document = DOCUMENTS[form](as_text)
    TRAPS[trap](document)
    path = save(tmp_path, document)
    assert_same(read(path, form), TRUTH)
    if form != "coco":  # whose annotations are objects of one image
        stated = {row["track_id" if form == "coco-video" else "id"] for row in document["annotations"]}
        assert {track.id for video in open_set(path, form).videos for track in video.tracks} == stated


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", DOCUMENTS)
def test_masks_are_the_same_however_they_are_written(form: str, shape: str, tmp_path: Path) -> None:
    assert_same(read(save(tmp_path, DOCUMENTS[form](SHAPES[shape])), form), TRUTH)


@pytest.mark.parametrize("form", DOCUMENTS)
def test_masks_of_all_kinds_mix(form: str, tmp_path: Path) -> None:
    turn = iter([as_polygon, as_text, as_counts] * LENGTH)
    assert_same(read(save(tmp_path, DOCUMENTS[form](lambda mask: next(turn)(mask))), form), TRUTH)


@pytest.mark.parametrize("form", DOCUMENTS)
def test_a_document_of_windows_has_a_mark_and_names_of_all_scripts(form: str, tmp_path: Path) -> None:
    document = DOCUMENTS[form](as_text)
    document["categories"][0]["name"] = "Hündin 犬"
    found = read(save(tmp_path, document, "utf-8-sig"), form)
    assert_same(found, {"Hündin 犬": TRUTH["dog"], "cat": TRUTH["cat"]})


def with_mask(segmentation: Segmentation) -> Callable[[Document], None]:
    """Give the first annotation this mask, in every frame that it has."""

    def edit(document: Document) -> None:
        row = document["annotations"][0]
        if "segmentations" in row:
            row["segmentations"] = [segmentation] * LENGTH
        else:
            row["segmentation"] = segmentation

    return edit


def with_sides(change: Callable[[int], Any]) -> Callable[[Document], None]:
    def edit(document: Document) -> None:
        for row in [*document["videos"], *document.get("images", [])]:
            row.update({side: change(row[side]) for side in ("height", "width") if side in row})

    return edit


REFUSED: dict[str, Callable[[Document], None]] = {
    "an unknown class": first("annotations", category_id=55),
    "an unknown image or video": first("annotations", image_id=55, video_id=55),
    "two classes of one id": repeat_first("categories"),
    "no table of classes": lambda document: document.pop("categories"),
    "a mask of another size": with_mask({"size": [3, 3], "counts": [9]}),
    "a mask on its side": with_mask({"size": [10, 8], "counts": [80]}),
    "a mask without a size": with_mask({"counts": [80]}),
    "a mask with too few pixels": with_mask({"size": list(SIZE), "counts": [79]}),
    "a mask with too many pixels": with_mask({"size": list(SIZE), "counts": [81]}),
    "a mask with negative runs": with_mask({"size": list(SIZE), "counts": [90, -10]}),
    "a mask that does not unpack": with_mask({"size": list(SIZE), "counts": "~~~~"}),
    "a mask that is no mask": with_mask("dog"),
    "a polygon of nothing": with_mask([[]]),
    "a polygon of two points": with_mask([[1, 1, 3, 3]]),
    "a polygon that is not in a list": with_mask([1, 1, 4, 1, 4, 4]),
    "a polygon of text": with_mask([["1", "1", "4", "1", "4", "4"]]),
    "a polygon of not a number": with_mask([[float("nan")] * 8]),
    "a polygon far away": with_mask([[100, 100, 120, 100, 120, 120]]),
    "a polygon without end": with_mask([[0, 0, 1e30, 0, 1e30, 1e30]]),
    "sides in the wrong order": swap_sides,
    "sides as text": with_sides(str),
    "sides of zero": with_sides(lambda side: 0),
    "a path that leads out": lambda document: files_of(document, lambda name: f"../../{name}"),
    "a path of another machine": lambda document: files_of(document, lambda name: f"/data/{name}"),
    "frames that are not there": lambda document: files_of(document, lambda name: f"lost/{name}"),
}


@pytest.mark.parametrize("trap", REFUSED)
@pytest.mark.parametrize("form", DOCUMENTS)
def test_a_document_that_cannot_be_meant_is_refused_in_one_line(form: str, trap: str, tmp_path: Path) -> None:
    document = DOCUMENTS[form](as_text)
    REFUSED[trap](document)
    path = save(tmp_path, document)
    with pytest.raises(TubeletError) as caught:
        read(path, form)
    assert "\n" not in str(caught.value)
