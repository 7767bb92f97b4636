from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
import ytvis_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.errors import InputError
from tubelet.core.masks import overlaps
from tubelet.core.types import Prediction, Track, Video
from tubelet.evaluation import ytvis
from tubelet.evaluation.pairing import pair
from tubelet.formats import ytvis as files

KEYS = {"AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"}
KEYS |= {"AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"}
SIZE = (10, 40)

Scene = tuple[files.AnnotatedSet, list[Prediction]]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, Any], Scene]:
    """Truth and results through files, as the command reads them."""
    folder = tmp_path_factory.mktemp("scenes")

    def through_files(truth: Any, results: Any) -> Scene:
        paths = folder / "truth.json", folder / "results.json"
        for path, tree in zip(paths, (truth, results), strict=True):
            path.write_text(json.dumps(tree))
        videos = files.read(paths[0])
        return videos, files.read_predictions(paths[1], videos)

    return through_files


def strip(pixels: int, at: int = 0) -> np.ndarray:
    """A mask of so many pixels from column `at`, ten to a column."""
    columns = np.zeros(SIZE[::-1], bool)
    columns.reshape(-1)[10 * at : 10 * at + pixels] = True
    return columns.T


def golden(
    truths: list[list[Any]], guesses: list[tuple[float, list[Any]]], first_id: int = 1
) -> tuple[dict[str, Any], list[Any]]:
    tracks = [{"id": first_id + n, "video_id": 5, "category_id": 2, "masks": masks} for n, masks in enumerate(truths)]
    found = [{"video_id": 5, "category_id": 2, "score": score, "masks": masks} for score, masks in guesses]
    length = len(truths[0])
    return scenes.data_set({5: length}, tracks, SIZE, (2,)), scenes.results(found)


ONE, TWO, THREE, AWAY = strip(100), strip(100, 10), strip(100, 20), strip(100, 30)
GOLDEN = {
    "one found with an overlap of .62": (golden([[ONE]], [(0.9, [strip(62)])]), (0.3, 1, 0, 0.3)),
    "one of two found, one false": (
        golden([[ONE], [TWO]], [(0.9, [ONE]), (0.8, [AWAY])]),
        (51 / 101, 51 / 101, 51 / 101, 0.5),
    ),
    "a false one before two found": (
        golden([[ONE], [TWO]], [(0.95, [AWAY]), (0.9, [ONE]), (0.8, [TWO])]),
        (2 / 3, 2 / 3, 2 / 3, 1),
    ),
    "a duplicate below costs nothing": (golden([[ONE]], [(0.9, [ONE]), (0.8, [ONE])]), (1, 1, 1, 1)),
    "one of three found": (
        golden([[ONE], [TWO], [THREE]], [(0.9, [ONE])]),
        (34 / 101, 34 / 101, 34 / 101, 1 / 3),
    ),
    "a frame too many": (golden([[ONE, None]], [(0.9, [ONE, strip(50)])]), (0.4, 1, 0, 0.4)),
    "a frame too few": (golden([[ONE, ONE]], [(0.9, [ONE, None])]), (0.1, 1, 0, 0.1)),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_values(case: str, load: Callable[..., Scene]) -> None:
    (truth, results), expected = GOLDEN[case]
    videos, predictions = load(truth, results)
    numbers = ytvis.evaluate(videos.videos, predictions)
    assert numbers.keys() == KEYS
    found = [numbers[key] for key in ("AP", "AP50", "AP75", "AR10")]
    assert found == pytest.approx(expected, abs=1e-12)


def test_ar1_counts_one_prediction_per_video_and_class(load: Callable[..., Scene]) -> None:
    videos, predictions = load(*golden([[ONE], [TWO]], [(0.9, [ONE]), (0.8, [TWO])]))
    numbers = ytvis.evaluate(videos.videos, predictions)
    assert (numbers["AP"], numbers["AR1"], numbers["AR10"]) == pytest.approx((1, 0.5, 1))


def test_annotation_id_zero_counts_unless_the_official_fault_is_asked_for(load: Callable[..., Scene]) -> None:
    videos, predictions = load(*golden([[ONE]], [(0.9, [ONE])], first_id=0))
    assert ytvis.evaluate(videos.videos, predictions)["AP"] == pytest.approx(1)
    assert ytvis.evaluate(videos.videos, predictions, official_ids=True)["AP"] == 0


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), agnostic=st.booleans())
def test_all_numbers_equal_the_plain_restatement(seed: int, agnostic: bool, load: Callable[..., Scene]) -> None:
    truth, results = scenes.random_scene(np.random.default_rng(seed))
    videos, predictions = load(truth, results)
    numbers = ytvis.evaluate(videos.videos, predictions, agnostic=agnostic)
    oracle.prepare(truth, results)
    expected = oracle.evaluate(truth, results, agnostic=agnostic)
    assert numbers == pytest.approx(expected, abs=1e-9)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_official_fault_is_reproduced(seed: int, load: Callable[..., Scene]) -> None:
    truth, results = scenes.random_scene(np.random.default_rng(seed))
    for n, annotation in enumerate(truth["annotations"]):
        annotation["id"] = n  # from 0
    videos, predictions = load(truth, results)
    numbers = ytvis.evaluate(videos.videos, predictions, official_ids=True)
    oracle.prepare(truth, results)
    assert numbers == pytest.approx(oracle.evaluate(truth, results), abs=1e-9)


def test_several_processes_give_the_same_numbers(load: Callable[..., Scene]) -> None:
    videos, predictions = load(*scenes.random_scene(np.random.default_rng(5), videos=40))
    assert ytvis.evaluate(videos.videos, predictions, jobs=2) == ytvis.evaluate(videos.videos, predictions)


def _some_scene(load: Callable[..., Scene], seed: int) -> Scene:
    """A random scene without crowds, which cannot be found."""
    truth, results = scenes.random_scene(np.random.default_rng(seed), videos=4)
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = 0
    return load(truth, results)


def _as_prediction(video: Video, tracks: tuple[Track, ...]) -> Prediction:
    return Prediction(video=video.id, size=video.size, length=len(video), tracks=tracks)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_truth_as_prediction_is_perfect(seed: int, load: Callable[..., Scene]) -> None:
    videos, _ = _some_scene(load, seed)
    held = [video for video in videos.videos if all(track.rles.pixels for track in video.tracks)]
    if not any(video.tracks for video in held):
        return
    numbers = ytvis.evaluate(held, [_as_prediction(video, video.tracks) for video in held])
    for key in KEYS - {"AR1"}:
        assert numbers[key] == pytest.approx(1) or (numbers[key] == -1 and "_" in key)
    groups = [(video.id, track.label) for video in held for track in video.tracks]
    assert (numbers["AR1"] < 1) == (len(set(groups)) < len(groups))


def _rescored(predictions: list[Prediction], change: Callable[[float], float]) -> list[Prediction]:
    return [
        replace(p, tracks=tuple(replace(track, score=change(track.score)) for track in p.tracks)) for p in predictions
    ]


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), power=st.floats(0.2, 5))
def test_a_monotone_change_of_scores_changes_nothing(seed: int, power: float, load: Callable[..., Scene]) -> None:
    videos, predictions = _some_scene(load, seed)
    changed = _rescored(predictions, lambda score: 3 * score**power - 1)
    assert ytvis.evaluate(videos.videos, changed) == ytvis.evaluate(videos.videos, predictions)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_reversing_time_changes_nothing(seed: int, load: Callable[..., Scene]) -> None:
    videos, predictions = _some_scene(load, seed)

    def backwards(tracks: tuple[Track, ...]) -> tuple[Track, ...]:
        return tuple(replace(track, rles=tuple(track.rles)[::-1]) for track in tracks)

    turned = [replace(video, tracks=backwards(video.tracks or ())) for video in videos.videos]
    answers = [replace(p, tracks=backwards(p.tracks)) for p in predictions]
    assert ytvis.evaluate(turned, answers) == ytvis.evaluate(videos.videos, predictions)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_predictions_of_a_class_without_truth_change_nothing(seed: int, load: Callable[..., Scene]) -> None:
    videos, predictions = _some_scene(load, seed)
    strays = [
        replace(p, tracks=(*p.tracks, *(replace(track, label=9, id=track.id + 1000) for track in p.tracks)))
        for p in predictions
    ]
    assert ytvis.evaluate(videos.videos, strays) == ytvis.evaluate(videos.videos, predictions)


def test_low_scored_false_ones_leave_a_perfect_result_perfect(load: Callable[..., Scene]) -> None:
    videos, predictions = load(*golden([[ONE], [TWO]], [(0.9, [ONE]), (0.8, [TWO]), (0.1, [AWAY]), (0.05, [THREE])]))
    assert ytvis.evaluate(videos.videos, predictions)["AP"] == pytest.approx(1)


def test_permuting_the_file_changes_nothing_where_no_scores_tie(load: Callable[..., Scene]) -> None:
    rng = np.random.default_rng(3)
    truth, results = scenes.random_scene(rng, videos=6)
    for n, result in enumerate(results):
        result["score"] = (n + 1) / 1000
    shuffled = [results[n] for n in rng.permutation(len(results))]
    first, second = load(copy.deepcopy(truth), results), load(truth, shuffled)
    assert ytvis.evaluate(first[0].videos, first[1]) == ytvis.evaluate(second[0].videos, second[1])


def test_no_predictions_are_a_true_zero(load: Callable[..., Scene]) -> None:
    truth, _ = golden([[ONE]], [])
    with pytest.warns(UserWarning, match="no predictions"):
        videos, predictions = load(truth, [])
    numbers = ytvis.evaluate(videos.videos, predictions)
    assert (numbers["AP"], numbers["AR100"], numbers["AP_large"]) == (0, 0, -1)


def _video(**changes: Any) -> Video:
    track = Track(id=1, label=0, score=1.0, rles=(None, None))
    return replace(Video(id="5", size=SIZE, frames=[None, None], tracks=(track,)), **changes)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (Prediction(video="6", size=SIZE, length=2, tracks=()), "'6', which has no truth"),
        (Prediction(video="5", size=(40, 10), length=2, tracks=()), "2 frames of 40x10, got 2 of 10x40"),
        (Prediction(video="5", size=SIZE, length=3, tracks=()), "2 frames of 40x10, got 3"),
        (
            Prediction(video="5", size=SIZE, length=2, tracks=(Track(id=8, label=0, score=1.0, rles=(None,)),)),
            "track 8: expected 2 masks, one per frame, got 1",
        ),
        (
            Prediction(
                video="5", size=SIZE, length=2, tracks=(Track(id=8, label=0, score=float("nan"), rles=(None, None)),)
            ),
            "track 8: expected a finite score",
        ),
    ],
)
def test_what_does_not_fit_is_an_error(prediction: Prediction, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ytvis.evaluate([_video()], [prediction])


def test_a_video_without_annotations_is_an_error() -> None:
    with pytest.raises(InputError, match="'5' has no annotations"):
        ytvis.evaluate([_video(tracks=None)], [])


def test_a_long_video_of_many_predictions_agrees_with_itself_in_parts(tmp_path: Path) -> None:
    """Three hundred frames at once give the overlap that the sums over frames give."""
    rng = np.random.default_rng(0)
    size, length = (90, 160), 300
    walks = rng.integers(0, 60, (2, 2)) + np.cumsum(rng.integers(-1, 2, (length, 1, 2)), 0)
    one, other = ([scenes.box(int(x), int(y), 40, 30, size) for x, y in walks[:, n]] for n in (0, 1))
    truth = scenes.data_set({1: length}, [{"video_id": 1, "category_id": 1, "masks": one}], size)
    found = scenes.results([{"video_id": 1, "category_id": 1, "score": 1.0, "masks": other}])
    (tmp_path / "t.json").write_text(json.dumps(truth))
    (tmp_path / "r.json").write_text(json.dumps(found))
    videos = files.read(tmp_path / "t.json")
    pairs = pair(videos.videos, files.read_predictions(tmp_path / "r.json", videos))
    shared = overlaps.intersections([(pairs[0].guess_tubes[0], pairs[0].truth_tubes[0])])
    assert shared.tolist() == [int((np.array(one) & np.array(other)).sum())]
