"""Mean intersection over union of class maps against loops over pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.core.records import Track
from tubelet.evaluation.semantic import VOID, ClassMaps, class_map, confusion, evaluate, per_class

maps = hn.arrays(np.uint8, (3, 4, 5), elements=st.sampled_from([0, 1, 2, 3]))
with_void = hn.arrays(np.uint8, (3, 4, 5), elements=st.sampled_from([0, 1, 2, VOID]))


def of(truth: Any, answer: Any, name: str = "v") -> ClassMaps:
    return ClassMaps(name, list(np.asarray(truth, np.uint8)), list(np.asarray(answer, np.uint8)))


@given(with_void, maps)
def test_the_figures_are_those_of_loops_over_pixels(truth: np.ndarray, answer: np.ndarray) -> None:
    overlaps = []
    for k in range(4):
        shared = union = real = 0
        for a, b in zip(truth.ravel(), answer.ravel(), strict=True):
            if a != VOID:
                shared += a == k and b == k
                union += a == k or b == k
                real += a == k
        if real:
            overlaps.append((k, shared / union))
    figures = evaluate([of(truth, answer)], 3)
    inside = [value for k, value in overlaps if k]
    assert figures["mIoU"] == pytest.approx(np.mean([v for _, v in overlaps]) if overlaps else -1)
    assert figures["mIoU_classes"] == pytest.approx(np.mean(inside) if inside else -1)
    counted = truth != VOID
    expected = (truth == answer)[counted].mean() if counted.any() else -1
    assert figures["pixel_accuracy"] == pytest.approx(expected)


@given(maps, maps)
def test_pixels_are_summed_over_frames_and_videos(first: np.ndarray, second: np.ndarray) -> None:
    apart = confusion([of(first, second), of(second, first)], 3)
    joined = confusion([of(np.concatenate([first, second]), np.concatenate([second, first]))], 3)
    assert (apart == joined).all()
    assert apart.sum() == 2 * first.size


@given(maps)
def test_the_truth_itself_is_perfect(truth: np.ndarray) -> None:
    figures = evaluate([of(truth, truth)], 3)
    assert figures["mIoU"] == figures["pixel_accuracy"] == 1


def test_a_class_that_only_the_answer_shows_is_no_part_of_the_mean() -> None:
    figures = evaluate([of([[[1, 1, 1, 1]]], [[[1, 1, 1, 2]]])], 2)
    assert figures == {"mIoU": 0.75, "mIoU_classes": 0.75, "IoU_background": -1.0, "pixel_accuracy": 0.75}
    assert per_class(confusion([of([[[0, 1]]], [[[0, 0]]])], 1), ("dog",)) == {
        "background": {"IoU": 0.5, "share": 0.5},
        "dog": {"IoU": 0.0, "share": 0.5},
    }


@pytest.mark.parametrize(
    ("truth", "answer", "message"),
    [
        (np.zeros((1, 4, 5)), np.zeros((1, 5, 4)), "frame 0: expected an answer of 5x4, got 4x5"),
        (np.zeros((2, 4, 5)), np.zeros((1, 4, 5)), "different numbers of frames"),
        (np.zeros((1, 1, 1)), np.full((1, 1, 1), 9), "class 9 in the answer, but there are 2"),
        (np.full((1, 1, 1), 9), np.zeros((1, 1, 1)), "class 9 in the truth"),
    ],
)
def test_maps_that_do_not_fit_are_one_line(truth: np.ndarray, answer: np.ndarray, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        evaluate([of(truth, answer, "dog.mp4")], 2)
    assert "dog.mp4" in str(caught.value)


def track(columns: slice, label: int, score: float, *, ignore: bool = False) -> Track:
    mask = np.zeros((1, 2, 8), bool)
    mask[0, :, columns] = True
    return Track(id=1, label=label, score=score, rles=(masks.encode(mask)[0], None), ignore=ignore)


def test_surer_objects_lie_on_top_then_smaller_ones_and_nothing_is_below_a_crowd() -> None:
    objects = [track(slice(0, 4), 0, 0.9), track(slice(2, 6), 1, 0.5), track(slice(3, 8), 6, 1.0, ignore=True)]
    assert class_map(objects, (2, 8), 0)[0].tolist() == [1, 1, 1, 1, 2, 2, VOID, VOID]
    equal = [track(slice(0, 2), 3, 1.0), track(slice(0, 8), 4, 1.0)]
    assert class_map(equal, (2, 8), 0)[0].tolist() == [4, 4, 5, 5, 5, 5, 5, 5]
    assert not class_map(objects, (2, 8), 1).any()


def test_bands_of_a_large_frame_are_counted_like_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth, answer = rng.integers(0, 4, (2, 31, 17)).astype(np.uint8)
    whole = confusion([ClassMaps("v", [truth], [answer])], 3)
    monkeypatch.setattr("tubelet.evaluation.semantic.BAND", 50)
    assert np.array_equal(confusion([ClassMaps("v", [truth], [answer])], 3), whole)
