"""Training clips: the one torch data set. Sample number n is the same clip on every machine, worker and rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from tubelet.core import masks as rle
from tubelet.core.errors import InputError
from tubelet.core.types import Clip, Tracks, Video, VideoSet
from tubelet.data.pasting import PasteObjects
from tubelet.data.sampling import AnySampler, Sample, valid_frames
from tubelet.data.warp import drop_absent

Transform = Callable[[Clip, np.random.Generator], Clip]


class Place(NamedTuple):
    """A video by position, a frame of it where epochs visit frames, and the epoch."""

    video: int
    frame: int | None
    epoch: int


class ClipDataset(Dataset[Clip]):
    """Clips by number: `dataset[n]`, for any n >= 0, belongs to epoch n // len(dataset).

    Each epoch visits every video once, or, `per="frame"`, every frame that holds an object (MaskTrack R-CNN), in an
    order of its own; all randomness of clip n comes from `default_rng([seed, n])`. So a run is resumed by starting at a
    number, and a rank takes every world-size-th one. Collate a batch with `list`. `PasteObjects` in `transforms` cuts
    from these same videos.

    With `keep_ignored`, crowds stay as tracks whose scores are all zero: regions to be ignored. Without, they are left
    out.
    """

    def __init__(
        self,
        videos: VideoSet,
        sampler: AnySampler,
        transforms: Sequence[Transform | PasteObjects] = (),
        seed: int = 0,
        *,
        per: Literal["video", "frame"] = "video",
        keep_ignored: bool = False,
    ) -> None:
        if not len(videos.videos):
            raise InputError("a data set for training needs at least one video")
        self.videos = videos
        self.sampler = sampler
        self.transforms = tuple(t.build(videos) if isinstance(t, PasteObjects) else t for t in transforms)
        self.seed = seed
        self.keep_ignored = keep_ignored
        self._frames = _annotated_frames(videos) if per == "frame" else None
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Clips per epoch."""
        return len(self.videos.videos) if self._frames is None else len(self._frames)

    def __getitem__(self, number: int) -> Clip:
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # a worker is one of several processes: threads of its own only get in the way
        place = self.locate(number)
        video = self.videos.videos[place.video]
        rng = np.random.default_rng([self.seed, number])
        sample = self.sampler.sample(video, rng, place.frame)
        clip = load_clip(video, sample, len(self.videos.classes), self.keep_ignored)
        for transform in self.transforms:
            clip = transform(clip, rng)
        return clip

    def locate(self, number: int) -> Place:
        """What clip `number` is about."""
        if number < 0:
            raise IndexError(f"clips are numbered from 0, got {number}")
        epoch, place = divmod(number, len(self))
        if self._order is None or self._order[0] != epoch:
            # the third word keeps this stream apart from that of clip number `epoch`
            self._order = (epoch, np.random.default_rng([self.seed, epoch, 1]).permutation(len(self)))
        chosen = int(self._order[1][place])
        return Place(chosen, None, epoch) if self._frames is None else Place(*self._frames[chosen], epoch)


def load_clip(video: Video, sample: Sample, num_classes: int, keep_ignored: bool = False) -> Clip:
    """Decode a sample's frames, each once however often it is repeated, and the masks of the objects in them."""
    index = torch.tensor(sample.indices if sample.times is None else sample.times)
    tracks = None if video.tracks is None else load_tracks(video, sample.indices, index, num_classes, keep_ignored)
    unique, places = np.unique(sample.indices, return_inverse=True)
    images = [video.frames[int(t)].permute(1, 2, 0) for t in unique]  # as decoders leave them in memory
    frames = _spread(images, places).permute(0, 3, 1, 2)
    return Clip(frames=frames, index=index, key=torch.tensor(sample.key), tracks=tracks)


def load_tracks(
    video: Video, indices: Sequence[int], index: Tensor, num_classes: int, keep_ignored: bool = False
) -> Tracks:
    """Dense truth of the chosen frames: one row per object with a pixel in them, absent where it has no mask."""
    unique, places = np.unique(indices, return_inverse=True)
    kept = [t for t in video.tracks or () if (keep_ignored or not t.ignore) and any(t.rles[int(f)] for f in unique)]
    scores = torch.zeros(len(kept), num_classes)
    for n, track in enumerate(kept):
        scores[n, track.label] = float(not track.ignore)
    planes = [_decode([track.rles[int(t)] for track in kept], video.size) for t in unique]  # each [N, W, H]
    masks = _spread(planes, places).permute(1, 0, 3, 2)  # [N, T, H, W]
    ids = torch.tensor([track.id for track in kept], dtype=torch.int64)
    return drop_absent(Tracks(ids=ids, scores=scores, masks=masks, index=index))


def require_objects(videos: VideoSet) -> None:
    """Raise InputError where no video holds an object with a mask that is not to be ignored."""
    if any(len(valid_frames(video)) for video in videos.videos):
        return
    tracks = [track for video in videos.videos for track in video.tracks or ()]
    ignored = sum(track.ignore for track in tracks)
    raise InputError(
        "expected videos or images with at least one object to learn from, found "
        f"{len(videos.videos)} without any: {len(tracks)} annotations, {ignored} of them crowds or ignored regions"
    )


def _annotated_frames(videos: VideoSet) -> list[tuple[int, int]]:
    frames = [(n, int(t)) for n, video in enumerate(videos.videos) for t in valid_frames(video)]
    if not frames:
        raise InputError("a data set for training needs at least one frame with an object")
    return frames


def _decode(rles: Sequence[rle.RLE | None], size: tuple[int, int]) -> Tensor:
    """bool [N, W, H], column by column as run lengths go: turning masks round costs more than decoding them."""
    present = [mask for mask in rles if mask is not None]
    held = rle.decode(present).view(bool).swapaxes(1, 2) if present else np.zeros((0, size[1], size[0]), bool)
    if len(present) == len(rles):
        return torch.from_numpy(held)
    masks = np.zeros((len(rles), size[1], size[0]), bool)
    masks[[mask is not None for mask in rles]] = held
    return torch.from_numpy(masks)


def _spread(parts: Sequence[Tensor], places: np.ndarray) -> Tensor:
    """Stack along time; one part repeated is a view without a copy."""
    if len(parts) == 1:
        return parts[0][None].expand(len(places), *parts[0].shape)
    return torch.stack([parts[place] for place in places])
