from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_training as toy
from safetensors import safe_open
from toy_training import SGD_TOY, ToyClips, ToyModel

from tubelet.core.errors import ConfigError, InputError, TubeletError
from tubelet.core.types import Clip, Losses
from tubelet.training.checkpoint import read_tensors, saved
from tubelet.training.loop import Diverged, TrainConfig, train
from tubelet.training.optim import AdamW, Cosine


def test_training_lowers_the_loss_and_saves_a_model(fit, metrics, tmp_path: Path):
    model = ToyModel()
    outcome = fit("run", model, iterations=60, describe={"config": "{}", "classes": '["dog"]'})
    totals = [line["loss"] for line in metrics("run")]
    assert np.mean(totals[-10:]) < 0.5 * np.mean(totals[:10])
    assert outcome.finished
    assert outcome.model == tmp_path / "run" / "model.safetensors"
    with safe_open(outcome.model, "pt") as file:
        assert file.metadata() == {"tubelet": "1", "config": "{}", "classes": '["dog"]', "step": "60"}
    tensors = read_tensors(outcome.model)
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())


def test_every_line_of_the_log_tells_step_rate_losses_norm_and_samples(fit, metrics):
    fit("run", iterations=5, log_every=2, batch_size=3)
    lines = metrics("run")
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert [line["samples"] for line in lines] == [6, 12, 15]
    assert lines[0]["lr"] == pytest.approx(0.02 * (1 / 3 + 2 / 3 * 1 / 4))
    assert lines[0]["loss"] == pytest.approx(lines[0]["loss_class"] + lines[0]["loss_rare"])
    assert lines[0]["grad_norm"] > 0


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(fit, metrics, tmp_path: Path):
    torch.manual_seed(1)
    fit("none", ToyModel(noise=0.3), workers=0)
    torch.manual_seed(2)
    fit("two", ToyModel(noise=0.3), workers=2)
    fit("other", ToyModel(noise=0.3), seed=1)
    assert metrics("none") == metrics("two")
    assert (tmp_path / "none/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    assert metrics("none") != metrics("other")


def test_accumulated_batches_equal_one_larger_batch(fit, metrics):
    fit("large", batch_size=6)
    fit("parts", batch_size=2, accumulate=3)
    for large, parts in zip(metrics("large"), metrics("parts"), strict=True):
        assert parts == pytest.approx(large, rel=1e-4)


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("optim", [SGD_TOY, AdamW(lr=0.01, schedule=Cosine())])
def test_an_interrupted_training_goes_on_to_the_last_bit(fit, metrics, tmp_path: Path, ema, optim):
    same = {"ema": ema, "optim": optim, "log_every": 3, "iterations": 11}
    fit("whole", ToyModel(noise=0.2), **same)
    outcome = fit("parts", Interrupted(at=5, noise=0.2), **same)
    assert (outcome.finished, outcome.model, outcome.step) == (False, None, 5)
    assert outcome.checkpoint == tmp_path / "parts/checkpoints/step-000005"
    assert not (tmp_path / "parts/model.safetensors").exists()
    fit("parts", ToyModel(noise=0.2, seed=9), resume=True, **same)
    assert metrics("parts") == metrics("whole")
    assert (tmp_path / "parts/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


class Interrupted(ToyModel):
    """Asks its own process to stop in its batch number `at`, and with it the processes that read clips."""

    def __init__(self, *, at: int, by: signal.Signals = signal.SIGINT, **given: float) -> None:
        super().__init__(**given)
        self.at, self.by = at, by

    def forward(self, clips: list[Clip]) -> Losses:
        if self.seen == self.at - 1:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, self.by)
            signal.raise_signal(self.by)
        return super().forward(clips)


def test_ctrl_c_ends_the_step_and_says_how_to_go_on(fit, caplog: pytest.LogCaptureFixture):
    before = signal.getsignal(signal.SIGINT)
    outcome = fit("run", Interrupted(at=2), workers=2, accumulate=2)
    assert outcome.step == 1
    assert outcome.checkpoint in saved(outcome.checkpoint.parent)
    assert "stopped after step 1 of 8; the same command with --resume goes on" in caplog.text
    assert signal.getsignal(signal.SIGINT) is before


def test_termination_is_as_gentle_as_ctrl_c(fit):
    assert fit("run", Interrupted(at=3, by=signal.SIGTERM)).step == 3


def test_a_second_ctrl_c_stops_at_once(fit, monkeypatch: pytest.MonkeyPatch):
    class Impatient(Interrupted):
        def forward(self, clips: list[Clip]) -> Losses:
            losses = super().forward(clips)
            if self.seen == self.at:
                later = time.monotonic() + 5
                monkeypatch.setattr(time, "monotonic", lambda: later)
                signal.raise_signal(signal.SIGINT)
            return losses

    with pytest.raises(KeyboardInterrupt):
        fit("run", Impatient(at=2))


def test_a_killed_training_goes_on_to_the_last_bit(fit, metrics, tmp_path: Path):
    same = {"iterations": 30, "log_every": 1, "checkpoint_every": 4, "ema": 0.9, "workers": 1}
    fit("whole", ToyModel(noise=0.2), **same)
    command = [sys.executable, toy.__file__, str(tmp_path / "killed"), *(f"{k}={v}" for k, v in same.items())]
    environment = {**os.environ, "TOY_NOISE": "0.2", "TOY_SLEEP": "0.02", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    log, lines = tmp_path / "killed/metrics.jsonl", random.randint(1, 25)
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= lines):
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.03))
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    fit("killed", ToyModel(noise=0.2, seed=9), resume=True, **same)
    assert metrics("killed") == metrics("whole")
    assert (tmp_path / "killed/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_a_training_killed_at_any_write_goes_on_to_the_last_bit(tmp_path: Path):
    command = [sys.executable, str(Path(toy.__file__).with_name("killed_training.py")), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(told) == 1, told
    kills, _, ended = told[0].partition(" kills, the last run ended with ")
    assert int(kills) > 20
    assert ended == "0"


def test_a_training_killed_before_its_first_checkpoint_keeps_its_random_start(fit, metrics, tmp_path: Path):
    class Stop(Exception):
        pass

    class Dying(ToyModel):
        def forward(self, clips: list[Clip]) -> Losses:
            if self.seen == 2:
                raise Stop
            return super().forward(clips)

    fit("whole", ToyModel(seed=3))
    with pytest.raises(Stop):
        fit("killed", Dying(seed=3))
    fit("killed", ToyModel(seed=4), resume=True)
    assert metrics("killed") == metrics("whole")


def test_resuming_where_nothing_is_begins_anew(fit, metrics):
    fit("plain")
    fit("resumed", resume=True)
    assert metrics("resumed") == metrics("plain")


def test_more_iterations_carry_a_finished_training_on(fit, metrics):
    fit("whole", iterations=9)
    fit("parts", iterations=4)
    assert fit("parts", iterations=9, resume=True, checkpoint_every=2, keep=5).finished
    assert metrics("parts") == metrics("whole")


def test_a_finished_training_resumed_only_writes_its_model_again(fit, metrics, tmp_path: Path):
    fit("run", ema=0.9)
    model, lines = (tmp_path / "run/model.safetensors").read_bytes(), metrics("run")
    (tmp_path / "run/model.safetensors").unlink()
    assert fit("run", ToyModel(seed=5), ema=0.9, resume=True).finished
    assert (tmp_path / "run/model.safetensors").read_bytes() == model
    assert metrics("run") == lines


def test_the_batch_may_be_split_otherwise_when_resuming(fit, metrics):
    fit("whole", iterations=6, batch_size=4)
    fit("parts", iterations=3, batch_size=4)
    fit("parts", iterations=6, batch_size=1, accumulate=4, resume=True)
    assert [line["loss"] for line in metrics("parts")] == pytest.approx(
        [line["loss"] for line in metrics("whole")], rel=1e-4
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": 3}, "train.seed was 0"),
        ({"clip_norm": None}, "train.clip_norm was 35.0 .* now it is null"),
        ({"optim": SGD_TOY.override("lr=0.5")}, "optim.lr was 0.02"),
        ({"batch_size": 3}, "train.batch_size x train.accumulate x processes was 2"),
        ({"describe": {"classes": '["cat"]'}}, 'classes was \\["dog"\\]'),
    ],
)
def test_resuming_with_another_config_names_the_field(fit, change, field):
    fit("run", iterations=2, describe={"classes": '["dog"]'})
    with pytest.raises(ConfigError, match=field):
        fit("run", iterations=2, resume=True, **{"describe": {"classes": '["dog"]'}, **change})


def test_a_folder_that_holds_a_training_is_not_overwritten(fit):
    fit("run", iterations=2)
    with pytest.raises(InputError, match="run holds a training already: --resume"):
        fit("run", iterations=2)


def test_a_curve_is_drawn_at_checkpoints(fit, tmp_path: Path):
    fit("run", iterations=4, checkpoint_every=2, curve=True)
    assert (tmp_path / "run/curve.png").read_bytes().startswith(b"\x89PNG")


def test_only_the_last_checkpoints_are_kept(fit, tmp_path: Path):
    fit("run", iterations=7, checkpoint_every=2, keep=2)
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["step-000006", "step-000007"]


def test_a_checkpoint_tells_config_and_classes(fit):
    outcome = fit("run", iterations=2, describe={"classes": '["dog", "cat"]'})
    settings = json.loads((outcome.checkpoint / "settings.json").read_text())
    assert settings["classes"] == ["dog", "cat"]
    assert settings["train"]["iterations"] == 2
    assert settings["optim"]["kind"] == "sgd"


def test_the_final_model_is_the_average_where_one_is_kept(fit, tmp_path: Path):
    model = ToyModel()
    before = model.head.weight.detach().clone()
    fit("run", model, iterations=1, ema=0.9)
    decay = min(0.9, 2 / 11)
    expected = decay * before + (1 - decay) * model.head.weight
    assert torch.allclose(read_tensors(tmp_path / "run/model.safetensors")["head.weight"], expected)
    assert not torch.equal(expected, model.head.weight)


class Sick(ToyModel):
    """Its loss is not a number in the given batches."""

    def __init__(self, *batches: int) -> None:
        super().__init__()
        self.batches = batches

    def forward(self, clips: list[Clip]) -> Losses:
        losses = super().forward(clips)
        return {**losses, "sick": losses["class"] * (float("nan") if int(self.seen) in self.batches else 0.0)}


def test_a_step_that_is_not_finite_is_skipped_and_counted(fit, metrics, caplog: pytest.LogCaptureFixture):
    model = Sick(3, 5)
    fit("run", model, iterations=6, ema=0.5)
    lines = metrics("run")
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1, 2, 2]
    assert ["loss" in line for line in lines] == [True, True, False, True, False, True]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "not finite at step 3" in warnings[0]
    assert "sick nan" in warnings[0]
    assert "step skipped, 2 so far" in warnings[1]


def test_too_many_such_steps_in_a_row_end_the_training_with_the_last_losses(fit):
    with pytest.raises(Diverged, match=r"step 5 \(class .*sick nan.*3 steps in a row"):
        fit("run", Sick(1, 3, 4, 5), most_skipped=3)


def test_the_gradients_norm_is_bounded(fit, metrics):
    model, start = ToyModel(), ToyModel()
    fit("run", model, iterations=1, clip_norm=0.5, optim=SGD_TOY.override("weight_decay=0", "warmup=0"))
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    moved = torch.cat([(after - before).flatten() for after, before in pairs])
    assert metrics("run")[0]["grad_norm"] > 0.5  # the log tells the norm before
    assert moved.norm().item() == pytest.approx(0.02 * 0.5, rel=1e-3)


def test_bf16_is_autocast_and_close_to_fp32(fit, metrics):
    kinds = []

    class Watching(ToyModel):
        def forward(self, clips: list[Clip]) -> Losses:
            kinds.append(self.body(torch.cat([clip.frames for clip in clips]).float()).dtype)
            return super().forward(clips)

    model = Watching()
    fit("half", model, precision="bf16", iterations=3)
    fit("full", iterations=3)
    assert set(kinds) == {torch.bfloat16}
    assert model.head.weight.dtype == torch.float32
    assert metrics("half")[2]["loss"] == pytest.approx(metrics("full")[2]["loss"], rel=0.05)


def test_a_reader_that_is_killed_is_one_clear_error(fit):
    class Deadly(ToyClips):
        def __getitem__(self, n: int) -> Clip:
            if n == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(n)

    with pytest.raises(TubeletError, match=r"lower train\.workers=1"):
        fit("run", clips=Deadly(), workers=1)


def test_too_little_memory_on_the_device_names_the_fields_to_change(fit):
    class Large(ToyModel):
        def forward(self, clips: list[Clip]) -> Losses:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    with pytest.raises(TubeletError, match=r"train\.batch_size=2: lower it .*2\.00 GiB\.\)$"):
        fit("run", Large())


def test_threads_are_left_alone_unless_asked_for(fit, monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    fit("plain", iterations=1)
    assert asked == []
    fit("one", iterations=1, threads=1)
    assert asked == [1]


def test_a_training_can_run_beside_the_main_thread(tmp_path: Path):
    import threading

    done = []
    config = TrainConfig(iterations=2, workers=0)
    thread = threading.Thread(
        target=lambda: done.append(train(ToyModel(), ToyClips(), config, SGD_TOY, tmp_path, device="cpu"))
    )
    thread.start()
    thread.join()
    assert done[0].finished
