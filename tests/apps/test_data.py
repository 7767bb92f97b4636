"""`tubelet data ...` and `tubelet synth`, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tubelet.apps.cli import call


@pytest.fixture(scope="module")
def generated_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "set"
    arguments = [
        "synth",
        str(out),
        "height=48",
        "width=80",
        "frames=4",
        "objects=[2,3]",
        "--videos",
        "4",
        "--seed",
        "3",
    ]
    assert call(arguments) == 0
    return out


def test_synth_writes_frames_and_annotations(generated_set):
    tree = json.loads((generated_set / "instances.json").read_text())
    assert len(tree["videos"]) == 4
    assert len(list(generated_set.glob("JPEGImages/*/*.png"))) == 16


def test_synth_repeats_with_its_seed_and_says_wrong_knobs(generated_set, tmp_path, capsys):
    arguments = ["height=48", "width=80", "frames=4", "objects=[2,3]", "--videos", "4", "--seed", "3"]
    assert call(["synth", str(tmp_path / "again"), *arguments]) == 0
    assert (tmp_path / "again/instances.json").read_bytes() == (generated_set / "instances.json").read_bytes()
    assert call(["synth", str(tmp_path / "x"), "hieght=3"]) == 2
    assert "did you mean 'height'" in capsys.readouterr().err
    assert call(["synth", str(generated_set)]) == 2
    assert "there is something already" in capsys.readouterr().err


def test_check_says_whether_a_set_is_fit(generated_set, tmp_path, capsys):
    assert call(["data", "check", str(generated_set)]) == 0
    assert "fit to train on" in capsys.readouterr().out
    tree = json.loads((generated_set / "instances.json").read_text())
    tree["videos"][1]["file_names"][0] = "00001/missing.png"
    (generated_set / "broken.json").write_text(json.dumps(tree))
    assert call(["data", "check", str(generated_set / "broken.json")]) == 1
    out = capsys.readouterr().out
    assert "broken frame" in out
    assert "not fit to train on" in out
    (generated_set / "broken.json").unlink()


def test_check_counts_broken_annotations_and_goes_on(generated_set, capsys):
    tree = json.loads((generated_set / "instances.json").read_text())
    tree["annotations"][0]["segmentations"][1] = {"size": [80, 48], "counts": "abc"}
    tree["annotations"][1]["segmentations"].pop()
    (generated_set / "broken.json").write_text(json.dumps(tree))
    assert call(["data", "check", str(generated_set / "broken.json")]) == 1
    out = capsys.readouterr().out
    assert "wrong mask size" in out
    assert "wrong length" in out
    assert "4 videos" in out
    (generated_set / "broken.json").unlink()


def test_stats_prints_numbers_and_draws(generated_set, tmp_path, capsys):
    assert call(["data", "stats", str(generated_set), "--out", str(tmp_path / "s.png")]) == 0
    out = capsys.readouterr().out
    assert "16 (4 to 4 per video, median 4)" in out
    assert (tmp_path / "s.png").stat().st_size > 5000


def test_browse_draws_contact_sheets(generated_set, tmp_path, capsys):
    assert call(["data", "browse", str(generated_set), "--out", str(tmp_path), "--videos", "2"]) == 0
    assert len(list(tmp_path.glob("*.jpg"))) == 2


def test_split_writes_two_sets_beside_the_frames(generated_set, capsys):
    assert call(["data", "split", str(generated_set), "--videos", "1"]) == 0
    counts = {n: len(json.loads((generated_set / f"{n}.json").read_text())["videos"]) for n in ("train", "val")}
    assert counts == {"train": 3, "val": 1}
    assert call(["data", "check", str(generated_set / "val.json")]) == 0
    for name in counts:
        (generated_set / f"{name}.json").unlink()


def test_convert_says_what_is_lost(generated_set, tmp_path, capsys):
    assert call(["data", "convert", str(generated_set), str(tmp_path / "c"), "--to", "cvat"]) == 0
    assert "lost: nothing" in capsys.readouterr().out
    assert call(["data", "convert", str(generated_set), str(tmp_path / "d"), "--to", "davis", "--from", "ytvis"]) == 0
    assert "classes of objects (all become one): 7" in capsys.readouterr().out
    assert call(["data", "check", str(tmp_path / "d")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "check", "nowhere"], "no such file or folder"),
        (["data", "convert", "{set}", "{tmp}/x", "--to", "cvta"], "did you mean 'cvat'"),
        (["data", "split", "{set}", "--videos", "99"], "expected to hold out 1 to 3 videos"),
        (["data", "stats", "{set}", "--form", "mots"], "expected MOTS's layout"),
    ],
)
def test_a_users_fault_is_one_line_and_exit_code_2(arguments, message, generated_set, tmp_path, capsys):
    filled = [text.format(set=generated_set, tmp=tmp_path) for text in arguments]
    assert call(filled) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_the_help_names_every_form():
    from tubelet.apps.data import READ, WRITTEN
    from tubelet.formats.registry import FORMS

    assert set(READ.replace(" or ", ", ").split(", ")) == set(FORMS)
    assert set(WRITTEN.replace(" and ", ", ").split(", ")) == {name for name, form in FORMS.items() if form.write}


@pytest.mark.parametrize("form", ["labelme", "yolo-seg", "davis", "coco-video"])
def test_parts_of_a_set_in_another_form_find_their_frames(form, generated_set, tmp_path, capsys):
    convert = ["data", "convert", str(generated_set), str(tmp_path / "set"), "--to", form]
    assert call(convert) == 0
    (tmp_path / "elsewhere").mkdir()
    split = ["data", "split", str(tmp_path / "set"), "--videos", "1"]
    assert call([*split, "--out", str(tmp_path / "elsewhere")]) == 2
    assert "data convert SET NEW --to ytvis" in capsys.readouterr().err
    assert call(split) == 0
    for part in ("train.json", "val.json"):
        assert call(["data", "check", str(tmp_path / "set" / part)]) == 0
