from __future__ import annotations

import json
import os
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from toy_training import SGD_TOY, ToyModel

from tubelet.core.atomic import scratch_name
from tubelet.core.errors import ConfigError, FormatError, TubeletError, WeightsError
from tubelet.training import checkpoint
from tubelet.training.checkpoint import TrainingProgress, TrainingState
from tubelet.training.optim import WeightAverage


def state(*, step: int = 0, width: int = 4) -> TrainingState:
    model = nn.Linear(3, width)
    progress = TrainingProgress(step=step, samples=4 * step, losses={"class": 0.1 + 0.2}, made=1)
    return TrainingState(
        model=model, optimizer=SGD_TOY.build(model), average=WeightAverage(model, 0.9), progress=progress
    )


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """Writing a file beyond `limit` bytes fails, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_gives_back_what_it_took(tmp_path: Path):
    first, second = state(step=7), state()
    for parameter in first.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    first.optimizer.step()
    checkpoint.save(tmp_path, {"a": 1}, first)
    checkpoint.resume(tmp_path, {"a": 1}, second)
    assert second.progress == first.progress
    assert torch.equal(first.model.weight, second.model.weight)
    assert first.average is not None
    assert second.average is not None
    assert torch.equal(first.average.weights["weight"], second.average.weights["weight"])
    momentum = second.optimizer.state[second.model.weight]["momentum_buffer"]
    assert torch.equal(momentum, first.optimizer.state[first.model.weight]["momentum_buffer"])


def test_a_checkpoint_is_safetensors_and_json_only(tmp_path: Path):
    path = checkpoint.save(tmp_path, {}, state(step=3))
    assert path == tmp_path / "step-000003"
    assert sorted(file.name for file in path.iterdir()) == [
        "average.safetensors",
        "model.safetensors",
        "optimizer.safetensors",
        "progress.json",
        "settings.json",
    ]
    for file in path.glob("*.safetensors"):
        checkpoint.read_tensors(file)


def test_the_latest_is_by_number_and_incomplete_ones_are_passed_over(tmp_path: Path):
    for step in (999_999, 1_000_000, 5):
        checkpoint.save(tmp_path, {}, state(step=step))
    scratch_name(tmp_path / "step-000009").mkdir()
    (tmp_path / "step-2000000").mkdir()
    (tmp_path / "step-other").mkdir()
    assert [path.name for path in checkpoint.saved(tmp_path)] == ["step-000005", "step-999999", "step-1000000"]
    fresh = state()
    checkpoint.resume(tmp_path, {}, fresh)
    assert fresh.progress.step == 1_000_000


def test_pruning_keeps_the_last(tmp_path: Path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, {}, state(step=step))
    checkpoint.prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000003"]


def test_without_a_checkpoint_resuming_changes_nothing(tmp_path: Path):
    fresh = state()
    before = fresh.model.weight.clone()
    checkpoint.resume(tmp_path / "nowhere", {}, fresh)
    assert fresh.progress == TrainingProgress(losses={"class": 0.1 + 0.2}, made=1)
    assert torch.equal(fresh.model.weight, before)


@pytest.mark.parametrize(
    ("now", "complaint"),
    [
        ({"train": {"seed": 1, "log_every": 2}}, "train.seed was 0 when .* now it is 1"),
        ({"train": {"seed": 0, "log_every": 2, "new": []}}, "train.new was null .* now it is \\[\\]"),
        ({"train": {"log_every": 2}}, "train.seed was 0 .* now it is null"),
    ],
)
def test_a_changed_setting_is_named(tmp_path: Path, now: dict, complaint: str):
    checkpoint.save(tmp_path, {"train": {"seed": 0, "log_every": 2}}, state())
    with pytest.raises(ConfigError, match=complaint):
        checkpoint.resume(tmp_path, now, state())


def test_a_free_setting_may_change_wherever_it_stands(tmp_path: Path):
    checkpoint.save(tmp_path, {"recipe": {"train": {"log_every": 2}}, "train": {"log_every": 2}}, state())
    now = {"recipe": {"train": {"log_every": 3}}, "train": {"log_every": 3}}
    checkpoint.resume(tmp_path, now, state(), free=("train.log_every",))


NEWER = {"config": {"detector": {"width": 8, "frozen_trunk": False}, "recall": {"frames": 8}}}


@pytest.mark.parametrize(
    "before",
    [
        {"config": {"detector": {"width": 8}, "recall": {"frames": 8}}},
        {"config": {"detector": {"width": 8, "frozen_trunk": False}}},
    ],
)
def test_a_checkpoint_from_before_a_setting_resumes_with_its_default(tmp_path: Path, before: dict):
    checkpoint.save(tmp_path, before, state())
    checkpoint.resume(tmp_path, NEWER, state(), defaults=("config.detector.frozen_trunk", "config.recall"))


def test_in_a_list_a_setting_may_be_newer_than_the_checkpoint_too(tmp_path: Path):
    checkpoint.save(tmp_path, {"transforms": [{"kind": "flip"}, {"kind": "crop"}]}, state())
    now = {"transforms": [{"kind": "flip"}, {"kind": "crop", "zoom": 1.0}]}
    checkpoint.resume(tmp_path, now, state(), defaults=("transforms.1.zoom",))
    with pytest.raises(ConfigError, match=r"transforms was .* when this training began"):
        checkpoint.resume(tmp_path, now, state(), defaults=("transforms.0.zoom",))


@pytest.mark.parametrize(
    ("before", "complaint"),
    [
        ({"config": {"detector": {"width": 8}, "recall": {"frames": 8}}}, "config.detector.frozen_trunk was null"),
        (
            {"config": {"detector": {"width": 8, "frozen_trunk": False}, "recall": None}},
            "config.recall.frames was null",
        ),
    ],
)
def test_a_setting_that_is_new_and_not_the_default_is_named(tmp_path: Path, before: dict, complaint: str):
    checkpoint.save(tmp_path, before, state())
    with pytest.raises(ConfigError, match=f"{complaint} when this training began .*, now it is "):
        checkpoint.resume(tmp_path, NEWER, state(), defaults=("config.recall", "config.recall.frames"))


def test_another_models_checkpoint_is_refused_by_name_and_shape(tmp_path: Path):
    checkpoint.save(tmp_path, {}, state(width=4))
    with pytest.raises(WeightsError, match=r"another model: weight is \(4, 3\), expected \(5, 3\)"):
        checkpoint.resume(tmp_path, {}, state(width=5))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"step": 1, "unheard": 2}',
        '{"step": "1"}',
        '{"step": 1, "losses": [1]}',
        '{"step": 1, "samples": null}',
        '{"step": 2}',
    ],
)
def test_a_damaged_checkpoint_is_one_clear_error(tmp_path: Path, content: str):
    path = checkpoint.save(tmp_path, {}, state(step=1))
    (path / "progress.json").write_text(content)
    with pytest.raises(FormatError, match="step-000001"):
        checkpoint.resume(tmp_path, {}, state())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weight/momentum_buffer": torch.zeros(5)}, r"weight/momentum_buffer is \(5,\), expected \(4, 3\)"),
        ({"weight/momentum_buffer": None}, "some tensors are missing"),
        ({"other/momentum_buffer": torch.zeros(5)}, "other"),
    ],
)
def test_the_state_of_another_optimizer_is_refused(tmp_path: Path, changes: dict, complaint: str):
    path = checkpoint.save(tmp_path, {}, state(step=1)) / "optimizer.safetensors"
    tensors = {f"{name}/{key}": torch.zeros(shape) for name, shape in (("weight", (4, 3)), ("bias", (4,)))
               for key in ("momentum_buffer", "step")} | changes  # fmt: skip
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
    with pytest.raises(FormatError, match=complaint):
        checkpoint.resume(tmp_path, {}, state())


class Trap:
    """Unpickled, it leaves a mark."""

    def __reduce__(self) -> tuple:
        return (os.mkdir, (os.environ["TRAP"],))


@pytest.mark.parametrize("by", ["pickle", "torch"])
def test_a_pickle_in_place_of_weights_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    path = checkpoint.save(tmp_path, {}, state(step=1)) / "model.safetensors"
    if by == "pickle":
        path.write_bytes(pickle.dumps(Trap()))
    else:
        torch.save({"weight": Trap()}, path)
    with pytest.raises(WeightsError, match="expected a safetensors file"):
        checkpoint.resume(tmp_path, {}, state())
    assert not (tmp_path / "sprung").exists()


def test_a_full_disk_leaves_the_previous_checkpoint_and_nothing_half_written(tmp_path: Path):
    checkpoint.save(tmp_path, {}, state(step=1, width=4))
    for limit in (100, 3000):  # the first file fails, or the last
        with small_disk(limit), pytest.raises(TubeletError, match=r"step-000002.*what was written before is intact"):
            checkpoint.save(tmp_path, {"long": "x" * 5000}, state(step=2, width=4))
        assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    checkpoint.resume(tmp_path, {}, state(width=4))


def test_a_full_disk_leaves_the_previous_model(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    checkpoint.save_model(path, nn.Linear(2, 2), {})
    before = path.read_bytes()
    with small_disk(1000), pytest.raises(TubeletError, match=r"cannot write .*model\.safetensors"):
        checkpoint.save_model(path, nn.Linear(100, 100), {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TubeletError, match="expected a folder to write to, found a file"):
        checkpoint.save(tmp_path / "file" / "checkpoints", {}, state())


def test_a_model_is_saved_with_its_metadata_and_tied_weights_in_full(tmp_path: Path):
    model, path = ToyModel(), tmp_path / "deep" / "model.safetensors"
    checkpoint.save_model(path, model, {"config": "{}", "classes": json.dumps(["dog"])})
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"tubelet": "1", "config": "{}", "classes": '["dog"]'}
    tensors = checkpoint.read_tensors(path)
    assert tensors.keys() == model.state_dict().keys()
    assert torch.equal(tensors["tied.weight"], model.head.weight)


def test_equal_models_are_equal_files(tmp_path: Path):
    path, written = tmp_path / "model.safetensors", set()
    metadata = {name: json.dumps([name, "Hündchen\t\x01\x7f"], ensure_ascii=False) for name in "abcdefgh"}
    for _ in range(4):
        checkpoint.save_model(path, ToyModel(), metadata)
        written.add(path.read_bytes())
    assert len(written) == 1
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"tubelet": "1", **metadata}
    assert torch.equal(checkpoint.read_tensors(path)["head.weight"], ToyModel().head.weight)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path):
    with pytest.raises(WeightsError, match="no such file"):
        checkpoint.read_tensors(tmp_path / "nothing.safetensors")
