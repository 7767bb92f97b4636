"""The command line as a user meets it: what it writes, what it says, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edited import SIZE, scene
from toy import Toy, moving_patches
from tubelet.apps import console
from tubelet.apps.cli import call, separated
from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Window
from tubelet.inference import predict as inference
from tubelet.models import weights
from tubelet.video.writer import ImageWriter, VideoWriter

HEAVY = ("torch", "torchvision", "timm", "av", "cv2", "matplotlib", "numpy", "scipy", "rich.console")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    """Stands in for every model that the command loads."""
    model = Toy()
    monkeypatch.setattr(weights, "load", lambda name="default", **how: model)
    return model


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "two patches.mp4"
    with VideoWriter(path, (48, 64), 10) as writer:
        for frame in moving_patches(6):
            writer.write(frame)
    return path


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_predict_writes_its_files_and_says_what_it_found(
    toy: Toy, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["predict", str(video), "--out", str(tmp_path / "out")]) == 0
    assert listing(tmp_path / "out") == ["contact_sheet.png", "overlay.mp4", "predictions.json"]
    told = capsys.readouterr()
    lines = [line.split() for line in told.out.splitlines()]
    assert ["0", "red", "0.90", "6"] in lines
    assert ["1", "blue", "0.90", "6"] in lines
    for name in listing(tmp_path / "out"):
        assert str(tmp_path / "out" / name) in told.out
    assert told.err == ""


def test_results_go_to_runs_where_no_folder_is_named(
    toy: Toy, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["predict", str(video), "--no-video"]) == 0
    assert listing(tmp_path / "runs" / "two patches") == ["contact_sheet.png", "predictions.json"]


def test_nothing_found_is_said(toy: Toy, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.confidence = 0.3
    assert call(["predict", str(video), "--out", str(tmp_path / "out"), "--no-video"]) == 0
    assert "no object with a score of 0.5 or more in 6 frames" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["annotations"] == []


@pytest.mark.parametrize("form", ["--window length=4 stride=2", "--window length=4 --window stride=2"])
def test_a_window_is_given_as_pairs(toy: Toy, video: Path, tmp_path: Path, form: str) -> None:
    assert call(["predict", *form.split(), str(video), "--out", str(tmp_path / "out"), "--no-video"]) == 0
    assert toy.steps == [[0, 1, 2, 3], [2, 3, 4, 5]]


def test_only_pairs_after_a_window_belong_to_it() -> None:
    typed = ["train", "default", "optim.lr=1", "data.split=a"]
    assert separated(typed) == typed
    assert separated(["--overlay", "a=1", "--window", "b=2", "c=3"]) == [
        *("--overlay", "a=1", "--window", "b=2", "--window", "c=3")
    ]
    assert separated(["--window", "a=1", "b=2", "c", "d=3"]) == ["--window", "a=1", "--window", "b=2", "c", "d=3"]


def test_an_overlay_is_drawn_as_asked(toy: Toy, video: Path, tmp_path: Path) -> None:
    for name, style in {"plain": [], "bare": ["--overlay", "masks=false", "labels=false"]}.items():
        assert call(["predict", str(video), *style, "--out", str(tmp_path / name)]) == 0
    sheets = [(tmp_path / name / "contact_sheet.png").read_bytes() for name in ("plain", "bare")]
    assert sheets[0] != sheets[1]


def test_several_videos_get_a_folder_each(
    toy: Toy, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "second.mp4").write_bytes(video.read_bytes())
    out = tmp_path / "out"
    assert call(["predict", str(video), str(tmp_path / "films"), "--out", str(out), "--no-video"]) == 0
    assert {"second", "summary.csv", "two_patches"} <= set(listing(out))
    assert "contact_sheet.png" in listing(out / "second")
    assert call(["predict", str(tmp_path / "*" / "*.mp4"), "--out", str(tmp_path / "again"), "--no-video"]) == 0
    assert (tmp_path / "again" / "predictions.json").exists(), "a pattern of one video is that video"


def test_images_are_one_video_whether_the_shell_or_we_resolve_the_pattern(toy: Toy, tmp_path: Path) -> None:
    with ImageWriter(tmp_path / "shots") as writer:
        for frame in moving_patches(3):
            writer.write(frame)
    images = sorted(str(path) for path in (tmp_path / "shots").glob("*.png"))
    for name, sources in {"shell": images, "ours": [str(tmp_path / "shots" / "*.png")]}.items():
        assert call(["predict", *sources, "--out", str(tmp_path / name), "--no-video"]) == 0
        document = json.loads((tmp_path / name / "predictions.json").read_text())
        assert (document["videos"][0]["length"], document["videos"][0]["name"]) == (3, "shots")


def test_classes_a_region_and_a_part_are_chosen_by_options(toy: Toy, video: Path, tmp_path: Path) -> None:
    chosen = [
        "--classes",
        "red, green",
        "--roi",
        "0,0 64,0 64,48 0,48",
        "--start",
        "0.1",
        "--end",
        "0.5",
        "--every",
        "2",
    ]
    assert call(["predict", str(video), *chosen, "--out", str(tmp_path / "out"), "--no-video"]) == 0
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert document["videos"][0]["length"] == 2
    assert [annotation["category_id"] for annotation in document["annotations"]] == [1]


def test_lines_and_zones_are_counted(toy: Toy, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = ["--line", "door=20,0,20,48", "--line", "0,24,64,24", "--zone", "left=0,0 32,0 32,48 0,48"]
    assert call(["predict", str(video), *shapes, "--out", str(tmp_path / "out"), "--no-video"]) == 0
    assert {"counts.csv", "crossings.csv", "zones.csv"} <= set(listing(tmp_path / "out"))
    told = capsys.readouterr().out
    assert "door: 1 red in, 0 out" in told
    assert "left: blue 1 for" in told
    assert str(tmp_path / "out" / "zones.csv") in told


def test_a_stream_tells_its_counts(toy: Toy, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["stream", str(video), "--json", "--line", "door=20,0,20,48", "--zone", "all=0,0,64,0,64,48,0,48"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["lines"] == {"door": {"in": 1, "out": 0}}
    assert lines[0]["zones"] == {"all": 2}
    assert [crossing["name"] for line in lines for crossing in line["crossings"]] == ["red"]


def test_a_stream_shows_the_chosen_classes(toy: Toy, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["stream", str(video), "--json", "--classes", "blue", "--every", "3"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["names"] for line in lines] == [["blue"], ["blue"]]


FAULTS = {
    "a missing file": (["predict", "nowhere.mp4"], "nowhere.mp4: no such file or folder"),
    "text called mp4": (["predict", "text.mp4"], "text.mp4: not a video that can be read"),
    "an empty folder": (["predict", "empty"], "empty: neither videos nor folders of images in it"),
    "images of different sizes": (["predict", "mixed"], "64x48"),
    "a camera": (["predict", "0"], "0: a live source has no end"),
    "an unknown key of the window": (["predict", "video.mp4", "--window", "lenght=2"], "did you mean 'length'?"),
    "a wrong value of the window": (["predict", "video.mp4", "--window", "length=0"], "greater than or equal to 1"),
    "a window with gaps": (["predict", "video.mp4", "--window", "length=2", "stride=3"], "leaves out frames"),
    "an unknown part of an overlay": (["predict", "video.mp4", "--overlay", "lables=false"], "did you mean 'labels'?"),
    "an unknown class": (["predict", "video.mp4", "--classes", "rde,blue"], "no class 'rde'; did you mean 'red'?"),
    "no class": (["predict", "video.mp4", "--classes", ","], "expected class names such as person,dog"),
    "a polygon of two points": (["predict", "video.mp4", "--roi", "0,0,5,5"], "--roi: a polygon needs three points"),
    "no polygon": (["stream", "video.mp4", "--json", "--roi", "left"], "--roi: expected points in pixels"),
    "a line of three points": (["predict", "video.mp4", "--line", "0,0,1,1,2,2"], "a line needs two different points"),
    "a zone of two points": (["predict", "video.mp4", "--zone", "door=0,0,1,1"], "zone 'door': a polygon needs three"),
    "one name twice": (["predict", "video.mp4", "--line", "a=0,0,1,1", "--line", "a=0,0,2,2"], "'a' is used twice"),
    "an unknown anchor": (["predict", "video.mp4", "--line", "0,0,1,1", "--anchor", "top"], "anchor"),
    "a part after the end": (["predict", "video.mp4", "--start", "9"], "no frame from 9 s on"),
    "a pattern of nothing": (["predict", "films/*.mp4"], "films/*.mp4: no file matches"),
    "an address among videos": (["predict", "video.mp4", "http://127.0.0.1:9/a.mp4"], "is predicted by itself"),
    "an address of nobody": (["predict", "http://127.0.0.1:9/a.mp4"], "cannot be fetched"),
    "maps of several videos": (["predict", "video.mp4", "text.mp4", "--semantic"], "one video at a time"),
    "a threshold over one": (["predict", "video.mp4", "--threshold", "2"], "--threshold"),
    "a context that no memory holds": (["predict", "video.mp4", "--window", "context=99999999"], "less than or equal"),
    "frames to decode under none": (["data", "check", "empty", "--decode", "-1"], "--decode"),
    "a form without a name": (["data", "check", "empty", "--form", ""], "no form ''"),
    "a list of videos that is no text": (["batch", "--list", "mixed", "--out", "out"], "found a folder"),
    "a device as a video": (["batch", "/dev/null", "--out", "out"], "found a device"),
    "an unknown command": (["predcit", "video.mp4"], "Did you mean 'predict'"),
    "an unknown option": (["predict", "video.mp4", "--thresold", "1"], "--threshold"),
    "no source": (["predict"], "Missing argument 'SOURCE ...'"),
    "an unknown list": (["list", "modles"], "'recipes', 'models', 'backbones'"),
    "an unknown purpose": (["list", "models", "--for", "phone"], "'cpu', 'gpu', 'commercial'"),
    "a purpose of recipes": (["list", "recipes", "--for", "cpu"], "--for: expected with models, got recipes"),
    "an unknown recipe": (["train", "defualt", "--out", "out"], "did you mean 'default'?"),
    "an unknown key of a recipe": (["train", "default", "optim.lrr=1", "--out", "out"], "did you mean 'lr'?"),
    "a value of the wrong type": (["train", "default", "optim.lr=fast", "--out", "out"], "optim"),
    "a result folder that is a file": (["predict", "video.mp4", "--out", "text.mp4"], "found a file"),
}


@pytest.mark.parametrize(("arguments", "told"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_of_the_user_is_one_line_and_exit_code_2(
    arguments: list[str],
    told: str,
    toy: Toy,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video.rename(tmp_path / "video.mp4")
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    (tmp_path / "empty").mkdir()
    for size in ((48, 64), (40, 64)):
        with ImageWriter(tmp_path / f"of {size[0]}") as writer:
            writer.write(np.zeros((*size, 3), np.uint8))
    (tmp_path / "mixed").mkdir()
    (tmp_path / "of 48" / "00000.png").rename(tmp_path / "mixed" / "0.png")
    (tmp_path / "of 40" / "00000.png").rename(tmp_path / "mixed" / "1.png")
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path)
    assert call(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("tubelet: ")
    assert said.count("\n") == 1
    assert told in said
    assert listing(tmp_path) == before


def test_a_truncated_video_is_predicted_as_far_as_it_goes_and_that_is_said(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole.mkv"
    with VideoWriter(whole, (48, 64), 10) as writer:
        for frame in moving_patches(60):
            writer.write(frame)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert call(["predict", str(tmp_path / "cut.mkv"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert said.startswith("tubelet: ")
    assert "cut.mkv" in said
    assert "kept" in said
    length = json.loads((tmp_path / "out" / "predictions.json").read_text())["videos"][0]["length"]
    assert 10 < length < 60


class Stops(Toy):
    """Comes as far as the fourth frame."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def step(self, state: Any, clip: Any) -> Any:
        if int(clip.index[0]) == 3:
            raise self.error
        return super().step(state, clip)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "tubelet: interrupted; nothing half-written is left\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out"), 2, "tubelet: out: no space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 2, "tubelet: out: permission denied\n"),
    ],
)
def test_an_interruption_is_one_line_and_leaves_nothing(
    error: BaseException,
    code: int,
    said: str,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(weights, "load", lambda name, **how: Stops(error))
    assert call(["predict", str(video), "--out", str(tmp_path / "out")]) == code
    assert capsys.readouterr().err == said
    assert listing(tmp_path) == [video.name]


def test_a_fault_of_ours_keeps_its_traceback(video: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "load", lambda name, **how: Stops(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        call(["predict", str(video), "--out", str(tmp_path / "out")])


def test_a_long_message_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ConfigError("first\n  second\n" + "long " * 100)

    assert console.run(fail) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_lists_name_what_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["list", "recipes"]) == 0
    assert "default" in capsys.readouterr().out
    assert call(["list", "backbones"]) == 0
    assert {"resnet50", "mobilenetv2_100", "tf_efficientnet_lite0"} <= set(capsys.readouterr().out.split())
    assert call(["list", "models"]) == 0
    assert "model" in capsys.readouterr().out


def test_models_are_listed_by_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    def names(*purposes: str) -> set[str]:
        options = [part for purpose in purposes for part in ("--for", purpose)]
        assert call(["list", "models", *options]) == 0
        words = capsys.readouterr().out.split()
        return {word for word in words if "/" in word or word == "default"}

    assert {"default", "Roboflow/rf-detr-seg-nano"} <= names("cpu")
    assert "default" not in names("gpu")
    assert not [name for name in names("commercial") if name.startswith(("facebook/", "shivalikasingh/"))]
    assert names("gpu", "commercial") == names("gpu") & names("commercial")
    assert names("cpu") | names("gpu") == names()


def test_help_and_version_import_nothing_heavy() -> None:
    script = (
        "import sys; from tubelet.apps.cli import call; call(['--help']); call(['predict', '--help']); "
        f"call(['train', '--help']); print([name for name in {HEAVY} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_all_commands_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--help"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    commands = {"predict", "demo", "train", "evaluate", "synth", "list", "data", "report", "submission"}
    assert commands <= set(listed)


SLOW = """
import signal, sys
sys.path.insert(0, sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background are started without it
import time, types
from toy import Toy
from tubelet.apps import cli

class Slow(Toy):
    def step(self, state, clip):
        print("step", flush=True)
        time.sleep(0.05)
        return super().step(state, clip)

# not the room of models itself, which takes seconds to import
sys.modules["tubelet.models.weights"] = types.SimpleNamespace(load=lambda name, **how: Slow())
sys.argv = ["tubelet", "predict", sys.argv[2], "--out", sys.argv[3]]
cli.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_the_program_and_leaves_nothing(tmp_path: Path, video: Path) -> None:
    tests = Path(__file__).resolve().parents[1]
    ran = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tests), str(video), str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert ran.stdout is not None
    assert ran.stdout.readline() == "step\n"
    ran.send_signal(signal.SIGINT)
    _, said = ran.communicate(timeout=120)
    assert ran.returncode == 130
    assert said == "tubelet: interrupted; nothing half-written is left\n"
    assert listing(tmp_path) == [video.name]


def test_a_request_to_end_unwinds_like_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        console.catch_termination()
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143


def test_the_window_of_the_model_is_what_pairs_change(toy: Toy, video: Path, tmp_path: Path) -> None:
    toy.window = Window(length=3, stride=3)
    call(["predict", str(video), "--out", str(tmp_path / "out"), "--no-video", "--window", "stride=2"])
    assert toy.steps == [[0, 1, 2], [2, 3, 4], [3, 4, 5]]


def test_predict_is_the_library_s(toy: Toy, video: Path, tmp_path: Path) -> None:
    call(["predict", str(video), "--out", str(tmp_path / "out"), "--no-video"])
    by_hand = inference.predict(Toy(), video)
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())["annotations"]
    assert [entry["score"] for entry in written] == [track.score for track in by_hand.tracks]


def test_shots_are_written_unless_cuts_are_not_looked_for(toy: Toy, tmp_path: Path) -> None:
    path = tmp_path / "edited.mp4"
    with VideoWriter(path, SIZE, 10) as writer:
        for frame in [*scene(0, 4), *scene(1, 3)]:
            writer.write(frame)
    for arguments, shots in (([], [0, 4]), (["--no-cuts"], None)):
        assert call(["predict", str(path), "--out", str(tmp_path / "out"), "--no-video", *arguments]) == 0
        (video,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["videos"]
        assert video.get("shots") == shots
