"""The training loop, from top to bottom: read, forward, backward, step, log, validate, save.

Repeatable: the numbers of the clips follow from the step, random numbers from (seed, step, part,
rank). So a training that was killed and resumed has the losses, to the last bit on a CPU, of one
that was not; and the order of the clips is the same for any number of workers and processes, as
long as batch_size x accumulate x processes is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tubelet.core.atomic import sweep
from tubelet.core.config import Config, at_default
from tubelet.core.errors import InputError
from tubelet.core.types import Clip
from tubelet.core.untrusted.documents import decode_json
from tubelet.drawing.curves import training_curve
from tubelet.training import checkpoint
from tubelet.training.advice import Adviser
from tubelet.training.checkpoint import TrainingProgress, TrainingState, writing
from tubelet.training.culprits import save_batch
from tubelet.training.distributed import PATIENCE, Processes, join
from tubelet.training.loading import Clips, numbers, read
from tubelet.training.log import Log, read_metrics
from tubelet.training.optim import OptimConfig, WeightAverage
from tubelet.training.parallel import Alone
from tubelet.training.seeds import seed_everything
from tubelet.training.sharded_tensors import whole
from tubelet.training.stopping import Diverged, plain_faults, stop_signals
from tubelet.training.trackers import Name, open_trackers
from tubelet.training.validation import BEST, Validation, Validator, interval

CHECKPOINTS = "checkpoints"  # their folder, in that of a training
MODEL = "model.safetensors"

logger = logging.getLogger("tubelet.training")


class TrainConfig(Config):
    """How long to train, how many clips at a time, and what to keep.

    An iteration is one step of the optimizer.

    Example:
        >>> from tubelet.training.loop import TrainConfig
        >>> TrainConfig(iterations=500, batch_size=4).but(ema=0.999).ema
        0.999
    """

    iterations: int = Field(default=10_000, ge=1)
    batch_size: int = Field(default=2, ge=1)  # clips at a time, in each process
    accumulate: int = Field(default=1, ge=1)  # batches per step
    workers: int = Field(default=2, ge=0)  # processes that read clips for each training process, at most one a core
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast
    clip_norm: float | None = Field(default=35.0, gt=0)  # largest norm of the gradient
    most_skipped: int = Field(default=10, ge=1)  # steps in a row that may be skipped because they are not finite
    patience: int | None = Field(default=None, ge=1)  # validations without a better one, after which training stops
    ema: float | None = Field(default=None, gt=0, lt=1)  # decay of the weights' moving average, the final model
    seed: int = Field(default=0, ge=0)
    log_every: int = Field(default=20, ge=1)
    log: tuple[Name, ...] = ()  # other programs that get the log: tensorboard, wandb, mlflow
    checkpoint_every: int = Field(default=1000, ge=1)
    keep: int = Field(default=2, ge=1)  # checkpoints
    threads: int | None = Field(default=None, ge=1)  # of torch in each process; null leaves them as they are
    sharding: Literal["none", "full"] = "none"  # full: each process holds a slice of all that is trained (FSDP2)
    # names of modules (* for any part) whose slices are put together only while they run, in each batch
    sharding_units: tuple[str, ...] = ()
    timeout: float = Field(default=PATIENCE, gt=0)  # seconds after which a process that does not answer counts as gone


# these alter the result; the others may change when a training is resumed, as long as the clips per step stay
_FIXED = {"precision", "clip_norm", "ema", "seed"}
FREE = (*(f"train.{name}" for name in TrainConfig.model_fields if name not in _FIXED), "recipe_name")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOutcome:
    """Where a training stands when `train` returns: finished with a model, or interrupted with a checkpoint.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.training.loop import TrainingOutcome
        >>> TrainingOutcome(step=5, checkpoint=Path("run/checkpoints/step-000005"), model=None).finished
        False
    """

    step: int
    checkpoint: Path
    model: Path | None
    best: Path | None = None  # the weights of the best validation

    @property
    def finished(self) -> bool:
        """Whether all iterations are done, or no more are wanted (`train.patience`)."""
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
    defaults: Collection[str] = (),
    validation: Validation | None = None,
    quiet: bool = False,
    watch: Callable[[int, int], bool] | None = None,
) -> TrainingOutcome:
    """Train a model whose `forward(list[Clip])` gives named losses, and save it as `out`/model.safetensors.

    Beside it are written checkpoints/, metrics.jsonl, curve.png and, with `validation`,
    best.safetensors: the weights of the best validation. On SIGINT or SIGTERM the loop ends the step,
    writes a checkpoint and returns. A model that was trained with `sharding` stays in slices: load it
    from the file.

    Args:
        describe: JSON texts for the models' metadata, such as `config` and `classes`.
        defaults: dotted names of what stands at its default in `describe`, such as `config.neck`: a training that
            began before there was such a setting can be resumed.
        validation: judges the weights between steps, without any effect on the training.
        quiet: show no progress.
        watch: called after each step with the number of steps done and of all; once it returns False,
            the next step is the last, as after a signal.

    Raises:
        InputError: if `out` holds a training and `resume` is false.
        ConfigError: if `out` holds a training with other settings.
        Diverged: if too many steps in a row are not finite.
        TubeletError: for a full disk, too little memory, or another process that is gone; and what
            the clips raise.
    """
    metadata = describe or {}
    with (
        join(device, config.timeout) as world,
        stop_signals() as signals,
        plain_faults(config.batch_size, config.accumulate, config.workers),
    ):
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        model.to(world.device).train()
        validator = None if validation is None else Validator(model, validation, out, world, config.seed)
        spread = world.spread(model, config.sharding, config.sharding_units)
        state = TrainingState(model=model, optimizer=optim.build(model))
        if config.ema is not None and (world.main or spread.sliced):
            state.average = WeightAverage(model, config.ema)

        settings = _settings(config, optim, world, clips, metadata)
        known = {*defaults, *_at_default("train", config), *_at_default("optim", optim)}
        _find_start(out, settings, known, state, resume=resume, keep=config.keep, world=world)
        progress = state.progress
        if validation is not None:
            _compare_validations(progress, validation)
        remaining = (config.iterations - progress.step) * config.accumulate
        ahead = numbers(progress.samples, remaining, config.batch_size, world)
        adviser = Adviser(progress, main=world.main)
        log = Log(
            out / "metrics.jsonl",
            progress,
            iterations=config.iterations,
            main=world.main,
            quiet=quiet,
            trackers=open_trackers(config.log, out, progress.step) if world.main else (),
        )

        numbers_ahead = iter(ahead)
        stop = False
        with closing(read(clips, ahead, config.workers)) as batches, log:
            if validator is not None and validator.validation.start and progress.step == 0:
                log.write_validation(validator.run(state, metadata))
                progress.without_better = 0  # nothing was tried yet
            while progress.step < config.iterations and not stop and not _exhausted(progress, config):
                rate = optim.set_rate(state.optimizer, progress.step, config.iterations)
                state.optimizer.zero_grad()
                parts = []
                read_numbers: list[int] = []
                for part in range(config.accumulate):
                    with log.waiting():
                        batch = next(batches)
                    adviser.after_reading(batch)
                    read_numbers += next(numbers_ahead)
                    # after reading, which may draw random numbers too
                    seed_everything(config.seed, progress.step, part, world.rank)
                    parts.append(_backward(spread, batch, config, world, last=part == config.accumulate - 1))
                norm = spread.bound_gradients(config.clip_norm)

                reports = world.gather((parts, norm, signals.stop))  # all processes decide alike
                losses = _means([part for parts, _, _ in reports for part in parts])
                finite = all(math.isfinite(x) for x in [*losses.values(), *(norm for _, norm, _ in reports)])
                stop = any(asked for _, _, asked in reports)

                progress.count(losses, norm, _clips_per_step(config, world), finite=finite)
                if finite:
                    state.optimizer.step()
                    if state.average is not None:
                        state.average.update(model, progress.step - progress.skipped)
                else:
                    is_culprit = not all(math.isfinite(x) for part in parts for x in part.values())
                    saved = None
                    if is_culprit or (world.main and all(map(math.isfinite, losses.values()))):
                        saved = save_batch(
                            out,
                            clips,
                            read_numbers,
                            step=progress.step,
                            seed=config.seed,
                            rank=world.rank,
                            losses=_means(parts),
                        )
                    _warn_or_give_up(progress, losses, norm, config, world, saved)

                last = progress.step == config.iterations
                if last or progress.step % config.log_every == 0:
                    log.write(rate)
                    adviser.after_line(log.losses)

                if validator is not None and _validates(progress.step, config, validator.validation):
                    judgement = validator.run(state, metadata)
                    log.write_validation(judgement)
                    adviser.after_validation(judgement)
                    last = last or _exhausted(progress, config)

                if last or stop or progress.step % config.checkpoint_every == 0:
                    checkpoint.save(out / CHECKPOINTS, settings, state, main=world.main)
                    if world.main:
                        checkpoint.prune(out / CHECKPOINTS, config.keep)
                    if world.main and not last:
                        _draw_curve(out)
                log.show(losses)
                if watch is not None and not watch(progress.step, config.iterations):
                    signals.stop = True
        return _finish(state, config, out, metadata, world)


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
    """Means over batches and processes; a loss that one of them does not name counts as 0 there, as in the sum."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: math.fsum(part.get(name, 0.0) for part in parts) / len(parts) for name in names}


def _warn_or_give_up(
    progress: TrainingProgress,
    losses: dict[str, float],
    norm: float,
    config: TrainConfig,
    world: Processes,
    saved: Path | None,
) -> None:
    values = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    what = f"losses or gradients are not finite at step {progress.step} ({values}; gradient norm {norm:.4g})"
    if progress.failures >= config.most_skipped:
        raise Diverged(f"{what}, {progress.failures} steps in a row: lower optim.lr or train.clip_norm, or use fp32")
    where = f"; its clips are saved in {saved}" if saved is not None else ""
    if world.main or where:
        logger.warning("%s: step skipped, %d so far%s", what, progress.skipped, where)


def _validates(step: int, config: TrainConfig, validation: Validation) -> bool:
    return step == config.iterations or step % interval(validation.every, config.iterations) == 0


def _exhausted(progress: TrainingProgress, config: TrainConfig) -> bool:
    """Whether the last `train.patience` validations were no better than one before them."""
    return config.patience is not None and progress.without_better >= config.patience


def _compare_validations(progress: TrainingProgress, validation: Validation) -> None:
    """Forget the best value where it was measured in another way."""
    if progress.validated_by != validation.settings:
        progress.best = None
        progress.best_step = 0
        progress.without_better = 0
        progress.validated_by = validation.settings


def _draw_curve(out: Path) -> None:
    with writing(out / "curve.png"):
        if any("loss" in line for line in read_metrics(out / "metrics.jsonl")):
            training_curve(out / "metrics.jsonl", out / "curve.png")


def _find_start(
    out: Path,
    settings: dict[str, Any],
    defaults: Collection[str],
    state: TrainingState,
    *,
    resume: bool,
    keep: int,
    world: Processes,
) -> None:
    """Load the latest checkpoint, or write one before the first step: a random start is part of what is repeated."""
    folder = out / CHECKPOINTS
    if world.main:
        sweep(out)
        sweep(folder)

    exists = bool(checkpoint.saved(folder))
    if exists and not resume:
        raise InputError(f"{out} holds a training already: --resume goes on with it, another --out begins anew")
    checkpoint.resume(folder, settings, state, free=FREE, defaults=defaults)
    world.same(state.progress.step, "the step of the latest checkpoint")  # and only then may rank 0 write one
    if not exists:
        checkpoint.save(folder, settings, state, main=world.main)

    if world.main:
        checkpoint.prune(folder, keep)  # a kill may have come between the latest checkpoint and the end of an older one
    if world.main and resume:
        logger.info("resuming after step %d of the training in %s", state.progress.step, out)


def _finish(
    state: TrainingState, config: TrainConfig, out: Path, metadata: Mapping[str, str], world: Processes
) -> TrainingOutcome:
    progress = state.progress
    written = checkpoint.path_of(out / CHECKPOINTS, progress.step)
    best = out / BEST if progress.best is not None else None
    if progress.step < config.iterations and not _exhausted(progress, config):
        if world.main:
            logger.warning(
                "stopped after step %d of %d; the same command with --resume goes on", progress.step, config.iterations
            )
        return TrainingOutcome(step=progress.step, checkpoint=written, model=None, best=best)

    final = out / MODEL
    weights = whole(state.model.state_dict() if state.average is None else state.average.weights, keep=world.main)
    if world.main:
        _draw_curve(out)
        checkpoint.save_model(final, weights, {**metadata, "step": str(progress.step)})
    return TrainingOutcome(step=progress.step, checkpoint=written, model=final, best=best)


def _settings(
    config: TrainConfig, optim: OptimConfig, world: Processes, clips: Clips, metadata: Mapping[str, str]
) -> dict[str, Any]:
    """What a resumed training must agree with, except for the names in FREE."""
    return {
        "train": config.model_dump(mode="json"),
        "train.batch_size x train.accumulate x processes": _clips_per_step(config, world),
        "optim": optim.model_dump(mode="json"),
        "the number of clips": len(clips),
        **{name: decode_json(text, name) for name, text in metadata.items()},
    }


def _at_default(prefix: str, config: Config) -> set[str]:
    return {f"{prefix}.{name}" for name in at_default(config)}


def _clips_per_step(config: TrainConfig, world: Processes) -> int:
    return config.batch_size * config.accumulate * world.size
