from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tubelet.core.errors import FormatError, InputError
from tubelet.formats import davis_masks
from tubelet.formats.ytvis.document import Faults

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759


def save(path: Path, labels: np.ndarray, palette: list[int] | None = PALETTE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    if palette is not None:
        image = image.convert("P") if image.mode != "P" else image
        image = Image.fromarray(labels.astype(np.uint8), mode="P")
        image.putpalette(palette)
    image.save(path)


def labels(top: int = 1) -> np.ndarray:
    made = np.zeros((4, 6), np.uint8)
    made[1:3, 1:3] = top
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("bear", "cat"):
        for t in range(2):
            save(tmp_path / "truth" / "Annotations_unsupervised" / "480p" / name / f"{t:05d}.png", labels(t + 1))
            save(tmp_path / "answer" / name / f"{t:05d}.png", labels(1))
    (tmp_path / "truth" / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "truth" / "ImageSets" / "2017" / "val.txt").write_text("cat\n")
    return tmp_path


def test_a_root_leads_to_its_annotations_and_those_to_themselves(root: Path) -> None:
    folder = root / "truth" / "Annotations_unsupervised" / "480p"
    assert davis_masks.annotation_folder(root / "truth") == folder
    assert davis_masks.annotation_folder(folder) == folder
    assert davis_masks.annotation_folder(root / "answer") == root / "answer"
    with pytest.raises(InputError, match="no such folder"):
        davis_masks.annotation_folder(root / "nothing")


def test_sequences_are_all_or_those_of_a_split(root: Path) -> None:
    folder = davis_masks.annotation_folder(root / "truth")
    assert davis_masks.sequences(folder, root / "truth") == ["bear", "cat"]
    assert davis_masks.sequences(folder, root / "truth", "val") == ["cat"]
    with pytest.raises(InputError, match="did you mean 'val'"):
        davis_masks.sequences(folder, root / "truth", "vals")
    with pytest.raises(InputError, match="expected folders of PNG label maps"):
        davis_masks.sequences(root / "answer" / "cat", root)


def test_maps_are_read_in_order_and_more_than_once(root: Path) -> None:
    truth = davis_masks.truth(davis_masks.annotation_folder(root / "truth"), "bear")
    for _ in range(2):
        assert [int(frame.max()) for frame in truth] == [1, 2]
    answer = davis_masks.answer(root / "answer", "bear", truth, Faults())
    assert [frame.tolist() for frame in answer] == [labels(1).tolist()] * 2


def test_black_and_white_maps_hold_one_object(tmp_path: Path) -> None:
    for t in range(2):
        save(tmp_path / "a" / f"{t}.png", labels(255), palette=None)
    assert [int(frame.max()) for frame in davis_masks.truth(tmp_path, "a")] == [1, 1]


def test_void_beside_objects_stays_void(tmp_path: Path) -> None:
    made = labels(1)
    made[0, 0] = 255
    save(tmp_path / "a" / "0.png", made)
    assert next(iter(davis_masks.truth(tmp_path, "a"))).max() == 255


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lambda folder: (folder / "00001.png").unlink(), "missing frame", r"bear: no prediction for frame 00001\.png"),
        (lambda folder: save(folder / "00002.png", labels()), "extra frame", r"bear: 00002\.png has no truth"),
        (lambda folder: folder.rename(folder.with_name("bears")), "missing sequence", "for the sequence 'bear'"),
    ],
)
def test_what_is_missing_or_too_many_is_named_or_counted(spoil: object, kind: str, message: str, root: Path) -> None:
    spoil(root / "answer" / "bear")
    truth = davis_masks.truth(davis_masks.annotation_folder(root / "truth"), "bear")
    with pytest.raises(FormatError, match=message):
        davis_masks.answer(root / "answer", "bear", truth, Faults())
    faults = Faults(lenient=True)
    frames = list(davis_masks.answer(root / "answer", "bear", truth, faults))
    assert faults.counts[kind] >= 1
    assert [frame.shape for frame in frames] == [(4, 6)] * 2


def test_palettes_sorted_anew_are_told(root: Path) -> None:
    swapped = [0, 0, 0, 0, 128, 0, 128, 0, 0] + [0] * 759
    save(root / "answer" / "bear" / "00001.png", labels(1), swapped)
    truth = davis_masks.truth(davis_masks.annotation_folder(root / "truth"), "bear")
    with pytest.raises(FormatError, match=r"object 1 has the colour \(0, 128, 0\), but \(128, 0, 0\) in an earlier"):
        list(davis_masks.answer(root / "answer", "bear", truth, Faults()))
    faults = Faults(lenient=True)
    assert len(list(davis_masks.answer(root / "answer", "bear", truth, faults))) == 2
    assert faults.counts["palette"] == 1


def test_colour_images_and_broken_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a" / "0.png")
    with pytest.raises(FormatError, match="got mode RGB"):
        davis_masks.truth(tmp_path, "a")
    (tmp_path / "a" / "0.png").write_bytes(b"no image")
    with pytest.raises(FormatError, match="not an image that can be decoded"):
        davis_masks.truth(tmp_path, "a")


def test_real_annotations_are_read(shared: Path) -> None:
    folder = davis_masks.annotation_folder(shared / "data" / "davis2016_train")
    names = davis_masks.sequences(folder, folder)
    assert len(names) == 30
    frame = next(iter(davis_masks.truth(folder, names[0])))
    assert set(np.unique(frame)) == {0, 1}
