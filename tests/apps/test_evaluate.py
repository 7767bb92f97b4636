"""`tubelet evaluate`, `report` and `submission` as a user meets them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tubelet.apps import cli
from tubelet.core import masks
from tubelet.core.types import Prediction, Track, Video, VideoSet
from tubelet.formats import ytvis

SIZE = (48, 64)
KEYS = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
KEYS += ["AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"]


def block(x: int) -> masks.RLE:
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 10:30, x : x + 16] = True
    return masks.encode(mask)[0]


LEFT, RIGHT = block(4), block(40)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Two videos of two objects, with frames."""
    videos = []
    for n in range(2):
        tracks = (
            Track(id=2 * n + 1, label=0, score=1.0, rles=(LEFT,) * 4),
            Track(id=2 * n + 2, label=1, score=1.0, rles=(RIGHT,) * 4),
        )
        videos.append(Video(id=str(n + 1), size=SIZE, frames=[None] * 4, tracks=tracks))
        for t in range(4):
            path = tmp_path / "JPEGImages" / str(n + 1) / f"{t:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE[::-1], (60, 90, 120)).save(path)
    ytvis.write_set(tmp_path / "truth.json", VideoSet(videos=videos, classes=("cow", "<dog>")))
    return tmp_path / "truth.json"


def answers(truth: Path, name: str, *, switched: bool) -> Path:
    """Perfect predictions, but for an identity switch in the first video."""
    held = []
    for video in ytvis.read(truth).videos:
        one, other = (replace(track, score=0.9) for track in video.tracks or ())
        if switched and video.id == "1":
            one = replace(one, rles=(LEFT, LEFT, RIGHT, RIGHT))
            other = replace(other, rles=(RIGHT, RIGHT, LEFT, LEFT))
        held.append(Prediction(video=video.id, size=SIZE, length=4, tracks=(one, other), classes=("cow", "<dog>")))
    path = truth.parent / f"{name}.json"
    ytvis.write_predictions(path, held)
    return path


def test_ytvis_prints_and_writes_the_twelve_numbers(truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = answers(truth, "good", switched=False)
    written = truth.parent / "deep" / "numbers.json"
    assert cli.call(["evaluate", "ytvis", str(truth), str(path), "--json", str(written)]) == 0
    numbers = json.loads(written.read_text())
    assert sorted(numbers) == sorted(KEYS)
    assert numbers["AP"] == pytest.approx(1)
    assert numbers["AP_large"] == -1
    told = capsys.readouterr().out
    assert all(key in told for key in KEYS)


def test_a_bare_list_and_the_data_set_form_give_the_same_numbers(truth: Path) -> None:
    path = answers(truth, "bad", switched=True)
    videos = ytvis.read(truth)
    bare = truth.parent / "bare.json"
    ytvis.write_results(bare, ytvis.read_predictions(path, videos), videos)
    for name, given in (("a", path), ("b", bare)):
        assert cli.call(["evaluate", "ytvis", str(truth), str(given), "--json", str(truth.parent / name)]) == 0
    assert (truth.parent / "a").read_text() == (truth.parent / "b").read_text()
    assert json.loads((truth.parent / "a").read_text())["AP"] < 1


def test_details_add_classes_and_thresholds(truth: Path) -> None:
    path, written = answers(truth, "good", switched=False), truth.parent / "n.json"
    assert cli.call(["evaluate", "ytvis", str(truth), str(path), "--details", "--json", str(written)]) == 0
    numbers = json.loads(written.read_text())
    assert list(numbers["classes"]) == ["cow", "<dog>"]
    assert list(numbers["thresholds"]) == [f"{0.5 + 0.05 * n:.2f}" for n in range(10)]


def test_long_videos_are_averaged_with_short_ones(truth: Path) -> None:
    path, written, long = answers(truth, "bad", switched=True), truth.parent / "n.json", truth.parent / "long.txt"
    long.write_text("2\n")
    arguments = ["evaluate", "ytvis", str(truth), str(path), "--long", str(long), "--json", str(written)]
    assert cli.call(arguments) == 0
    numbers = json.loads(written.read_text())
    assert numbers["AP_mean"] == pytest.approx((numbers["AP_short"] + numbers["AP_long"]) / 2)
    assert numbers["AP_long"] == pytest.approx(1)


def test_occlusion_is_reported_where_the_truth_states_it(truth: Path) -> None:
    tree = json.loads(truth.read_text())
    for annotation in tree["annotations"]:
        annotation["occlusion"] = ["no_occlusion"] * 4
    truth.write_text(json.dumps(tree))
    path, written = answers(truth, "good", switched=False), truth.parent / "n.json"
    assert cli.call(["evaluate", "ytvis", str(truth), str(path), "--json", str(written)]) == 0
    numbers = json.loads(written.read_text())
    assert (numbers["AP_SO"], numbers["AP_MO"], numbers["AP_HO"]) == (pytest.approx(1), -1, -1)


def test_identity_counts_the_switches(truth: Path) -> None:
    path, written, curve = answers(truth, "bad", switched=True), truth.parent / "n.json", truth.parent / "c.svg"
    arguments = ["evaluate", "identity", str(truth), str(path), "--sweep", "--curve", str(curve)]
    for form in ("--boxes", "--masks"):
        assert cli.call([*arguments, form, "--json", str(written)]) == 0
        numbers = json.loads(written.read_text())
        assert (numbers["IDs"], numbers["FP"], numbers["FN"]) == (2, 0, 0)
        assert numbers["MOTA"] == pytest.approx(1 - 2 / 16)
        assert {"IDF1", "IDP", "IDR", "HOTA", "DetA", "AssA"} <= set(numbers)
        assert list(numbers["sweep"]) == [f"{n / 20:.2f}" for n in range(1, 20)]
    assert curve.read_text().startswith("<svg")


def test_identity_by_the_rules_of_trackeval_says_so(truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, written = answers(truth, "bad", switched=True), truth.parent / "n.json"
    arguments = ["evaluate", "identity", str(truth), str(path), "--rules", "trackeval", "--details", "--markdown"]
    assert cli.call([*arguments, "--json", str(written)]) == 0
    numbers = json.loads(written.read_text())
    assert (numbers["rules"], numbers["IDs"], numbers["MT"]) == ("trackeval", 2, 4)
    assert list(numbers["classes"]) == ["cow", "<dog>", "class average", "detection average"]
    assert "| CLEAR (TrackEval) |" in capsys.readouterr().out

    assert cli.call(["evaluate", "identity", str(truth), str(path), "--rules", "hota"]) == 2
    assert "unknown rules 'hota'" in capsys.readouterr().err


def test_failures_are_listed_with_their_frames(truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, written = answers(truth, "bad", switched=True), truth.parent / "n.json"
    assert cli.call(["evaluate", "failures", str(truth), str(path), "--markdown", "--json", str(written)]) == 0
    told = json.loads(written.read_text())
    assert [(f["kind"], f["video"], f["frames"]) for f in told["failures"]] == [("identity switch", "1", [2])]
    assert "| identity switch | 1 | 100.0 | 100.0 |" in capsys.readouterr().out


def test_davis_measures_folders_of_label_maps(tmp_path: Path) -> None:
    labels = np.zeros((40, 50), np.uint8)
    labels[5:20, 5:20], labels[25:35, 30:45] = 1, 2
    for t in range(3):
        for name, shown in (("truth/Annotations/bear", labels), ("answer/bear", np.array([0, 2, 1], np.uint8)[labels])):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(shown).save(tmp_path / name / f"{t:05d}.png")
    written = tmp_path / "n.json"
    assert (
        cli.call(["evaluate", "davis", str(tmp_path / "truth"), str(tmp_path / "answer"), "--json", str(written)]) == 0
    )
    numbers = json.loads(written.read_text())
    assert (numbers["J&F"], numbers["J"], numbers["F"], numbers["J_recall"], numbers["J_decay"]) == (1, 1, 1, 1, 0)
    assert set(numbers["objects"]) == {"bear_1", "bear_2"}
    arguments = ["evaluate", "davis", str(tmp_path / "truth"), str(tmp_path / "answer"), "--semi-supervised"]
    assert cli.call([*arguments, "--json", str(written)]) == 0
    assert json.loads(written.read_text())["J"] == 0


def test_oracles_are_listed_by_themselves_and_together(truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, written = answers(truth, "bad", switched=True), truth.parent / "n.json"
    assert cli.call(["evaluate", "oracles", str(truth), str(path), "--markdown", "--json", str(written)]) == 0
    numbers = json.loads(written.read_text())
    assert numbers["AP"] < 1
    assert numbers["oracles"]["true identities"]["AP"] == pytest.approx(1)
    assert numbers["oracles"]["true classes"]["AP, all to here"] == pytest.approx(numbers["AP"])
    assert numbers["oracles"]["true scores"]["AP, all to here"] == pytest.approx(1)
    assert "| true identities | 100.0 | 100.0 |" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["ytvis", "identity", "failures", "oracles"])
def test_a_fault_is_one_line_and_exit_code_two(command: str, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = truth.parent / "broken.json"
    good = {"video_id": 1, "category_id": 1, "score": 0.5, "segmentations": [masks.to_json(LEFT)] * 4}
    broken.write_text(json.dumps([good, {**good, "segmentations": [None] * 3}, {**good, "video_id": 9}]))
    written = truth.parent / "n.json"
    arguments = ["evaluate", command, str(truth), str(broken), "--json", str(written)]
    assert cli.call(arguments) == 2
    told = capsys.readouterr()
    assert re.fullmatch(r"tubelet: broken\.json: video 1, track 2: expected 4 segmentations.*\n", told.err)
    assert not written.exists()
    assert cli.call([*arguments, "--lenient"]) == 0
    told = capsys.readouterr()
    assert "left out 1 for wrong length" in told.err
    assert "left out 1 for unknown video" in told.err


def test_evaluating_needs_no_torch(truth: Path) -> None:
    path = answers(truth, "good", switched=False)
    code = (
        "import sys; from tubelet.apps import cli; "
        f"assert cli.call(['evaluate', 'ytvis', {str(truth)!r}, {str(path)!r}]) == 0; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_submission_can_be_made_with_and_without_the_truth(truth: Path) -> None:
    path = answers(truth, "good", switched=False)
    for extra in ([], ["--truth", str(truth)]):
        out = truth.parent / "results.zip"
        assert cli.call(["submission", str(path), "--out", str(out), *extra]) == 0
        with zipfile.ZipFile(out) as archive:
            assert len(json.loads(archive.read("results.json"))) == 4


def test_the_report_is_one_page_that_asks_nothing_of_the_network(
    truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = answers(truth, "good", switched=False), answers(truth, "bad", switched=True)
    out = truth.parent / "report"
    assert cli.call(["report", str(truth), str(bad), str(good), "--out", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == ["report.html"]
    page = (out / "report.html").read_text()
    assert str(out / "report.html") in capsys.readouterr().out
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|<script|<link", page)
    assert "&lt;dog&gt;" in page
    assert "<dog>" not in page
    for expected in ("identity switch", "data:image/jpeg;base64,", "verdict", "who holds which object", "polyline"):
        assert expected in page


def test_the_same_files_give_the_same_report_with_or_without_frames(truth: Path) -> None:
    bad = answers(truth, "bad", switched=True)
    pages = []
    for name in ("a", "b"):
        assert cli.call(["report", str(truth), str(bad), "--out", str(truth.parent / name)]) == 0
        pages.append((truth.parent / name / "report.html").read_text())
    assert pages[0] == pages[1]
    elsewhere = truth.parent / "alone"
    elsewhere.mkdir()
    truth.rename(elsewhere / "truth.json")
    assert cli.call(["report", str(elsewhere / "truth.json"), str(bad), "--out", str(elsewhere)]) == 0
    assert "No frames were found" in (elsewhere / "report.html").read_text()


def test_files_of_one_name_cannot_be_compared(truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = answers(truth, "bad", switched=True)
    assert cli.call(["report", str(truth), str(bad), str(bad), "--out", str(truth.parent / "r")]) == 2
    assert "names of their own" in capsys.readouterr().err
    assert not (truth.parent / "r").exists()
