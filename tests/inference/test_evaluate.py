"""A model and a data set in, numbers out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from patch_sets import CLASSES, patch_set, write_patch_set
from toy import Seen, Toy
from tubelet import evaluate
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.types import Clip, Tracks, VideoSet
from tubelet.evaluation.measures import measure
from tubelet.formats import registry, ytvis
from tubelet.inference.predict import predict


def test_the_numbers_are_those_of_predicting_and_measuring_by_hand() -> None:
    truth = patch_set()
    predictions = [predict(Toy(shrink=1), video, threshold=0) for video in truth.videos]
    assert evaluate(Toy(shrink=1), truth, metrics=["ap", "jf"]) == measure(truth.videos, predictions, ["ap", "jf"])


def test_masks_that_are_exact_are_worth_everything() -> None:
    assert evaluate(Toy(shrink=1), patch_set())["AP"] == pytest.approx(1)


def test_a_json_its_folder_and_the_set_in_memory_give_the_same_numbers(tmp_path: Path) -> None:
    document = write_patch_set(tmp_path / "set")
    numbers = evaluate(Toy(), patch_set(), metrics=["ap", "mot"])
    assert evaluate(Toy(), document, metrics=["ap", "mot"]) == numbers
    assert evaluate(Toy(), str(tmp_path / "set"), metrics=["ap", "mot"]) == numbers


def test_results_are_written_with_the_ids_of_the_truth(tmp_path: Path) -> None:
    document = write_patch_set(tmp_path / "set")
    numbers = evaluate(Toy(), document, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == numbers
    truth = ytvis.read(document)
    written = ytvis.read_predictions(tmp_path / "out" / "predictions.json", truth)
    assert measure(truth.videos, written) == numbers
    assert {entry["video_id"] for entry in json.loads((tmp_path / "out" / "predictions.json").read_text())} == {7, 8, 9}


def test_classes_in_another_order_are_matched_by_name() -> None:
    truth = patch_set()
    turned = CLASSES[::-1]
    videos = [
        replace(video, tracks=tuple(replace(t, label=turned.index(CLASSES[t.label])) for t in video.tracks or ()))
        for video in truth.videos
    ]
    assert evaluate(Toy(), VideoSet(videos=videos, classes=turned)) == evaluate(Toy(), truth)


def test_chosen_classes_are_measured_alone() -> None:
    class Colourblind(Toy):
        """Calls blue what is red: wrong for those two classes, right for the others."""

        def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
            state, tracks = super().step(state, clip)
            swapped = tracks.scores[:, [2, 1, 0, 3]]
            return state, replace(tracks, scores=swapped)

    truth = patch_set()
    assert evaluate(Colourblind(shrink=1), truth)["AP"] < 1
    assert evaluate(Colourblind(shrink=1), truth, classes=["green"])["AP"] == pytest.approx(1)
    assert evaluate(Colourblind(shrink=1), truth, classes=["red"])["AP"] == 0
    with pytest.raises(ConfigError, match="no class 'gren'; did you mean 'green'"):
        evaluate(Toy(), truth, classes=["gren"])


def test_any_class_is_an_object_of_davis() -> None:
    videos = [
        replace(video, tracks=tuple(replace(track, label=0) for track in video.tracks or ()))
        for video in patch_set().videos
    ]
    assert evaluate(Toy(shrink=1), VideoSet(videos=videos, classes=("object",)))["AP"] == pytest.approx(1)


def test_other_classes_are_refused() -> None:
    truth = VideoSet(videos=patch_set().videos, classes=("red", "cow", "blue", "yellow"))
    with pytest.raises(ConfigError, match=r"no certain map of the 4 classes .* 3 names agree, unknown: cow"):
        evaluate(Toy(), truth)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(InputError, match="expected annotated videos, found none"):
        evaluate(Toy(), VideoSet(videos=[], classes=CLASSES))


def test_a_truth_without_annotations_or_objects_is_refused() -> None:
    hidden = [replace(video, tracks=None) for video in patch_set().videos]
    with pytest.raises(InputError, match="annotations are kept back"):
        evaluate(Toy(), VideoSet(videos=hidden, classes=CLASSES))
    bare = [replace(video, tracks=()) for video in patch_set().videos]
    with pytest.raises(InputError, match="none of its 3 videos has an annotated object"):
        evaluate(Toy(), VideoSet(videos=bare, classes=CLASSES))


def test_a_wrong_metric_is_refused_before_anything_is_predicted() -> None:
    model = Toy()
    with pytest.raises(ConfigError, match="did you mean 'jf'"):
        evaluate(model, patch_set(), metrics=["jff"])
    assert model.steps == []


def test_the_benchmark_form_of_predictions_is_measured_too() -> None:
    numbers = evaluate(Toy(shrink=1), patch_set(), top=10)
    assert numbers["AP"] == pytest.approx(1)


def test_a_folder_and_its_archive_give_the_same_numbers(tmp_path: Path) -> None:
    write = registry.named("davis").write
    assert write is not None
    write(tmp_path / "set", patch_set(), True)
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "set")
    numbers = evaluate(Toy(), tmp_path / "set")
    assert numbers["AP"] > 0
    assert evaluate(Toy(), archive) == numbers
