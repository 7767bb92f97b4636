"""Trainings that one process makes alone and two make together, in the same words; run as a script, it is one of two.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 python pair_training.py OUT PORT PORT ...

makes them one after another, each over a port of its own. At the end process 1 falls silent. OUT/told.json holds what
process 0 has to tell: how much of each parameter it held, and what it said of the silence, and when.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from toy_training import SGD_TOY, Scores, ToyClips, ToyModel, closeness

from tubelet.core.errors import TubeletError
from tubelet.core.types import Clip, Losses, Tracks
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import InputConfig, KeepRatio
from tubelet.models.rcnn.detectors.two_stage import TwoStageConfig
from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.model import MaskTrackConfig
from tubelet.training import distributed, loop
from tubelet.training.loop import TrainConfig, train
from tubelet.training.optim import SGD, AdamW, OptimConfig
from tubelet.training.parallel import Slices
from tubelet.training.sharded_tensors import own


class BlackClips(ToyClips):
    """The toy's, but for one black clip, of which `GatedModel` makes an infinite loss."""

    def __init__(self, black: int | None = None) -> None:
        self.black = black

    def __getitem__(self, n: int) -> Clip:
        clip = super().__getitem__(n)
        return Clip(frames=clip.frames * 0, index=clip.index, key=clip.key) if n == self.black else clip


class GatedModel(ToyModel):
    """With a lone number, and weights that few clips use: in some steps one process of two, in some none."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.odd, self.idle = nn.Parameter(torch.tensor(0.5)), nn.Linear(8, 3), nn.Linear(8, 3)
        self.drop.register_forward_hook(self._see)

    def _see(self, module: nn.Module, given: object, features: torch.Tensor) -> None:
        self.features = features

    def forward(self, clips: list[Clip]) -> Losses:
        losses = super().forward(clips)
        if "rare" in losses:
            losses["rare"] = losses["rare"] * self.gate
        chosen = torch.tensor([float(clip.index[0] == 4) for clip in clips])  # one clip of five
        if chosen.any():
            losses["odd"] = self.odd(self.features).square().mean(1).mul(chosen).mean()
        if any(not clip.frames.any() for clip in clips):
            losses["class"] = losses["class"] * torch.inf
        return losses


class Scenes:
    """Pairs of noisy frames with the same two thin objects in each, so that every clip gives as many samples."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, n: int) -> Clip:
        drawn = torch.Generator().manual_seed(n)
        frames = torch.randint(0, 256, (2, 3, 64, 64), generator=drawn, dtype=torch.uint8)
        masks = torch.zeros(2, 2, 64, 64, dtype=torch.bool)
        masks[0, :, 8:56, 8:12], masks[1, :, 44:48, 4:60] = True, True
        index = torch.tensor([0, 1])
        tracks = Tracks(ids=index, scores=torch.eye(3)[:2], masks=masks, index=index)
        return Clip(frames=frames, index=index, key=torch.tensor([True, False]), tracks=tracks)


def small_masktrack() -> nn.Module:
    """A real one: nothing suppressed and all sampled, so that chance and counts are the same in any split."""
    torch.manual_seed(1)
    detector = TwoStageConfig(
        input=InputConfig(resize=KeepRatio(long=64, short=64)),
        backbone=BackboneConfig(name="resnet18", frozen_stages=1),
        channels=16,
        proposals_per_level=8,
        proposals=24,
        proposal_nms=1.0,
        anchors_sampled=4096,
        anchors_inside=False,
        regions_sampled=4096,
        positive_overlap=1.0,
        anchor_least_overlap=0.0,
        box_channels=32,
    )
    mask, match = MaskHeadConfig(convs=1, channels=16), FullyConnectedMatchConfig(channels=16)
    return MaskTrackConfig(detector=detector, mask=mask, match=match).build(("dog", "cat", "car"))


@dataclass(frozen=True)
class Job:
    """A training in a folder; of `clips_per_step`, each of n processes takes an n-th, in two parts where `halves`."""

    out: str
    model: Callable[[], nn.Module]
    clips: ToyClips | Scenes
    optim: OptimConfig
    sharding: str = "none"
    units: tuple[str, ...] = ()
    steps: int = 6
    halves: bool = False
    ema: float | None = None

    def run(self, folder: Path, *, processes: int = 1, steps: int | None = None, resume: bool = False) -> None:
        """Alone the same clips make one batch; `resume` goes on with what is in the folder."""
        loop.training_curve = lambda metrics, out: None
        parts = 2 if self.halves and processes > 1 else 1
        config = TrainConfig(
            iterations=steps or self.steps,
            batch_size=(8 if isinstance(self.clips, ToyClips) else 2) // processes // parts,
            accumulate=parts,
            workers=0,
            log_every=1,
            clip_norm=0.5,
            ema=self.ema,
            sharding=self.sharding if processes > 1 else "none",
            sharding_units=self.units,
            timeout=60,
        )
        train(
            self.model(),
            self.clips,
            config,
            self.optim,
            folder / self.out,
            resume=resume,
            device="cpu",
            validation=Scores(closeness, every=3) if isinstance(self.clips, ToyClips) else None,
        )


MOMENTUM, ADAM = SGD_TOY, AdamW(lr=0.01, warmup=2)
TOY_SLICED = Job("toy-sliced", GatedModel, BlackClips(19), ADAM, "full", ("body.4",), halves=True, ema=0.8)
TOY_COPIED = Job("toy-copied", GatedModel, BlackClips(19), ADAM, halves=True, ema=0.8)
REAL_SLICED = Job(
    "real-sliced", small_masktrack, Scenes(), SGD(warmup=0), "full", ("detector.backbone.body.layer?",), 3
)
REAL_COPIED = Job("real-copied", small_masktrack, Scenes(), SGD(warmup=0), steps=3)
BEGUN_ALONE = Job("begun-alone", GatedModel, BlackClips(), MOMENTUM, "full", ema=0.8)
BEGUN_TOGETHER = Job("begun-together", GatedModel, BlackClips(), MOMENTUM, "full", ema=0.8)


def together(folder: Path, ports: list[str]) -> None:
    """What this process has to do of all."""
    held: list[tuple[str, int, int]] = []

    class Counted(Slices):
        def bound_gradients(self, limit: float | None) -> float:
            held.extend((name, own(p).numel(), p.numel()) for name, p in self.model.named_parameters())
            return super().bound_gradients(limit)

    distributed.Slices = Counted  # type: ignore[misc]
    for job, steps, resume in (
        (TOY_SLICED, None, False),
        (TOY_COPIED, None, False),
        (REAL_SLICED, None, False),
        (REAL_COPIED, None, False),
        (BEGUN_TOGETHER, 3, False),
        (BEGUN_ALONE, None, True),
    ):
        os.environ["MASTER_PORT"] = ports.pop()
        job.run(folder, processes=2, steps=steps, resume=resume)
    os.environ["MASTER_PORT"] = ports.pop()
    told = {"held": held, **silence(patience=3.0)}
    (folder / "told.json").write_text(json.dumps(told))


def silence(patience: float) -> dict[str, object]:
    """Process 1 joins and says nothing more, but is alive."""
    begun = time.monotonic()
    try:
        with distributed.join("cpu", patience) as world:
            if world.rank == 1:
                time.sleep(2 * patience)
                os._exit(0)
            begun = time.monotonic()
            world.gather("are you there?")
    except TubeletError as error:
        return {"said": str(error), "after": time.monotonic() - begun}
    return {}


if __name__ == "__main__":
    torch.set_num_threads(1)
    together(Path(sys.argv[1]), sys.argv[2:])
    sys.stderr.flush()
    os._exit(0)  # as the command ends after a silent fellow: threads that wait for it would abort an ordinary end
