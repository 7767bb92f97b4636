"""The dataset of training clips. Clip number n is the same on every machine, worker and rank."""

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
from tubelet.core.types import Clip, Track, Tracks, Video, VideoSet
from tubelet.data.pasting import PasteObjects
from tubelet.data.sampling import AnySampler, Sample, valid_frames
from tubelet.data.warp import drop_absent

Transform = Callable[[Clip, np.random.Generator], Clip]


class Place(NamedTuple):
    """What one clip of a `ClipDataset` is about.

    >>> from tubelet.data.clips import Place
    >>> Place(video=2, frame=None, epoch=0)
    Place(video=2, frame=None, epoch=0)
    """

    video: int  # position in the set
    frame: int | None  # None if epochs visit videos, not frames
    epoch: int


class ClipDataset(Dataset[Clip]):
    """Training clips by number: `dataset[n]`, for any n >= 0, belongs to epoch n // len(dataset).

    Each epoch visits every video once or, with `per="frame"`, every frame with an object (MaskTrack R-CNN), in a new
    random order. All randomness of clip n comes from `default_rng([seed, n])`: to resume a run, start at a number; with
    several ranks, each takes every world-size-th clip. Collate a batch with `list`. `PasteObjects` in `transforms` cuts
    its objects from these same videos.

    With `keep_ignored`, crowds stay as tracks whose scores are all zero: regions to ignore. Without, they are left out.
    Raises InputError for a set without videos, and with `per="frame"` for one without objects.

    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.data.clips import ClipDataset
    >>> from tubelet.data.sampling import Repeat
    >>> frames = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=list(frames), tracks=())
    >>> dataset = ClipDataset(VideoSet(videos=[video], classes=("dog",)), Repeat(frames=2))
    >>> dataset[0].frames.shape
    torch.Size([2, 3, 8, 8])
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
        self._order: tuple[int, np.ndarray] | None = None  # an epoch and its permutation

    def __len__(self) -> int:
        """Clips per epoch."""
        return len(self.videos.videos) if self._frames is None else len(self._frames)

    def __getitem__(self, number: int) -> Clip:
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # several workers share the CPU: more threads in each only slow them down
        position = self.locate(number)
        video = self.videos.videos[position.video]
        rng = np.random.default_rng([self.seed, number])

        sample = self.sampler.sample(video, rng, position.frame)
        clip = load_clip(video, sample, len(self.videos.classes), self.keep_ignored)
        for transform in self.transforms:
            clip = transform(clip, rng)
        return clip

    def locate(self, number: int) -> Place:
        """The video, frame and epoch of clip `number`; raises IndexError for a negative number."""
        if number < 0:
            raise IndexError(f"clips are numbered from 0, got {number}")
        epoch, step = divmod(number, len(self))
        chosen = int(self._permutation(epoch)[step])
        if self._frames is None:
            return Place(chosen, None, epoch)
        video, frame = self._frames[chosen]
        return Place(video, frame, epoch)

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            # the third number keeps this random stream apart from that of clip number `epoch`
            rng = np.random.default_rng([self.seed, epoch, 1])
            self._order = (epoch, rng.permutation(len(self)))
        return self._order[1]


def load_clip(video: Video, sample: Sample, num_classes: int, keep_ignored: bool = False) -> Clip:
    """Decode the frames of a sample, each once even if it is repeated, and the masks of their objects.

    >>> from tubelet.data.clips import load_clip
    >>> from tubelet.data.sampling import Sample
    >>> frames = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=list(frames), tracks=())
    >>> load_clip(video, Sample((1, 4), (False, True)), num_classes=3).index
    tensor([1, 4])
    """
    index = torch.tensor(sample.indices if sample.times is None else sample.times)
    tracks = None
    if video.tracks is not None:
        tracks = load_tracks(video, sample.indices, index, num_classes, keep_ignored)

    unique, positions = np.unique(sample.indices, return_inverse=True)
    images = [video.frames[int(t)].permute(1, 2, 0) for t in unique]  # [H, W, 3], the layout of decoders
    frames = _spread(images, positions).permute(0, 3, 1, 2)
    return Clip(frames=frames, index=index, key=torch.tensor(sample.key), tracks=tracks)


def load_tracks(
    video: Video, indices: Sequence[int], index: Tensor, num_classes: int, keep_ignored: bool = False
) -> Tracks:
    """Decode the truth of the frames `indices`; `index` is the clip's own frame numbers.

    One row per object with a pixel in these frames, with an empty mask in the frames without it. With `keep_ignored`,
    ignored objects have scores of zero; without, they are left out.

    >>> from tubelet.core import masks
    >>> from tubelet.data.clips import load_tracks
    >>> rle = masks.encode(np.ones((1, 8, 8), bool))[0]
    >>> track = tubelet.Track(id=5, label=1, score=1.0, rles=(None, rle))
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=[None] * 2, tracks=(track,))
    >>> tracks = load_tracks(video, [0, 1], torch.tensor([0, 1]), num_classes=3)
    >>> tracks.labels, tracks.present
    (tensor([1]), tensor([[False,  True]]))
    """
    unique, positions = np.unique(indices, return_inverse=True)
    frames = [int(t) for t in unique]
    candidates = [track for track in video.tracks or () if keep_ignored or not track.ignore]
    chosen = [track for track in candidates if any(track.rles[t] for t in frames)]

    scores = torch.zeros(len(chosen), num_classes)
    for n, track in enumerate(chosen):
        scores[n, track.label] = float(not track.ignore)

    planes = [_decode([track.rles[t] for track in chosen], video.size) for t in frames]  # each [N, W, H]
    masks = _spread(planes, positions).permute(1, 0, 3, 2)  # [N, T, H, W]
    ids = torch.tensor([track.id for track in chosen], dtype=torch.int64)
    return drop_absent(Tracks(ids=ids, scores=scores, masks=masks, index=index))


def require_objects(videos: VideoSet) -> None:
    """Raise InputError unless some video has an object with a mask that is not ignored.

    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.data.clips import require_objects
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=[None], tracks=())
    >>> require_objects(VideoSet(videos=[video], classes=("dog",)))
    Traceback (most recent call last):
    tubelet.core.errors.InputError: expected videos or images with at least one object to learn from, found 1 without
    any: 0 annotations, 0 of them crowds or ignored regions
    """
    if any(len(valid_frames(video)) for video in videos.videos):
        return
    tracks: list[Track] = []
    for video in videos.videos:
        tracks += video.tracks or ()
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
    """bool [N, W, H], columns first like run lengths: transposing the masks would cost more than decoding them."""
    height, width = size
    present = [mask for mask in rles if mask is not None]
    decoded = np.zeros((0, width, height), bool)
    if present:
        decoded = rle.decode(present).view(bool).swapaxes(1, 2)
    if len(present) == len(rles):
        return torch.from_numpy(decoded)

    masks = np.zeros((len(rles), width, height), bool)
    masks[[mask is not None for mask in rles]] = decoded
    return torch.from_numpy(masks)


def _spread(parts: Sequence[Tensor], positions: np.ndarray) -> Tensor:
    """Stack `parts[positions[t]]` along time; a single part is repeated as a view, without a copy."""
    if len(parts) == 1:
        return parts[0][None].expand(len(positions), *parts[0].shape)
    return torch.stack([parts[position] for position in positions])
