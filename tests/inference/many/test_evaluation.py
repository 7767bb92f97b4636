"""An evaluation on disk: kills, restarts, workers, and what a folder refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

import batch_models
from patch_sets import write_patch_set
from toy import Toy
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.protocol import VideoSegmenter
from tubelet.inference.evaluate import evaluate
from tubelet.inference.many.batch import MOST_TRIES, Settings, VideoJob, VideoOutcome
from tubelet.inference.many.evaluation import evaluate_jobs, in_this_process, jobs_of_set, predict_for_evaluation
from tubelet.inference.many.workers import share

SETTINGS = Settings(model="toy", threshold=0, video=False)
TESTS = Path(batch_models.__file__).parent


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write_patch_set(tmp_path / "set")


def open_toy(device: str) -> Toy:
    return Toy()


def here(folder: Path, jobs: Sequence[VideoJob]) -> Iterator[VideoOutcome]:
    return in_this_process(jobs, open_toy, folder, SETTINGS, "cpu")


def run(truth: Path, folder: Path, settings: Settings = SETTINGS, *, resume: bool = False) -> dict[str, float]:
    return evaluate_jobs(jobs_of_set(truth), folder, settings, partial(here, folder), resume=resume)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_gives_the_numbers_of_memory(truth: Path, tmp_path: Path) -> None:
    assert run(truth, tmp_path / "out") == evaluate(Toy(), truth)
    assert sorted(tree(tmp_path / "out")) == [
        "metrics.json",
        "predictions.json",
        "settings.json",
        "videos/00001-7.json",
        "videos/00002-8.json",
        "videos/00003-9.json",
    ]


def test_chosen_classes_give_the_numbers_of_memory_too(truth: Path, tmp_path: Path) -> None:
    settings = SETTINGS.but(classes=("green",))

    def outcomes(jobs: Sequence[VideoJob]) -> Iterator[VideoOutcome]:
        return in_this_process(jobs, open_toy, tmp_path / "out", settings, "cpu")

    numbers = evaluate_jobs(jobs_of_set(truth), tmp_path / "out", settings, outcomes)
    assert numbers == evaluate(Toy(), truth, classes=["green"])


KILLED = """
import sys
from functools import partial
from pathlib import Path
import batch_models
from tubelet.inference.many.batch import Settings
from tubelet.inference.many.evaluation import evaluate_jobs, in_this_process, jobs_of_set

truth, folder, fuses = map(Path, sys.argv[1:])
settings = Settings(model="toy", threshold=0, video=False)
open_model = partial(batch_models.open_fatal, str(fuses))
jobs = jobs_of_set(truth)
evaluate_jobs(jobs, folder, settings, lambda left: in_this_process(left, open_model, folder, settings, "cpu"))
"""


def test_a_kill_costs_one_video_and_changes_no_number(truth: Path, tmp_path: Path) -> None:
    (tmp_path / "fuses").mkdir()
    (tmp_path / "fuses" / "1").touch()
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(truth), str(out), str(tmp_path / "fuses")]
    assert subprocess.run(command, cwd=TESTS, check=False).returncode == -9
    assert sorted(path.name for path in (out / "videos").glob("*.json")) == ["00001-7.json", "00002-8.json"]
    written = (out / "videos" / "00001-7.json").stat().st_mtime_ns

    numbers = run(truth, out, resume=True)
    assert (out / "videos" / "00001-7.json").stat().st_mtime_ns == written
    assert numbers == run(truth, tmp_path / "whole")
    assert tree(out) == tree(tmp_path / "whole")


def test_counts_of_tries_of_runs_that_were_killed_go(truth: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    numbers = run(truth, out)
    whole = tree(out)
    paths = sorted((out / "videos").glob("*.json"))
    paths[0].with_suffix(".tries").write_bytes(b".")  # killed when its video was finished
    paths[1].with_suffix(".tries").write_bytes(b"...")
    paths[1].unlink()
    assert run(truth, out, resume=True) == numbers
    assert tree(out) == whole


def test_two_workers_of_which_one_is_killed_write_what_one_process_does(truth: Path, tmp_path: Path) -> None:
    (tmp_path / "fuses").mkdir()
    (tmp_path / "fuses" / "1").touch()
    open_model = partial(batch_models.open_fatal, str(tmp_path / "fuses"))
    out = tmp_path / "two"

    def workers(jobs: Sequence[VideoJob]) -> Iterator[VideoOutcome]:
        return share(jobs, open_model, out, SETTINGS, ["cpu"] * 2, predict_for_evaluation)

    numbers = evaluate_jobs(jobs_of_set(truth), out, SETTINGS, workers)
    assert not list((tmp_path / "fuses").iterdir()), "a worker was killed in mid-video"
    assert numbers == run(truth, tmp_path / "one")
    assert tree(out) == tree(tmp_path / "one")


def test_a_folder_is_gone_on_with_only_when_asked(truth: Path, tmp_path: Path) -> None:
    numbers = run(truth, tmp_path / "out")
    with pytest.raises(InputError, match="--resume goes on with it"):
        run(truth, tmp_path / "out")
    assert run(truth, tmp_path / "out", resume=True) == numbers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top": 5}, "top was null when this evaluation began, now it is 5"),
        ({"window": ("length=2",)}, "window was .* now it is"),
        ({"model": "another"}, "this evaluation began with another model"),
    ],
)
def test_other_settings_are_refused(truth: Path, tmp_path: Path, change: dict[str, object], message: str) -> None:
    run(truth, tmp_path / "out")
    with pytest.raises(ConfigError, match=message):
        run(truth, tmp_path / "out", SETTINGS.but(**change), resume=True)


def test_another_truth_is_refused(truth: Path, tmp_path: Path) -> None:
    run(truth, tmp_path / "out")
    tree = json.loads(truth.read_text())
    tree["annotations"].pop()
    truth.write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match="another truth"):
        run(truth, tmp_path / "out", resume=True)


def test_a_video_that_cannot_be_predicted_leaves_the_rest_finished_and_measures_nothing(
    truth: Path, tmp_path: Path
) -> None:
    frame = truth.parent / "JPEGImages" / "8" / "00001.png"
    pixels = frame.read_bytes()
    frame.write_bytes(b"no image")
    with pytest.raises(InputError, match="1 of 3 videos cannot be predicted, so nothing is measured"):
        run(truth, tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()

    frame.write_bytes(pixels)
    assert run(truth, tmp_path / "out", resume=True) == run(truth, tmp_path / "whole")


def test_a_video_that_always_ends_its_worker_is_given_up(truth: Path, tmp_path: Path) -> None:
    job = jobs_of_set(truth)[0]
    tries = tmp_path / "videos" / f"{job.name}.tries"
    tries.parent.mkdir()
    tries.write_bytes(b"." * MOST_TRIES)
    model: VideoSegmenter[object] = Toy()
    outcome = predict_for_evaluation(model, job, tmp_path, SETTINGS)
    assert outcome.status == "failed"
    assert "ended 3 times" in outcome.note
