"""`tubelet evaluate model` and `tubelet predict` on data sets, as a user meets them."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import batch_models
from patch_sets import write_patch_set
from toy import Toy
from tubelet import recipes
from tubelet.apps import cli, evaluate_model
from tubelet.apps.batch import command, sets
from tubelet.core.errors import ConfigError
from tubelet.formats import ytvis
from tubelet.inference.evaluate import evaluate
from tubelet.models import weights
from tubelet.recipes.evaluations import find_evaluation, own_evaluation
from tubelet.training.checkpoint import save_model


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write_patch_set(tmp_path / "set")


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A toy stands for every model."""
    empty = tmp_path / "toy.safetensors"
    empty.write_bytes((2).to_bytes(8, "little") + b"{}")
    monkeypatch.setattr(weights, "load", lambda name, **how: Toy())
    monkeypatch.setattr(weights, "find", lambda name: empty)
    for room in (evaluate_model, sets, command):
        monkeypatch.setattr(room, "load_model", batch_models.open_named)


def called(*arguments: object) -> int:
    return cli.call([str(argument) for argument in arguments])


def test_the_numbers_are_printed_written_and_kept(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, written = tmp_path / "out", tmp_path / "numbers.json"
    arguments = ["evaluate", "model", "toy", "--data", truth, "--out", out, "--json", written, "--workers", 1]
    assert called(*arguments, "--metrics", "ap,mot") == 0
    numbers = evaluate(Toy(), truth, metrics=["ap", "mot"])
    assert json.loads(written.read_text()) == json.loads((out / "metrics.json").read_text()) == numbers
    told = capsys.readouterr().out
    assert re.search(r"ours +" + f"{100 * numbers['AP']:.1f}", told)
    assert re.search(r"IDs *\n", told)
    assert "500.0" not in told


def test_a_zip_of_annotations_and_frames_is_evaluated_like_its_folder(truth: Path, tmp_path: Path) -> None:
    folder = truth.parent if truth.is_file() else truth
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))
    written = tmp_path / "numbers.json"
    arguments = ["evaluate", "model", "toy", "--data", archive, "--json", written, "--workers", 2]
    assert called(*arguments) == 0
    assert json.loads(written.read_text()) == evaluate(Toy(), truth)


@pytest.mark.parametrize(
    ("about", "row"),
    [
        ({"step": "1200"}, "ours (last, step 1200)"),
        ({"validation": '{"step": 500, "AP": 0.25}', "step": "1200"}, "ours (best, step 500)"),
        ({"step": "[]", "validation": '"best"'}, "ours"),
    ],
)
def test_the_table_says_which_weights_of_a_training_were_measured(
    truth: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    about: dict[str, str],
    row: str,
) -> None:
    file = tmp_path / "model.safetensors"
    save_model(file, {"weight": torch.zeros(1)}, about)
    monkeypatch.setattr(weights, "find", lambda name: file)
    assert called("evaluate", "model", "toy", "--data", truth, "--workers", 1, "--markdown") == 0
    assert f"| {row} |" in capsys.readouterr().out


def test_the_papers_figures_stand_below_ours(truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", "model", "toy", "--data", truth, "--workers", 1, "--as", "compfeat/table5/baseline"]
    assert called(*arguments, "--markdown") == 0
    head, _, ours, paper = capsys.readouterr().out.strip().splitlines()
    assert head == "|  | AP | AP50 | AP75 | AR1 | AR10 |"
    assert ours.startswith("| ours | ")
    assert paper == "| paper | 32.2 | 52.1 | 34.6 | 31.8 | 37.2 |"


def test_an_evaluation_of_a_recipe_reads_the_video_as_it_says(truth: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "model", "toy", "--data", truth, "--workers", 1, "--out", tmp_path / "out"]
    assert called(*arguments, "--as", "ifr/table1/swin-l/table4/T2") == 0
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert "length=2" in settings["window"]
    assert settings["top"] == 10


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--as", "table4/T3"], "unknown evaluation 'table4/T3'; did you mean 'table4/T"),
        (["--metrics", "app"], "unknown metric 'app'; did you mean 'ap'"),
        (["--resume"], "expected --out DIR too"),
        (["--window", "lenght=2"], "did you mean 'length'"),
    ],
)
def test_a_wrong_word_is_one_line(
    truth: Path, extra: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("evaluate", "model", "toy", "--data", truth, "--workers", 1, *extra) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_truth_that_cannot_be_measured_against_is_one_line(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = json.loads(truth.read_text())
    for name, change, message in (
        ("hidden", {"annotations": None}, "annotations are kept back"),
        ("bare", {"annotations": []}, "none of its 3 videos has an annotated object"),
        ("empty", {"videos": [], "annotations": []}, "neither YouTube-VIS nor COCO"),
    ):
        path = truth.parent / f"{name}.json"
        path.write_text(json.dumps(tree | change))
        assert called("evaluate", "model", "toy", "--data", path, "--workers", 1) == 2
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1


def test_missing_frames_and_other_classes_are_noticed_before_the_work(
    truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = json.loads(truth.read_text())
    tree["categories"][0]["name"] = "cow"
    truth.write_text(json.dumps(tree))
    assert called("evaluate", "model", "toy", "--data", truth, "--workers", 1) == 2
    assert "no certain map of the 4 classes" in capsys.readouterr().err
    (truth.parent / "JPEGImages").rename(truth.parent / "elsewhere")
    assert called("evaluate", "model", "toy", "--data", truth, "--workers", 1) == 2
    assert "its frames are expected in" in capsys.readouterr().err
    arguments = ["--workers", 1, "--frames", truth.parent / "elsewhere"]
    assert called("evaluate", "model", "toy", "--data", truth, *arguments) == 2
    assert "no certain map" in capsys.readouterr().err


def test_classes_that_the_model_does_not_know_are_said(truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = json.loads(truth.read_text())
    tree["categories"].append({"id": 9, "name": "cow"})
    truth.write_text(json.dumps(tree))
    assert called("evaluate", "model", "toy", "--data", truth, "--workers", 1) == 0
    assert "does not know 1 of the truth's 5 classes: cow" in capsys.readouterr().err


# names of evaluations


def test_a_recipe_of_query_models_is_tested_with_the_pairs_of_its_paper() -> None:
    assert own_evaluation(recipes.find("ifr/table1/r50")).top == 10
    window = own_evaluation(recipes.find("compfeat/table4/random-2")).window
    assert window is not None
    assert window.context == 4
    assert own_evaluation(recipes.find("sta/ytvis2019")).paper["AP"] == 40.0


def test_an_evaluation_that_several_rows_share_has_no_figures_unless_the_row_is_known() -> None:
    assert find_evaluation("table4/T2").evaluation.paper == {}
    assert find_evaluation("table4/T2", "ifr/table2/swin-l").evaluation.paper == {"AP": 56.6}
    with pytest.raises(ConfigError, match="did you mean"):
        find_evaluation("table4/T2x")


# predict


def test_predict_takes_all_videos_of_a_data_set(truth: Path, tmp_path: Path) -> None:
    for number, source in enumerate((truth, truth.parent)):
        out = tmp_path / f"out{number}"
        assert called("predict", source, "--model", "toy", "--out", out, "--no-video") == 0
        with (out / "summary.csv").open(newline="") as file:
            rows = {row["folder"]: row["objects"] for row in csv.DictReader(file)}
        assert rows == {"00001-7": "2", "00002-8": "1", "00003-9": "2"}
        assert (out / "00001-7" / "contact_sheet.png").is_file()
        (video,) = ytvis.read_tables(out / "00001-7" / "predictions.json").videos
        assert len(video) == 3


def test_a_folder_of_images_is_still_a_video(truth: Path, tmp_path: Path) -> None:
    frames = truth.parent / "JPEGImages" / "7"
    (frames / "notes.json").write_text(truth.read_text())
    assert called("predict", frames, "--model", "toy", "--out", tmp_path / "out", "--no-video") == 0
    assert (tmp_path / "out" / "predictions.json").is_file()


def test_class_maps_of_a_data_set_are_refused(truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("predict", truth, "--model", "toy", "--semantic") == 2
    assert "one video at a time" in capsys.readouterr().err
