"""The batch that made a loss infinite or undefined, saved so that it can be looked at and run again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from tubelet.core.atomic import replacing
from tubelet.core.types import Clip
from tubelet.training.checkpoint import write_tensors, writing
from tubelet.training.loading import Clips

FOLDER = "not-finite"  # in that of a training


def save_batch(
    out: Path, clips: Clips, numbers: Sequence[int], *, step: int, seed: int, rank: int, losses: Mapping[str, float]
) -> Path | None:
    """Save the clips of these numbers as `out`/not-finite/step-000123-rank-0.safetensors; returns the path.

    Only the first batch of a process is saved; for others the result is None. Tensors are named by
    the clip's number (`17/frames`, `17/masks`); the metadata holds step, seed, numbers and losses.
    """
    folder = out / FOLDER
    if any(folder.glob(f"step-*-rank-{rank}.safetensors")):
        return None
    tensors: dict[str, Tensor] = {}
    for number in numbers:  # read again: a number always gives the same clip
        for name, tensor in _tensors(clips[number]).items():
            tensors[f"{number}/{name}"] = tensor

    about = {"step": step, "seed": seed, "rank": rank, "clips": list(numbers), "losses": dict(losses)}
    path = folder / f"step-{step:06d}-rank-{rank}.safetensors"
    with writing(path):
        folder.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            write_tensors(temporary, tensors, {name: json.dumps(value) for name, value in about.items()})
    return path


def _tensors(clip: Clip) -> dict[str, Tensor]:
    tensors = {"frames": clip.frames, "index": clip.index, "key": clip.key}
    if clip.tracks is not None:
        tensors |= {"ids": clip.tracks.ids, "scores": clip.tracks.scores, "masks": clip.tracks.masks}
    return tensors
