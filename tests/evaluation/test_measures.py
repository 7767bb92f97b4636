"""Measures by name: the numbers are those of the evaluators."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tubelet.core.errors import ConfigError
from tubelet.core.types import Prediction, Track, VideoSet
from tubelet.evaluation import identity
from tubelet.evaluation.measures import FIGURES, METRICS, measure, metrics_of
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import generate

WORLD = Synthetic(height=72, width=96, frames=4, objects=(2, 2), look_alikes=0, occluders=(0, 0), leaving=0)
ALL = ("ap", "jf", "identity")


@pytest.fixture(scope="module")
def test_set() -> VideoSet:
    return generate(WORLD, 5, 3)


def as_predictions(videos: VideoSet, score: float = 0.9) -> list[Prediction]:
    """The truth itself as predictions."""
    return [
        Prediction(
            video=video.id,
            size=video.size,
            length=len(video),
            tracks=tuple(replace(track, score=score) for track in video.tracks or ()),
            classes=videos.classes,
        )
        for video in videos.videos
    ]


def test_the_truth_is_worth_everything(test_set: VideoSet) -> None:
    figures = measure(test_set.videos, as_predictions(test_set), ALL)
    assert {figures[name] for name in ("AP", "AP50", "AP75", "AR10", "J&F", "J", "F", "IDF1", "MOTA", "HOTA")} == {1.0}
    assert figures["IDs"] == 0


def test_objects_below_the_score_threshold_do_not_count_for_identities_but_for_the_best_threshold(
    test_set: VideoSet,
) -> None:
    figures = measure(test_set.videos, as_predictions(test_set, score=0.2), ALL)
    assert figures["IDF1"] == 0
    assert figures["IDF1_best"] == 1
    assert figures["AP"] == 1


def test_exchanged_identities_are_switches(test_set: VideoSet) -> None:
    swapped = []
    for prediction in as_predictions(test_set):
        first, second, *rest = prediction.tracks
        half = prediction.length // 2
        crossed = (
            replace(first, rles=(*first.rles[:half], *second.rles[half:])),
            replace(second, rles=(*second.rles[:half], *first.rles[half:])),
        )
        swapped.append(replace(prediction, tracks=(*crossed, *rest)))
    figures = measure(test_set.videos, swapped, ALL)
    assert figures["IDs"] == 6
    assert figures["IDF1"] < 1


def test_the_best_of_two_proposals_takes_the_disputed_pixels(test_set: VideoSet) -> None:
    doubled = []
    for prediction in as_predictions(test_set):
        everything = Track(id=99, label=0, score=0.1, rles=prediction.tracks[0].rles)
        doubled.append(replace(prediction, tracks=(everything, *prediction.tracks)))
    assert measure(test_set.videos, doubled, ALL)["J"] == 1


def test_only_the_named_metrics_are_computed(test_set: VideoSet) -> None:
    numbers = measure(test_set.videos, as_predictions(test_set), ["jf"])
    assert list(numbers) == ["J&F", "J", "F"]


def test_an_unknown_metric_is_refused_with_the_nearest_name(test_set: VideoSet) -> None:
    with pytest.raises(ConfigError, match="unknown metric 'identiy'; did you mean 'identity'"):
        measure(test_set.videos, as_predictions(test_set), ["identiy"])


def test_identities_of_boxes_are_those_of_the_evaluator_of_files(test_set: VideoSet) -> None:
    predictions = as_predictions(test_set)
    cut = [replace(p, tracks=p.tracks[:1]) for p in predictions]
    numbers = measure(test_set.videos, cut, ["mot"])
    whole = identity.evaluate(test_set.videos, cut)
    assert numbers == {name: whole[name] for name in FIGURES["mot"]}
    assert numbers["IDP"] == 1 > numbers["IDR"]


@pytest.mark.parametrize("metric", ["identity", "overall"])
def test_identities_of_masks_and_of_boxes_have_the_same_names(test_set: VideoSet, metric: str) -> None:
    with pytest.raises(ConfigError, match=f"{metric} .masks. and mot .boxes. give numbers of the same names"):
        measure(test_set.videos, as_predictions(test_set), [metric, "mot"])


def test_overall_is_the_mean_of_what_is_found_and_of_who_is_who(test_set: VideoSet) -> None:
    predictions = [replace(p, tracks=p.tracks[:1]) for p in as_predictions(test_set)]
    numbers = measure(test_set.videos, predictions, ["overall"])
    alone = measure(test_set.videos, predictions, ["ap", "identity"])
    assert list(numbers) == ["overall", "AP50", "IDF1"]
    assert numbers["overall"] == pytest.approx((alone["AP50"] + alone["IDF1"]) / 2)
    assert len({round(value, 6) for value in numbers.values()}) == 3


def test_without_a_true_object_overall_is_unknown_whatever_was_found(test_set: VideoSet) -> None:
    empty = [replace(video, tracks=()) for video in test_set.videos]
    assert measure(empty, as_predictions(test_set), ["overall"])["overall"] == -1


def test_the_figures_of_papers_name_their_metrics(test_set: VideoSet) -> None:
    for metric, figures in FIGURES.items():
        assert metrics_of(figures) == (metric,)
        assert tuple(METRICS[metric](test_set.videos, as_predictions(test_set))) == figures
    assert metrics_of(["AP", "IDs", "FPS"]) == ("ap", "mot")
