"""MaskTrack R-CNN: Mask R-CNN with a fourth head that says which known object each detection is.

Source: Yang et al., Video Instance Segmentation, ICCV 2019 (docs/papers/masktrack_rcnn.md). The host of the family:
what the papers add plugs into its sockets (detector, match head).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import roi_align

from tubelet.core import boxes as box_ops
from tubelet.core.config import Config
from tubelet.core.protocol import Window
from tubelet.core.types import Clip, Losses, Tracks
from tubelet.models.rcnn.detector import Detections, Features, Samples, Targets
from tubelet.models.rcnn.heads import FullyConnectedMatchConfig, MaskHeadConfig, paste
from tubelet.models.rcnn.inputs import Images
from tubelet.models.rcnn.memory import Memory, forget, remember
from tubelet.models.rcnn.recall import RecallConfig, faded, follow, missing, own_probability
from tubelet.models.rcnn.ssdlite import SSDLiteConfig
from tubelet.models.rcnn.two_stage import TwoStageConfig
from tubelet.tracking.association import AssociationConfig, associate, cue_scores, drop_shadows

DetectorConfig = Annotated[TwoStageConfig | SSDLiteConfig, Field(discriminator="kind")]


class MaskTrackConfig(Config):
    """One detector, its heads, and the rule that gives identities."""

    kind: Literal["masktrack"] = "masktrack"
    detector: DetectorConfig = TwoStageConfig()
    mask: MaskHeadConfig = MaskHeadConfig()
    match: FullyConnectedMatchConfig = FullyConnectedMatchConfig()
    association: AssociationConfig = AssociationConfig()
    persistence: float = Field(default=0.0, ge=0, le=1)  # share of its best scores that an object keeps per frame
    recall: RecallConfig | None = None  # what becomes of objects that the detector misses (the paper: nothing)
    vote: Literal["majority", "score"] = "majority"  # how a track's frames agree on its class
    min_frames: int = Field(default=1, ge=1)  # shorter tracks are dropped (ObjProp: 2)

    def build(self, classes: tuple[str, ...]) -> MaskTrackRCNN:
        return MaskTrackRCNN(self, classes)


class MaskTrackRCNN(nn.Module):
    """A VideoSegmenter: detects in every frame, then matches detections with the memory."""

    def __init__(self, config: MaskTrackConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.window = Window()
        self.precision = torch.float32  # of the network in `step`; training has its own setting
        self.vote, self.min_frames = config.vote, config.min_frames
        self.detector = config.detector.build(len(classes))
        self.mask = config.mask.build(self.detector.channels, len(classes))
        self.match = config.match.build(self.detector.channels)

    # training

    def forward(self, clips: list[Clip]) -> Losses:
        """Losses of clips of two frames or more; key frames learn to detect, all frames learn to be told apart.

        The reference of a key frame is the clip's first frame without key, or the next frame where all have it.
        """
        images = self._prepare(clips)
        features = self.detector.extract(images)
        targets = _targets(clips, images)
        key = torch.cat([clip.key for clip in clips]).nonzero()[:, 0].tolist()
        reference = _references(clips)
        losses, samples = self.detector.losses(
            _choose(features, key), _choose_images(images, key), [targets[i] for i in key]
        )
        regions = dict(zip(key, samples, strict=True))
        losses["mask"] = self._mask_loss(features, targets, regions)
        losses["match"] = self._match_loss(features, targets, regions, reference)
        return losses

    def _prepare(self, clips: list[Clip]) -> Images:
        return self.detector.config.input.prepare([clip.frames for clip in clips])

    def _mask_loss(self, features: Features, targets: list[Targets], samples: dict[int, Samples]) -> Tensor:
        """Binary cross-entropy on the channel of each region's class, mean over cells."""
        boxes = [grow(samples[i].boxes, self.config.mask.margin) for i in samples]
        logits = self.mask(self._cells(features, list(samples), boxes, self.config.mask.resolution))
        labels = torch.cat([targets[i].labels[s.matched] for i, s in samples.items()])
        if len(labels) == 0:
            return logits.sum() * 0
        goal = torch.cat(
            [
                _crop_masks(targets[i], s.matched, b, logits.shape[-1])
                for (i, s), b in zip(samples.items(), boxes, strict=True)
            ]
        )
        return F.binary_cross_entropy_with_logits(self.mask.of_class(logits, labels).float(), goal)

    def _match_loss(
        self, features: Features, targets: list[Targets], samples: dict[int, Samples], reference: dict[int, int]
    ) -> Tensor:
        """Cross-entropy over the M + 1 columns of the match matrix: mean over regions, then over images."""
        resolution = self.config.match.resolution
        current = self.match.describe(
            self._cells(features, list(samples), [s.boxes for s in samples.values()], resolution)
        )
        frames = sorted({reference[i] for i in samples})
        known = self.match.describe(self._cells(features, frames, [targets[i].boxes for i in frames], resolution))
        per_key = dict(zip(samples, current.split([len(s.boxes) for s in samples.values()]), strict=True))
        per_frame = dict(zip(frames, known.split([len(targets[i].boxes) for i in frames]), strict=True))
        losses = []
        for i, sample in samples.items():
            if len(sample.boxes):
                same = targets[i].ids[sample.matched][:, None] == targets[reference[i]].ids[None]
                column = (
                    torch.where(same.any(1), same.int().argmax(1) + 1, 0)
                    if same.shape[1]
                    else same.new_zeros(len(same)).long()
                )
                losses.append(F.cross_entropy(self.match(per_key[i], per_frame[reference[i]]).float(), column))
        return torch.stack(losses).mean() if losses else current.sum() * 0 + known.sum() * 0

    def _cells(self, features: Features, images: list[int], boxes: list[Tensor], resolution: int) -> Tensor:
        """Regions of some images of the batch, [sum N_i, C, resolution, resolution]."""
        empty = torch.zeros(0, 4, device=features.maps[0].device)
        of_image = dict(zip(images, boxes, strict=True))
        everywhere = [of_image.get(i, empty) for i in range(len(features.maps[0]))]
        order = sorted(range(len(images)), key=images.__getitem__)
        assert order == list(range(len(images))), "images must come in ascending order"
        return self.detector.regions(features.maps, everywhere, resolution)

    # inference

    def start(self) -> Memory:
        """Nothing is known before the first frame."""
        device = next(self.parameters()).device
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return Memory(
            descriptors=torch.zeros(0, 0, device=device),
            boxes=torch.zeros(0, 4, device=device),
            labels=none,
            ids=none,
            seen=none,
            scores=torch.zeros(0, len(self.classes), device=device),
        )

    def step(self, state: Memory, clip: Clip) -> tuple[Memory, Tracks]:
        """Objects of the clip's key frames that come after the last frame read; frames are taken one by one."""
        new = clip.key & (clip.index > state.time)
        frames, index = clip.frames[new], clip.index[new]
        if len(frames) == 0:
            return state, Tracks.empty(index, len(self.classes), clip.size)
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            return self._follow(state, frames, index)

    def _follow(self, state: Memory, frames: Tensor, index: Tensor) -> tuple[Memory, Tracks]:
        size = (frames.shape[-2], frames.shape[-1])
        images = self.detector.config.input.prepare([frames])
        features = self.detector.extract(images)
        detected = self.detector.detect(features, images)
        steps: list[_Objects] = []
        for t, found in enumerate(detected):
            state, ids, kept = self._identify(state, features.at(t), found, int(index[t]))
            masks = self._masks(features.at(t), kept, images.scales[t], size)
            steps.append((ids, kept, masks))
            if self.config.recall is not None:
                state, again = self._recall(state, self.config.recall, features.at(t), kept, images.scales[t], size)
                steps[-1] = _join(steps[-1], again)
        return state, _gather(steps, index, len(self.classes), size)

    def _identify(
        self, memory: Memory, features: Features, found: Detections, time: int
    ) -> tuple[Memory, Tensor, Detections]:
        """Ids [N] of the detections that are kept, and the memory with their descriptors and boxes in it."""
        memory = replace(forget(memory, time, self.config.association.keep), time=time)
        if len(found) == 0:
            return memory, memory.ids[:0], found
        descriptors = self.match.describe(
            self.detector.regions(features.maps, [found.boxes], self.config.match.resolution)
        )
        if len(memory.ids) == 0:
            memory = replace(memory, descriptors=descriptors[:0])
            decided = associate(found.boxes.new_zeros(len(found), 1), found.confidence, self.config.association)
        else:
            table = cue_scores(
                self.match(descriptors, memory.descriptors),
                found.confidence,
                found.boxes,
                found.labels,
                memory.boxes,
                memory.labels,
                self.config.association,
            )
            decided = associate(table, found.confidence, self.config.association)
        decided = drop_shadows(decided, found.boxes, found.labels, self.config.association.shadow)
        return remember(memory, descriptors, found, decided.to(found.boxes.device), time, self.config.persistence)

    def _masks(self, features: Features, found: Detections, scale: Tensor, size: tuple[int, int]) -> Tensor:
        """Mask probabilities pasted into the whole frame, [N, H, W]."""
        if len(found) == 0:
            return found.boxes.new_zeros(0, *size)
        boxes = grow(found.boxes, self.config.mask.margin)
        logits = self.mask(self.detector.regions(features.maps, [boxes], self.config.mask.resolution))
        probabilities = self.mask.of_class(logits, found.labels).float().sigmoid()
        return paste(probabilities, boxes / scale, size)

    def _recall(
        self,
        memory: Memory,
        config: RecallConfig,
        features: Features,
        found: Detections,
        scale: Tensor,
        size: tuple[int, int],
    ) -> tuple[Memory, _Objects]:
        """Objects that were not detected in this frame but are still where they were, by mask and match head."""
        lost = missing(memory, found.boxes, config)
        if len(lost):
            cells = self.detector.regions(features.maps, [memory.boxes[lost]], self.config.match.resolution)
            logits = self.match(self.match.describe(cells), memory.descriptors)
            lost = lost[own_probability(logits, lost) >= config.agreement]
        again = Detections(boxes=memory.boxes[lost], scores=faded(memory, lost, config.decay))
        masks = self._masks(features, again, scale, size)
        regions = grow(again.boxes, self.config.mask.margin)
        memory, plausible = follow(memory, lost, masks, regions, scale, config.change)
        return memory, (memory.ids[lost[plausible]], again[plausible], masks[plausible])


_Objects = tuple[Tensor, Detections, Tensor]  # of one frame: ids [N], detections, masks [N, H, W]


def _join(first: _Objects, second: _Objects) -> _Objects:
    (ids, found, masks), (more_ids, more, more_masks) = first, second
    both = Detections(boxes=torch.cat([found.boxes, more.boxes]), scores=torch.cat([found.scores, more.scores]))
    return torch.cat([ids, more_ids]), both, torch.cat([masks, more_masks])


def grow(boxes: Tensor, margin: float) -> Tensor:
    """Boxes grown on every side by a share of their width and height."""
    if margin == 0:
        return boxes
    extent = (boxes[:, 2:] - boxes[:, :2]) * margin
    return torch.cat([boxes[:, :2] - extent, boxes[:, 2:] + extent], 1)


def _gather(steps: list[_Objects], index: Tensor, num_classes: int, size: tuple[int, int]) -> Tracks:
    """Objects of single frames -> one Tracks over all of them; scores are means over the frames of presence.

    Where an id occurs twice in a frame (unique_ids off) the later one stands.
    """
    steps = [_last_of_each(*step) for step in steps]
    if len(steps) == 1:
        ids, found, masks = steps[0]
        return Tracks(ids=ids, scores=found.scores, masks=masks[:, None], index=index)
    ids = torch.unique(torch.cat([s[0] for s in steps]))
    scores = torch.zeros(len(ids), num_classes, device=ids.device)
    count = torch.zeros(len(ids), 1, device=ids.device)
    masks = torch.zeros(len(ids), len(steps), *size, dtype=torch.bool, device=ids.device)  # a byte a pixel, not four
    for t, (own, found, pasted) in enumerate(steps):
        rows = torch.searchsorted(ids, own)
        scores[rows] += found.scores
        count[rows] += 1
        masks[rows, t] = pasted > 0.5
    return Tracks(ids=ids, scores=scores / count.clamp(min=1), masks=masks, index=index)


def _last_of_each(ids: Tensor, found: Detections, masks: Tensor) -> _Objects:
    known = ids.tolist()
    last = [i for i, one in enumerate(known) if one not in known[i + 1 :]]
    return (ids, found, masks) if len(last) == len(known) else (ids[last], found[last], masks[last])


def _targets(clips: list[Clip], images: Images) -> list[Targets]:
    """The truth of every frame of every clip, in the order of the batch. A row of scores without a class is a crowd."""
    out: list[Targets] = []
    for clip in clips:
        assert clip.tracks is not None, "training clips carry truth"
        tracks, boxes = clip.tracks, clip.tracks.boxes
        ignored = tracks.scores.amax(1) <= 0 if len(tracks) else torch.zeros(0, dtype=torch.bool, device=boxes.device)
        for t in range(len(clip)):
            scale = images.scales[len(out)]
            there = box_ops.area(boxes[:, t]) > 0
            real = there & ~ignored
            out.append(
                Targets(
                    boxes=boxes[real, t] * scale,
                    labels=tracks.labels[real],
                    ids=tracks.ids[real],
                    masks=tracks.masks[real, t],
                    scale=scale,
                    ignored=boxes[there & ignored, t] * scale,
                )
            )
    return out


def _references(clips: list[Clip]) -> dict[int, int]:
    """Position in the batch of the frame against which each frame is matched."""
    out, first = {}, 0
    for clip in clips:
        context = (~clip.key).nonzero()[:, 0].tolist()
        for t in range(len(clip)):
            out[first + t] = first + (context[0] if context and t != context[0] else (t + 1) % len(clip))
        first += len(clip)
    return out


def _choose(features: Features, images: list[int]) -> Features:
    if images == list(range(len(features.maps[0]))):
        return features
    return Features(maps=[m[images] for m in features.maps], taps=[t[images] for t in features.taps])


def _choose_images(images: Images, chosen: list[int]) -> Images:
    return Images(images.pixels[chosen], [images.sizes[i] for i in chosen], images.scales[chosen])


def _crop_masks(targets: Targets, matched: Tensor, boxes: Tensor, resolution: int) -> Tensor:
    """Truth masks cut by boxes in input pixels, 0/1 float [P, resolution, resolution]."""
    if len(matched) == 0:
        return boxes.new_zeros(0, resolution, resolution)
    rows = torch.cat([matched[:, None].to(boxes.dtype), boxes / targets.scale], 1)
    cut = roi_align(targets.masks[:, None].to(boxes.dtype), rows, resolution, 1.0, aligned=True)
    return (cut[:, 0] >= 0.5).to(boxes.dtype)
