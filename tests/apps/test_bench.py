"""`tubelet bench`: tables again from a summary alone, and faults in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tubelet.apps.cli import call
from tubelet.recipes import small

FIGURES = dict.fromkeys(["AP", "AP50", "AP75", "AR1", "AR10", "J&F", "IDF1", "IDF1_best", "MOTA", "HOTA"], 0.25)
COST = {"IDs": 3.0, "fps": 20.0, "peak_mb": 900.0, "parameters": 2e6, "train_s": 85.0}


@pytest.fixture
def summary(tmp_path: Path) -> Path:
    trials = [{"seed": seed, **FIGURES, **COST} for seed in (0, 1)]
    rows = {
        name: {
            "about": name.title(),
            "trials": trials,
            "grades": [{"plain": 0.4}],
            "failures": [{"missed": 2}],
            "gain": None if name == "masktrack" else [0.01, -0.02, 0.05],
            "paper": {"AP": 30.3},
        }
        for name in ("masktrack", "masktrack-ordered")
    }
    path = tmp_path / "generated.json"
    path.write_text(json.dumps({"set": "generated", "rows": rows}))
    return path


def test_tables_need_nothing_but_the_summary(summary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["bench", "tables", str(summary)]) == 0
    told = capsys.readouterr().out
    assert "| Masktrack | 25.0 ± 0.0 |" in told
    assert "+1.0 [-2.0, +5.0]" in told
    assert "true masks" not in told  # a summary of before there were oracles


def test_rows_are_chosen_by_group_or_name(summary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["bench", "tables", str(summary), "--rows", "systems"]) == 0
    assert "Masktrack-Ordered" not in capsys.readouterr().out
    assert call(["bench", "tables", str(summary), "--rows", "masktrack-ordered,masktrack"]) == 0
    told = capsys.readouterr().out
    assert told.index("| Masktrack-Ordered |") < told.index("| Masktrack |")


def test_pictures_are_drawn_beside_the_tables(summary: Path, tmp_path: Path) -> None:
    assert call(["bench", "tables", str(summary), "--pictures", str(tmp_path / "pictures")]) == 0
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["generated-failures.png", "generated-speed.png"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["vis", "--rows", "stay"], "no system 'stay'"),
        (["vis", "--plan", "ful"], "no plan 'ful'"),
        (["vis", "--seeds", "0,x"], "expected whole numbers with commas"),
        (["vis", "--set", "pasted"], "expected --coco"),
        (["vis", "--coco", "x.json"], "are for --set pasted"),
        (["tables", "none.json"], "none.json"),
    ],
)
def test_faults_are_one_line_and_leave_nothing(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")] if arguments[0] == "vis" else []
    assert call(["bench", *arguments, *out]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("[1]")
    assert call(["bench", "tables", str(tmp_path / "x.json")]) == 2
    assert "expected the summary of a comparison" in capsys.readouterr().err
    (tmp_path / "x.json").write_text(json.dumps({"set": "generated", "rows": {"sta": {"about": "STA"}}}))
    assert call(["bench", "tables", str(tmp_path / "x.json")]) == 2
    assert "row 'sta' is not one of" in capsys.readouterr().err


def test_rows_that_the_summary_does_not_have_are_one_line(summary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["bench", "tables", str(summary), "--rows", "tags"]) == 2
    assert "it has masktrack, masktrack-ordered" in capsys.readouterr().err


def test_the_ten_systems_and_the_claims_of_the_papers_are_rows() -> None:
    assert len(small.SYSTEMS) == 10
    assert not small.SYSTEMS.keys() & small.ABLATIONS.keys()
    assert {
        "masktrack-ordered",
        "compfeat-both",
        "compfeat-correlation",
        "ifr-without-cross-frame",
        "ifr-more-cross-frame",
    } <= small.ABLATIONS.keys()
