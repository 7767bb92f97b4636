"""Learn when an undetected object is visible: the weights of `recall.presence`, of a model that recalls objects.

    python benchmarks/learn_presence.py instances.json --pasted others.json --clips 80

Clips are made from images with masks, each moved as by a camera, with objects of other images passing before and
behind. The model follows what it finds. Whenever an object that it knows is not detected, its mask is predicted at its
last box, and the truth says whether it is there: a logistic regression learns to tell. Printed are what a threshold
keeps of visible objects and of others, and the weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from tubelet.core import masks as rle
from tubelet.core.types import Clip, Tracks, Video, VideoSet
from tubelet.data.geometry import Geometry, HorizontalFlip, PseudoMotion, RandomScaleCrop
from tubelet.data.pasting import PasteObjects
from tubelet.formats import coco
from tubelet.models import weights
from tubelet.models.rcnn.heads.crops import sureness
from tubelet.models.rcnn.heads.paste import FrameMasks
from tubelet.models.rcnn.memory import Memory
from tubelet.models.rcnn.model import MaskTrackRCNN
from tubelet.models.rcnn.recall import PresenceConfig, Search, signs_of

FRAMES = 24  # of a clip
MOTION = Geometry(steps=(PseudoMotion(), RandomScaleCrop(height=360, width=480, zoom=(0.7, 1.4)), HorizontalFlip()))
PASSING = PasteObjects(count=(1, 3), size=(0.2, 0.5), travel=1.0, behind=0.4)
KNOWN = 0.5  # IoU of an object's detection with a true mask from which the object is that one
THERE = 0.4  # IoU of its mask with that object's from which it is visible
ELSEWHERE = 0.15  # IoU below which it is not; in between nothing is learned
DECAY = 0.25  # of the weights
NAMES = ("agreement", "gap", "sureness", "near", "overlap")


@dataclass(slots=True)
class Undetected:
    """Undetected objects of a frame: who they are, what is known of them, and their masks."""

    ids: list[int]
    signs: Tensor  # [L, 5]
    masks: Tensor  # bool [L, H, W]


@dataclass(slots=True)
class Rows:
    """What a logistic regression learns from."""

    signs: list[Tensor] = field(default_factory=list)  # [5] each
    visible: list[bool] = field(default_factory=list)


class Watched(MaskTrackRCNN):
    """The model, which takes every undetected object for visible and notes what is known of it."""

    undetected: Undetected | None = None  # of the last frame

    def visible(self, memory: Memory, lost: Tensor, search: Search, masks: FrameMasks) -> Tensor:
        known = signs_of(memory, lost, search, sureness(masks, typical=1.0))
        self.undetected = Undetected(memory.ids[lost].tolist(), known, masks.probabilities > 0.5)
        return torch.ones(len(lost), dtype=torch.bool)


def watched(name: str) -> Watched:
    """Load a model as one that is watched."""
    model = weights.load(name, device="cpu", engine="torch")
    if not isinstance(model, MaskTrackRCNN) or model.config.recall is None:
        raise SystemExit(f"{name}: expected a model that recalls objects")
    recall = model.config.recall.but(agreement=0.0, presence=None)
    other = Watched(model.config.but(recall=recall), model.classes)
    other.load_state_dict(model.state_dict())
    other.precision = model.precision
    return other.eval().to(memory_format=torch.channels_last)


def clips(scenes: VideoSet, pasted: VideoSet, count: int, rng: np.random.Generator) -> Iterator[Clip]:
    """Make clips with truth from images with masks."""
    paste = PASSING.build(pasted)
    usable = [video for video in scenes.videos if any(_is_whole(video, n) for n in range(len(video.tracks or ())))]
    for _ in range(count):
        video = usable[int(rng.integers(len(usable)))]
        yield paste(MOTION(_still(video, len(scenes.classes)), rng), rng)


def _is_whole(video: Video, number: int) -> bool:
    track = (video.tracks or ())[number]
    return not track.ignore and track.rles[0] is not None


def _still(video: Video, num_classes: int) -> Clip:
    """An image as a clip in which nothing moves."""
    tracks = [track for n, track in enumerate(video.tracks or ()) if _is_whole(video, n)]
    outlines = torch.from_numpy(rle.decode([outline for track in tracks if (outline := track.rles[0]) is not None]))
    scores = torch.zeros(len(tracks), num_classes)
    scores[range(len(tracks)), [track.label for track in tracks]] = 1

    index = torch.arange(FRAMES)
    truth = Tracks(
        ids=torch.arange(len(tracks)),
        scores=scores,
        masks=outlines[:, None].float().expand(-1, FRAMES, -1, -1),
        index=index,
    )
    frames = video.frames[0][None].expand(FRAMES, -1, -1, -1)
    return Clip(frames=frames, index=index, key=index >= 0, tracks=truth)


def watch(model: Watched, clip: Clip, rows: Rows) -> None:
    """Follow the objects of a clip, and add a row for each one whenever it is not detected."""
    assert clip.tracks is not None
    truth = clip.tracks.binary.bool()
    true_of: dict[int, int] = {}  # the number of the true object that an id was when it was last detected
    state = model.start()

    for t in range(len(clip)):
        model.undetected = None
        one = slice(t, t + 1)
        state, found = model.step(state, Clip(frames=clip.frames[one], index=clip.index[one], key=clip.key[one]))

        detected = set(state.ids[state.seen == t].tolist())
        for track_id, mask in zip(found.ids.tolist(), found.binary[:, 0].bool(), strict=True):
            if track_id in detected:
                overlaps = _overlaps(mask, truth[:, t])
                true_of.pop(track_id, None)
                if len(overlaps) and overlaps.max() > KNOWN:
                    true_of[track_id] = int(overlaps.argmax())
        if model.undetected is not None:
            _add(rows, model.undetected, true_of, truth[:, t])


def _add(rows: Rows, undetected: Undetected, true_of: dict[int, int], truth: Tensor) -> None:
    for track_id, known, mask in zip(undetected.ids, undetected.signs, undetected.masks, strict=True):
        if track_id not in true_of or not mask.any():
            continue
        overlap = float(_overlaps(mask, truth[true_of[track_id]][None])[0])
        if overlap > THERE or overlap < ELSEWHERE:
            rows.signs.append(known)
            rows.visible.append(overlap > THERE)


def _overlaps(mask: Tensor, others: Tensor) -> Tensor:
    """IoU of a mask [H, W] with others [N, H, W]."""
    common = (mask & others).flatten(1).sum(1)
    either = (mask | others).flatten(1).sum(1)
    return common / either.clamp(min=1)


def fit(known: np.ndarray, visible: np.ndarray) -> PresenceConfig:
    """Fit a logistic regression of `visible`, bool [N], on the signs `known`, [N, 5]."""
    columns = np.concatenate([np.ones((len(known), 1)), known], 1).astype(np.float64)
    signed = np.where(visible, 1.0, -1.0)[:, None] * columns

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signed @ values
        gradient = -(signed / (1 + np.exp(margins))[:, None]).sum(0)
        decayed = np.r_[0, values[1:]]  # not the bias
        return float(np.logaddexp(0, -margins).sum() + DECAY * decayed @ decayed), gradient + 2 * DECAY * decayed

    values = minimize(loss, np.zeros(columns.shape[1]), jac=True).x
    return PresenceConfig(**dict(zip(("bias", *NAMES), np.round(values, 3).tolist(), strict=True)))


def report(known: np.ndarray, visible: np.ndarray, agreement: float) -> None:
    """Print what a threshold keeps of visible objects and of invented ones, each fifth told by the other four."""
    probability = np.zeros(len(visible))
    for part in range(5):
        held = np.arange(len(visible)) * 5 // len(visible) == part  # clips stay together, but for four of them
        told = fit(known[~held], visible[~held])
        odds = told.bias + known[held] @ [getattr(told, name) for name in NAMES]
        probability[held] = 1 / (1 + np.exp(-odds))

    rules = {f"agreement {agreement:g}": known[:, 0] >= np.log(agreement / (1 - agreement))}
    rules |= {f"presence {least:g}": probability >= least for least in (0.3, 0.4, 0.5, 0.6)}
    print(f"{visible.sum()} visible, {(~visible).sum()} not")
    for name, kept in rules.items():
        share, invented = kept[visible].mean(), kept[~visible].mean()
        print(f"{name}: kept {share:.0%} of the visible and {invented:.0%} of the others", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, help="images with masks, in COCO's form")
    parser.add_argument("--pasted", type=Path, help="images whose objects pass through; default: the same")
    parser.add_argument("--model", default="default")
    parser.add_argument("--clips", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    scenes = coco.read(arguments.scenes)
    pasted = coco.read(arguments.pasted) if arguments.pasted else scenes
    model = watched(arguments.model)
    rows = Rows()
    with torch.inference_mode():
        for clip in clips(scenes, pasted, arguments.clips, np.random.default_rng(arguments.seed)):
            watch(model, clip, rows)

    known, visible = torch.stack(rows.signs).numpy(), np.array(rows.visible)
    report(known, visible, agreement=0.3)
    print(fit(known, visible))


if __name__ == "__main__":
    main()
