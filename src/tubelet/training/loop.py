"""The training loop, from top to bottom: read, forward, backward, step, log, save.

Repeatable: clip numbers follow from the step, random numbers from (seed, step, part, rank). So a training that was
killed and resumed gives the losses, to the last bit on a CPU, of one that was not; and the order of the clips is the
same whatever the number of workers and processes, as long as batch_size x accumulate x processes is.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tubelet.core.atomic import sweep
from tubelet.core.config import Config
from tubelet.core.errors import InputError
from tubelet.core.types import Clip
from tubelet.core.untrusted.documents import decode_json
from tubelet.drawing.curves import training_curve
from tubelet.training import checkpoint
from tubelet.training.checkpoint import TrainingProgress, TrainingState, writing
from tubelet.training.distributed import PATIENCE, Processes, join
from tubelet.training.loading import Clips, numbers, read
from tubelet.training.log import Log, read_metrics
from tubelet.training.optim import OptimConfig, WeightAverage
from tubelet.training.parallel import Alone
from tubelet.training.sharded_tensors import whole
from tubelet.training.stopping import Diverged, plain_faults, stop_signals

CHECKPOINTS = "checkpoints"  # the folder of them, in that of a training

logger = logging.getLogger("tubelet.training")


class TrainConfig(Config):
    """How long, how many at a time, and what to keep. An iteration is one step of the optimizer."""

    iterations: int = Field(default=10_000, ge=1)
    batch_size: int = Field(default=2, ge=1)  # clips at a time, in each process
    accumulate: int = Field(default=1, ge=1)  # batches per step
    workers: int = Field(default=2, ge=0)  # processes that read clips, beside each training process
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast
    clip_norm: float | None = Field(default=35.0, gt=0)  # bound of the gradient's norm
    patience: int = Field(default=10, ge=1)  # steps in a row that may be skipped because they are not finite
    ema: float | None = Field(default=None, gt=0, lt=1)  # decay of the weights' moving average, then the final model
    seed: int = Field(default=0, ge=0)
    log_every: int = Field(default=20, ge=1)
    checkpoint_every: int = Field(default=1000, ge=1)
    keep: int = Field(default=2, ge=1)  # checkpoints
    threads: int | None = Field(default=None, ge=1)  # of torch in each process; null leaves them as they are
    sharding: Literal["none", "full"] = "none"  # full: each process holds a slice of all that is trained (FSDP2)
    # names of modules (* for any part) whose slices are put together only while they run, in each batch
    sharding_units: tuple[str, ...] = ()
    timeout: float = Field(default=PATIENCE, gt=0)  # seconds without a word after which a fellow process counts as gone


# these alter the result; the others may change when a training is resumed, as long as the clips per step stay
_HELD = {"precision", "clip_norm", "ema", "seed"}
FREE = tuple(f"train.{name}" for name in TrainConfig.model_fields if name not in _HELD)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOutcome:
    """Where a training stands when `train` returns: finished with a model, or interrupted with a checkpoint."""

    step: int
    checkpoint: Path
    model: Path | None

    @property
    def finished(self) -> bool:
        """Whether all iterations are done."""
        return self.model is not None


def train(
    model: nn.Module,
    clips: Clips,
    config: TrainConfig,
    optim: OptimConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    describe: Mapping[str, str] | None = None,
) -> TrainingOutcome:
    """Train a model whose `forward(list[Clip])` gives named losses; it ends up in `out`/model.safetensors.

    Beside it: checkpoints/, metrics.jsonl, curve.png. `describe` holds JSON texts for the final model's metadata,
    `config` and `classes`. On SIGINT or SIGTERM it ends the step, writes a checkpoint and returns. Raises InputError
    where `out` holds a training and `resume` is false, ConfigError where it holds one with other settings, Diverged,
    TubeletError for a full disk, too little memory or a fellow process that is gone, and what the clips raise. A model
    that was trained with `sharding` is left in slices: load it from the file.
    """
    with (
        join(device, config.timeout) as world,
        stop_signals() as signals,
        plain_faults(config.batch_size, config.accumulate, config.workers),
    ):
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        model.to(world.device).train()
        spread = world.spread(model, config.sharding, config.sharding_units)
        state = TrainingState(model=model, optimizer=optim.build(model))
        if config.ema is not None and (world.main or spread.sliced):
            state.average = WeightAverage(model, config.ema)
        settings = _settings(config, optim, world, clips, describe or {})
        _find_start(out, settings, state, resume=resume, keep=config.keep, world=world)
        progress = state.progress
        ahead = numbers(
            progress.samples, (config.iterations - progress.step) * config.accumulate, config.batch_size, world
        )
        log = Log(out / "metrics.jsonl", progress, iterations=config.iterations, main=world.main)

        stop = False
        with closing(read(clips, ahead, config.workers)) as batches, log:
            while progress.step < config.iterations and not stop:
                rate = optim.set_rate(state.optimizer, progress.step, config.iterations)
                state.optimizer.zero_grad()
                parts = []
                for part in range(config.accumulate):
                    with log.waiting():
                        batch = next(batches)
                    _seed(config.seed, progress.step, part, world.rank)  # after reading, which may draw too
                    parts.append(_backward(spread, batch, config, world, last=part == config.accumulate - 1))
                norm = spread.bound_gradients(config.clip_norm)

                told = world.gather((parts, norm, signals.stop))  # all processes decide alike
                losses = _means([part for theirs, _, _ in told for part in theirs])
                finite = all(math.isfinite(x) for x in [*losses.values(), *(theirs for _, theirs, _ in told)])
                stop = any(theirs for _, _, theirs in told)

                progress.count(losses, norm, _clips_per_step(config, world), finite=finite)
                if finite:
                    state.optimizer.step()
                    if state.average is not None:
                        state.average.update(model, progress.step - progress.skipped)
                else:
                    _warn_or_give_up(progress, losses, norm, config, world)

                last = progress.step == config.iterations
                if last or progress.step % config.log_every == 0:
                    log.write(rate)
                if last or stop or progress.step % config.checkpoint_every == 0:
                    checkpoint.save(out / CHECKPOINTS, settings, state, main=world.main)
                    if world.main:
                        checkpoint.prune(out / CHECKPOINTS, config.keep)
                    if world.main and not last:
                        _draw_curve(out)
                log.show(losses)
        return _finish(state, config, out, describe or {}, world)


def _backward(
    model: Alone, clips: list[Clip], config: TrainConfig, world: Processes, *, last: bool
) -> dict[str, float]:
    """Add one batch's share of the step's gradients; returns its losses."""
    with model.accumulating(last=last):
        with torch.autocast(world.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            losses: dict[str, Tensor] = model([clip.to(world.device) for clip in clips])
        assert losses, "the model's forward gave no losses"
        values = torch.stack([loss.float() for loss in losses.values()])
        torch.autograd.backward(values.sum() / config.accumulate)
    return dict(zip(losses, values.tolist(), strict=True))


def _means(parts: list[dict[str, float]]) -> dict[str, float]:
    """Over batches and processes; a loss that one of them does not name counts as 0 there, as it does in the sum."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: math.fsum(part.get(name, 0.0) for part in parts) / len(parts) for name in names}


def _warn_or_give_up(
    progress: TrainingProgress, losses: dict[str, float], norm: float, config: TrainConfig, world: Processes
) -> None:
    told = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    what = f"losses or gradients are not finite at step {progress.step} ({told}; gradient norm {norm:.4g})"
    if progress.failures >= config.patience:
        raise Diverged(f"{what}, {progress.failures} steps in a row: lower optim.lr or train.clip_norm, or use fp32")
    if world.main:
        logger.warning("%s: step skipped, %d so far", what, progress.skipped)


def _draw_curve(out: Path) -> None:
    with writing(out / "curve.png"):
        if any("loss" in line for line in read_metrics(out / "metrics.jsonl")):
            training_curve(out / "metrics.jsonl", out / "curve.png")


def _find_start(
    out: Path, settings: dict[str, Any], state: TrainingState, *, resume: bool, keep: int, world: Processes
) -> None:
    """The latest checkpoint, or one written now, before the first step: a random start is part of what is repeated."""
    folder = out / CHECKPOINTS
    if world.main:
        sweep(out)
        sweep(folder)
    found = checkpoint.saved(folder)
    if found and not resume:
        raise InputError(f"{out} holds a training already: --resume goes on with it, another --out begins anew")
    checkpoint.resume(folder, settings, state, free=FREE)
    world.same(state.progress.step, "the step of the latest checkpoint")  # and only then may rank 0 write one
    if not found:
        checkpoint.save(folder, settings, state, main=world.main)
    if world.main:
        checkpoint.prune(folder, keep)  # a kill may have come between the latest checkpoint and the end of an older one
    if world.main and resume:
        logger.info("resuming after step %d of the training in %s", state.progress.step, out)


def _finish(
    state: TrainingState, config: TrainConfig, out: Path, describe: Mapping[str, str], world: Processes
) -> TrainingOutcome:
    step, total = state.progress.step, config.iterations
    written = checkpoint.path_of(out / CHECKPOINTS, step)
    if step < total:
        if world.main:
            logger.warning("stopped after step %d of %d; the same command with --resume goes on", step, total)
        return TrainingOutcome(step=step, checkpoint=written, model=None)
    final = out / "model.safetensors"
    weights = whole(state.model.state_dict() if state.average is None else state.average.weights, keep=world.main)
    if world.main:
        _draw_curve(out)
        checkpoint.save_model(final, weights, describe)
    return TrainingOutcome(step=step, checkpoint=written, model=final)


def _settings(
    config: TrainConfig, optim: OptimConfig, world: Processes, clips: Clips, describe: Mapping[str, str]
) -> dict[str, Any]:
    """What a resumed training must agree with, but for the names in FREE."""
    return {
        "train": config.model_dump(mode="json"),
        "train.batch_size x train.accumulate x processes": _clips_per_step(config, world),
        "optim": optim.model_dump(mode="json"),
        "the number of clips": len(clips),
        **{name: decode_json(text, name) for name, text in describe.items()},
    }


def _clips_per_step(config: TrainConfig, world: Processes) -> int:
    return config.batch_size * config.accumulate * world.size


def _seed(seed: int, step: int, part: int, rank: int) -> None:
    words = np.random.SeedSequence([seed, step, part, rank]).generate_state(3, np.uint32).tolist()
    torch.manual_seed(words[0])
    random.seed(words[1])
    np.random.seed(words[2])  # noqa: NPY002  # a model from outside may draw from the global generator
