"""Names that are no text, and text that is no name: every command that shows or writes them, from the outside."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from toy import Toy, moving_patches
from tubelet.apps import console
from tubelet.apps.cli import call
from tubelet.core.errors import ConfigError
from tubelet.drawing.labels import label
from tubelet.formats import ytvis
from tubelet.models import weights
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import write
from tubelet.video.writer import VideoWriter

BAD = os.fsdecode(b"old\xff")  # a name that is not UTF-8, as Python holds it
SHOWN = r"old\xff"
WILD = "\x1b[31m\r\n" + "x" * 100_000
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    model = Toy()
    monkeypatch.setattr(weights, "load", lambda name="default", **how: model)
    return model


@pytest.fixture
def video(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / f"{BAD}.mp4", (48, 64), 10) as writer:
        for frame in moving_patches(3):
            writer.write(frame)
    return tmp_path / f"{BAD}.mp4"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A small data set in a folder of such a name."""
    write(tmp_path / BAD, Synthetic().override("frames=2", "height=48", "width=64"), 0, 3)
    return tmp_path / BAD


@pytest.fixture
def answers(videos: Path, tmp_path: Path) -> Path:
    tree = json.loads((videos / "instances.json").read_text())
    kept = ("video_id", "category_id", "segmentations")
    listed = [{**{key: entry[key] for key in kept}, "score": 0.9} for entry in tree["annotations"]]
    (tmp_path / f"{BAD}.json").write_text(json.dumps(listed))
    return tmp_path / f"{BAD}.json"


def run(*arguments: object) -> int:
    return call([str(argument) for argument in arguments])


def test_a_video_of_any_name_is_predicted_and_saved(
    toy: Toy, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.classes = (BAD, *Toy.classes[1:])
    out = tmp_path / f"out-{BAD}"
    assert run("predict", video, "--out", out, "--semantic") == 0
    tree = msgspec.json.decode((out / "predictions.json").read_bytes())
    assert tree["videos"][0]["name"] == SHOWN
    assert tree["categories"][0]["name"] == SHOWN
    assert msgspec.json.decode((out / "semantic" / "classes.json").read_bytes())["1"] == SHOWN
    told = capsys.readouterr()
    told.out.encode()
    assert f"out-{SHOWN}/overlay.mp4" in told.out


def test_many_videos_of_any_name(video: Path, tmp_path: Path) -> None:
    from tubelet.apps.batch import command as batch
    from tubelet.inference.many.batch import VideoOutcome

    outcomes = [VideoOutcome(video=str(video), folder="old_", status="failed", note=f"{video}: broken")]
    batch.write_summary(tmp_path / "out", outcomes)
    with (tmp_path / "out" / "summary.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["video"] == str(tmp_path / f"{SHOWN}.mp4")


def test_data_sets_in_folders_of_any_name(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"more-{BAD}"
    assert run("data", "split", videos, "--out", out) == 0
    for form in ("ytvis", "davis", "mots", "coco-video", "cvat", "png"):
        assert run("data", "convert", videos, out / form, "--to", form) == 0
        assert run("data", "stats", out / form) == 0
    assert run("data", "browse", videos, "--out", out / "sheets", "--videos", 1) == 0
    capsys.readouterr().out.encode()


def test_videos_of_any_name_go_from_form_to_form(videos: Path, tmp_path: Path) -> None:
    davis = tmp_path / "davis"
    assert run("data", "convert", videos, davis, "--to", "davis") == 0
    for part in ("JPEGImages", "Annotations"):
        first = min((davis / part).iterdir())
        first.rename(first.with_name(BAD))
    for form in ("ytvis", "mots", "coco-video", "cvat", "png"):
        assert run("data", "convert", davis, tmp_path / form, "--to", form) == 0
        assert run("data", "check", tmp_path / form) == 0
    ids = [entry["name"] for entry in json.loads((tmp_path / "ytvis" / "instances.json").read_text())["videos"]]
    assert SHOWN in ids


def test_predictions_in_files_of_any_name(
    videos: Path, answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = videos / "instances.json"
    for form in ((), ("--markdown",), ("--latex",)):
        assert run("evaluate", "ytvis", truth, answers, "--json", tmp_path / BAD / "numbers.json", *form) == 0
    assert run("report", truth, answers, "--out", tmp_path / "report") == 0
    told = capsys.readouterr().out
    told.encode()
    assert SHOWN in told
    assert SHOWN in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_in_a_c_locale_nothing_fails_either(videos: Path, answers: Path, tmp_path: Path) -> None:
    truth = tmp_path / "ü.json"
    truth.write_text((videos / "instances.json").read_text().replace('"name":"', '"name":"ü'), encoding="utf-8")
    command = [sys.executable, "-m", "tubelet", "evaluate", "ytvis", truth, answers, "--details", "--json", "ö.json"]
    environment = {**{k: v for k, v in os.environ.items() if k != "LANG"}, **C_LOCALE}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert rb"\xfc" in done.stdout
    assert any(name.startswith("ü") for name in json.loads((tmp_path / "ö.json").read_text("utf-8"))["classes"])


# the terminal


@pytest.mark.parametrize("show", [console.say, console.show, lambda text: console.show(told_in_a_table(text))])
def test_nothing_wild_reaches_the_terminal(show: Callable[[str], object], capsys: pytest.CaptureFixture[str]) -> None:
    show(WILD)
    told = capsys.readouterr()
    shown = told.out + told.err
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert max(map(len, shown.splitlines())) <= 10_000


def told_in_a_table(text: str) -> Any:
    return console.rows_of(console.table("name"), [(text,)])


def test_faults_warnings_and_logs_are_escaped_and_cut(capsys: pytest.CaptureFixture[str]) -> None:
    import logging
    import warnings

    def fail() -> None:
        warnings.warn(f"warned {WILD}", UserWarning, stacklevel=1)
        logging.getLogger("tubelet.test").warning("logged %s", WILD)
        raise ConfigError(f"failed {WILD}: no such thing")

    assert console.run(fail) == 2
    lines = capsys.readouterr().err.split("\n")
    assert [line.split()[1] for line in lines[:-1]] == ["warned", "logged", "failed"]
    assert all(line.isprintable() and len(line) < 1100 for line in lines)
    assert lines[2].endswith(": no such thing")


def test_ids_of_a_file_are_escaped_in_what_is_said_of_it(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = json.loads((videos / "instances.json").read_text())
    tree["videos"][0]["name"] = WILD
    tree["categories"][0]["name"] = WILD
    (tmp_path / "wild.json").write_text(json.dumps(tree))
    for command in (["data", "check"], ["data", "stats"]):
        run(*command, tmp_path / "wild.json")
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert max(map(len, (told.out + told.err).splitlines())) < 1200


def test_a_caption_is_one_line_of_what_can_be_drawn() -> None:
    assert np.array_equal(label("\x1b", 12, (0, 0, 0)), label(r"\x1b", 12, (0, 0, 0)))
    assert label(WILD, 12, (0, 0, 0)).shape[1] < 1000
    label("\udcff\ud800", 12, (0, 0, 0))


# what belongs together


def test_equal_predictions_are_equal_submissions(
    videos: Path, answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = videos / "instances.json"
    packed = []
    for n, time in enumerate((1e9, 1.7e9)):
        monkeypatch.setattr("time.time", lambda time=time: time)
        mask = os.umask(0o077 if n else 0o022)
        assert run("submission", answers, "--out", tmp_path / f"{n}.zip", "--truth", truth) == 0
        os.umask(mask)
        packed.append((tmp_path / f"{n}.zip").read_bytes())
    assert packed[0] == packed[1]
    with zipfile.ZipFile(tmp_path / "0.zip") as archive:
        assert archive.testzip() is None
        assert archive.infolist()[0].external_attr >> 16 == 0o644


def test_a_split_appears_whole_or_not_at_all(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = ytvis.write_set

    def full(path: Path, part: Any, **how: object) -> None:
        if path.name == "val.json":
            raise OSError(28, "No space left on device")
        real(path, part, **how)

    monkeypatch.setattr(ytvis, "write_set", full)
    before = sorted(videos.iterdir())
    assert run("data", "split", videos) == 2
    assert "cannot be written (no space left on device)" in capsys.readouterr().err
    assert sorted(videos.iterdir()) == before


@pytest.mark.parametrize(
    "command",
    [
        "predict missing.mp4 --out /proc/x",
        "batch missing.mp4 --out /proc/x",
        "attend missing.mp4 --model missing --at 1,1 --out /proc/x",
        "train small/masktrack --out /proc/x",
        "synth /proc/x",
        "export missing --out /proc/x/net.pt2",
        "data convert missing /proc/x --to png",
        "data split missing --out /proc/x",
        "data browse missing --out /proc/x",
        "data stats missing --out /proc/x/a.png",
        "evaluate ytvis missing missing --json /proc/x/a.json",
        "evaluate davis missing missing --json /proc/x/a.json",
        "evaluate identity missing missing --curve /proc/x/a.svg",
        "evaluate semantic missing missing --json /proc/x/a.json",
        "evaluate failures missing missing --json /proc/x/a.json",
        "report missing missing.json --out /proc/x",
        "submission missing --out /proc/x/a.zip",
        "bench vis --out /proc/x",
        "bench tables missing --pictures /proc/x",
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_read(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command.split()) == 2
    told = capsys.readouterr().err
    assert "/proc: cannot be written" in told
    assert told.count("\n") == 1
