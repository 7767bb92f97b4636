"""A paper's table is filled row by row: what is missing, what is trained, what is measured once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tubelet.apps import cli
from tubelet.bench import paper_tables
from tubelet.bench.paper_tables import (
    FilledRow,
    SmallPlan,
    Training,
    data_overrides,
    estimated_hours,
    evaluate_training,
    table_sheet,
    trainings,
)
from tubelet.core.errors import ConfigError
from tubelet.recipes.small_versions import small_version
from tubelet.recipes.tables import find_table

NAME = "objprop_attention/table1"
ROWS = "*-neck*"  # two: with random and with ordered pairs


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tables of a step a row, trained in this process; the recipes that were trained."""
    trained: list[str] = []

    def train_here(
        missing: Sequence[Training], jobs: int, device: str, tell: Callable[[Training, float], None]
    ) -> None:
        for training in missing:
            tell(training, training("cpu"))
            trained.append(training.recipe)

    monkeypatch.setattr(paper_tables, "train_missing", train_here)
    monkeypatch.setattr(paper_tables, "SmallPlan", lambda: SmallPlan(train=2, test=1, iterations=1))
    return trained


def called(*arguments: object) -> int:
    return cli.call([str(argument) for argument in arguments])


def test_two_rows_are_filled_by_one_command_and_then_only_read(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["table", NAME, "--small", "--rows", ROWS, "--runs", tmp_path, "--device", "cpu"]
    assert called(*arguments, "--markdown", "--json", tmp_path / "first.json") == 0
    assert tiny == [f"{NAME}/attention-neck", f"{NAME}/attention-neck-ordered"]
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "| row |  | AP | AP50 | AP75 | AR1 | AR10 | seeds |"
    assert lines[2] == "| attention-neck | paper | 32.91 | 52.23 | 36.5 | 36.24 | 42.8 |  |"
    assert lines[3].startswith("|  | ours | ")
    assert lines[3].endswith("| 1 |")
    numbers = json.loads((tmp_path / "first.json").read_text())["attention-neck"]["ours"][0]
    assert {"AP", "AP50", "AP75", "AR1", "AR10"} <= numbers.keys()

    assert called(*arguments, "--json", tmp_path / "second.json") == 0
    assert len(tiny) == 2, "nothing is trained twice"
    assert (tmp_path / "first.json").read_text() == (tmp_path / "second.json").read_text()


def test_what_is_missing_is_said_with_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["table", "sta/table1", "--runs", tmp_path, "--seeds", 2, "--train-data", "train.json"]
    assert called(*arguments, "--no-estimate") == 0
    told = capsys.readouterr()
    commands = [line for line in told.out.splitlines() if line.startswith("tubelet train ")]
    assert len(commands) == 4
    options = "train.seed=0 data.annotations=train.json --resume"
    assert commands[0] == f"tubelet train sta/baseline {options} --out {tmp_path}/sta/baseline/seed-0"
    assert "4 trainings are missing" in told.err


def test_a_command_says_what_is_still_to_be_named(tmp_path: Path) -> None:
    rows = [row for row in find_table("ifr/table3") if row.label == "2019-ifr-r50"]
    (training,) = trainings(rows, tmp_path, 1)
    assert " data.annotations=TRAIN init=WEIGHTS --resume " in training.command


def test_what_a_row_starts_from_is_trained_before_it(tmp_path: Path) -> None:
    rows = [row for row in find_table(NAME) if row.label.startswith("tuning")]
    found = trainings(rows, tmp_path, 1, data=Path("train.json"))
    assert [training.recipe for training in found] == [
        "masktrack/ytvis2019-r101",
        f"{NAME}/tuning-1",
        "masktrack/ytvis2019",
        f"{NAME}/tuning-2",
    ]
    assert found[1].experiment.init == str(found[0].folder)
    assert "data.annotations=train.json" in found[0].command
    own = trainings(rows, tmp_path, 1, ["init=mine.safetensors"])
    assert [training.recipe for training in own] == [f"{NAME}/tuning-1", f"{NAME}/tuning-2"]


def test_the_cost_of_a_training_is_its_steps_times_its_batch() -> None:
    row = small_version(f"{NAME}/baseline", 3600)
    once = estimated_hours(row)
    assert once > 0
    more = row.but(train=row.train.but(iterations=36_000_000))
    assert estimated_hours(more) > 100 * once


def test_a_model_of_another_row_is_not_measured_for_this_one(tiny: list[str], tmp_path: Path) -> None:
    arguments = ["table", NAME, "--small", "--rows", "attention-neck", "--runs", tmp_path, "--device", "cpu"]
    assert called(*arguments) == 0
    (row,) = [row for row in find_table(NAME) if row.label == "attention-neck"]
    *_, other = trainings([row], tmp_path, 1)  # the row at its full size
    with pytest.raises(ConfigError, match="a model of another config than"):
        evaluate_training(other, row.evaluation, tmp_path / "videos" / "test-1" / "instances.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ifr/tabel3"], "did you mean 'ifr/table3'"),
        ([NAME, "--rows", "nek*"], "no row of objprop_attention/table1 is like this; baseline, "),
        ([NAME, "--small", "--data", "val.json"], "--small generates its videos"),
        ([NAME, "model.nek=null"], "did you mean 'neck'"),
    ],
)
def test_a_wrong_word_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("table", *arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_all_tables_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert called("table") == 0
    told = capsys.readouterr().out
    assert NAME in told
    assert "ifr/table4" in told


def test_a_path_goes_into_the_field_of_the_recipes_data() -> None:
    assert data_overrides("compfeat/table2/frame", Path("t.json")) == ["data.videos.annotations=t.json"]
    assert data_overrides("tags/generated", Path("t.json")) == []


def test_a_single_seed_has_no_deviation_and_switches_are_counts() -> None:
    rows = [
        FilledRow(label="one", paper={"IDF1": 62.4, "IDs": 202}, ours=({"IDF1": 0.5, "IDs": 3.0},)),
        FilledRow(label="none", paper={"IDF1": 66.7, "IDs": 218}, ours=()),
    ]
    assert table_sheet(rows).rows == (
        ("one", "paper", "62.4", "202", ""),
        ("", "ours", "50.0", "3.0", "1"),
        ("none", "paper", "66.7", "218", ""),
        ("", "ours", None, None, "0"),
    )
