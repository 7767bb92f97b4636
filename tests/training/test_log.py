from __future__ import annotations

import json
from pathlib import Path

import pytest

from tubelet.core.errors import FormatError
from tubelet.training.checkpoint import TrainingProgress
from tubelet.training.log import Log, read_metrics


def make_log(path: Path, progress: TrainingProgress, *, main: bool = True) -> Log:
    return Log(path, progress, iterations=10, main=main)


def test_a_line_tells_means_since_the_line_before(tmp_path: Path):
    progress = TrainingProgress()
    with make_log(tmp_path / "metrics.jsonl", progress) as log:
        progress.count({"mask": 1.0, "class": 3.0}, 2.0, 4, finite=True)
        progress.count({"mask": 2.0}, 4.0, 4, finite=True)
        log.write(0.1)
        progress.count({"mask": 5.0}, 1.0, 4, finite=True)
        log.write(0.2)
    first, second = read_metrics(tmp_path / "metrics.jsonl")
    assert (first["loss"], first["loss_mask"], first["loss_class"]) == (3.0, 1.5, 1.5)
    assert (first["step"], first["lr"], first["grad_norm"], first["samples"]) == (2, 0.1, 3.0, 8)
    assert (second["loss"], second["loss_mask"], second["step"], second["samples"]) == (5.0, 5.0, 3, 12)
    assert "loss_class" not in second
    assert first["samples_per_second"] > 0
    assert 0 <= first["waiting"] <= 1


def test_steps_that_were_skipped_are_counted_and_not_averaged(tmp_path: Path):
    progress = TrainingProgress()
    with make_log(tmp_path / "metrics.jsonl", progress) as log:
        progress.count({"mask": float("nan")}, float("inf"), 4, finite=False)
        log.write(0.1)
        progress.count({"mask": 1.0}, 1.0, 4, finite=True)
        log.write(0.1)
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first.keys() == {"step", "lr", "skipped", "samples", "samples_per_second", "waiting"}
    assert (first["skipped"], second["skipped"], second["loss"]) == (1, 1, 1.0)


def test_lines_after_the_present_step_and_a_cut_one_are_dropped(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"ste')
    make_log(path, TrainingProgress(step=4))
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'


def test_a_new_training_begins_a_new_log(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n')
    make_log(path, TrainingProgress())
    assert read_metrics(path) == []


def test_other_ranks_write_nothing(tmp_path: Path):
    progress = TrainingProgress()
    with make_log(tmp_path / "metrics.jsonl", progress, main=False) as log:
        progress.count({"mask": 1.0}, 2.0, 4, finite=True)
        log.write(0.1)
    assert list(tmp_path.iterdir()) == []
    assert progress.made == 0


def test_no_bar_is_drawn_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    progress = TrainingProgress()
    with make_log(tmp_path / "metrics.jsonl", progress) as log:
        progress.count({"mask": 1.0}, 2.0, 4, finite=True)
        log.show({"mask": 1.0})
    assert capsys.readouterr() == ("", "")


def test_a_bar_with_time_left_is_drawn_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the stream for a terminal
    progress = TrainingProgress()
    with make_log(tmp_path / "metrics.jsonl", progress) as log:
        progress.count({"mask": 1.0}, 2.0, 4, finite=True)
        log.show({"mask": 1.25})
    shown = capsys.readouterr().err
    assert "loss 1.250" in shown
    assert "1/10" in shown


@pytest.mark.parametrize(
    "line", ["no json", "[1]", '{"lr": 1}', '{"step": Infinity}', '{"step": "7"}', '{"step": null}']
)
def test_a_broken_line_is_named(tmp_path: Path, line: str):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(FormatError, match="line 2"):
        read_metrics(path)
