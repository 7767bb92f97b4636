"""The script that shows that a refactor changes nothing: it finds the smallest change, and says where it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from tubelet.core.types import Clip

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
RECIPE = "small/tags"


class LastBit(nn.Module):
    """A model whose loss of one name is the next larger number."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model = model
        self.name = name

    def forward(self, clips: list[Clip]) -> dict[str, Tensor]:
        losses = dict(self.model(clips))
        loss = losses[self.name]
        step = torch.nextafter(loss.detach(), torch.tensor(torch.inf)) - loss.detach()
        losses[self.name] = loss + step
        return losses


@pytest.fixture
def systems(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script's own look at a model."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fingerprint_systems

    return fingerprint_systems


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fingerprints

    return fingerprints


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit code of a call of the script."""
    monkeypatch.setattr(sys, "argv", ["fingerprints.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        script.main()
    return int(ended.value.code or 0)


def write(path: Path, recorded: object) -> Path:
    path.write_text(json.dumps(recorded))
    return path


def test_the_same_step_has_the_same_fingerprints(systems: ModuleType, script: ModuleType):
    first, second = (systems.step(systems.built(RECIPE), systems.WHOLE, 1, each=True) for _ in range(2))
    assert len(first) > 50
    assert script.differences({"tags": first}, {"tags": second}) == []


def test_a_loss_that_changes_in_its_last_bit_is_found_by_name(systems: ModuleType, script: ModuleType):
    model = systems.built(RECIPE)
    before = systems.step(model, systems.WHOLE, 1, each=False)
    after = systems.step(LastBit(model, "semantic"), systems.WHOLE, 1, each=False)
    (line,) = script.differences({"tags": before}, {"tags": after})
    assert line.startswith("tags/loss/semantic: ")


def test_compare_ends_with_1_where_a_value_differs_or_is_missing(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    old = write(tmp_path / "old.json", {"sta": {"loss": "0.5", "model": "abc"}, "data": {"synth": "1"}})
    new = write(tmp_path / "new.json", {"sta": {"loss": "0.25", "model": "abc"}, "data": {}})
    assert run(script, monkeypatch, "compare", old, old) == 0
    assert capsys.readouterr().out == "3 compared, 0 differ\n"
    assert run(script, monkeypatch, "compare", old, new) == 1
    assert capsys.readouterr().out.splitlines() == [
        "data/synth: only in the first",
        "sta/loss: '0.5' became '0.25'",
        "3 compared, 2 differ",
    ]


def test_compare_looks_at_the_named_parts_alone_and_at_something(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    old = write(tmp_path / "old.json", {"sta": {"loss": "0.5"}, "data": {"synth": "1"}})
    new = write(tmp_path / "new.json", {"sta": {"loss": "0.25"}, "data": {"synth": "1"}})
    assert run(script, monkeypatch, "compare", old, new, "data") == 0
    assert run(script, monkeypatch, "compare", old, new, "sta") == 1
    assert run(script, monkeypatch, "compare", old, new, "dta") == 1  # nothing compared is nothing shown


def test_a_difference_in_a_long_text_is_shown_where_it_is(script: ModuleType):
    text = "x" * 500
    assert script.parting(f"{text} in 5 frames", f"{text} in 6 frames").endswith("x in 6 frames'")
