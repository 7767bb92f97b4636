"""MaskTrack R-CNN: Mask R-CNN with a fourth head that says which known object each detection is.

Source: Yang et al., Video Instance Segmentation, ICCV 2019 (docs/papers/masktrack_rcnn.md). The host of the family:
what the papers add plugs into its sockets: detector, neck (STA, dual attention), regions (object-level attention),
match head (fully connected, correlation), propagation (ObjProp).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Discriminator, Field, Tag, model_validator
from torch import Tensor, nn

from tubelet.attention.correlation import CorrelationConfig, CorrelationMatch
from tubelet.attention.dual import DualConfig
from tubelet.attention.sta import STAConfig
from tubelet.core import boxes as box_ops
from tubelet.core.config import Config
from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Glance, Window, check_clips
from tubelet.core.types import Clip, Losses, Tracks
from tubelet.models.inputs import Images
from tubelet.models.rcnn.attend import glances
from tubelet.models.rcnn.crops import (
    CropMaskConfig,
    CropMaskHead,
    averaged,
    cut,
    drawn,
    grow,
    outline_loss,
    sureness,
    tight,
    views,
)
from tubelet.models.rcnn.detector import Detections, Features, Samples, Targets
from tubelet.models.rcnn.heads import FullyConnectedMatchConfig, MaskHeadConfig, paste
from tubelet.models.rcnn.memory import Memory, entered, forget, remember, resized
from tubelet.models.rcnn.neck import Context, Kept, Neck, NeckConfig, positions, supports_at
from tubelet.models.rcnn.propagation import Propagation, PropagationConfig
from tubelet.models.rcnn.recall import RecallConfig, faded, follow, missing, own_probability
from tubelet.models.rcnn.ssdlite import SSDLiteConfig
from tubelet.models.rcnn.targets import Partners, columns_of, crop_masks, partners_of, targets_of, where_now
from tubelet.models.rcnn.two_stage import TwoStageConfig
from tubelet.tracking.association import AssociationConfig, across_cuts, associate, cue_scores, drop_shadows

DetectorConfig = Annotated[TwoStageConfig | SSDLiteConfig, Field(discriminator="kind")]
MaskConfig = Annotated[
    Annotated[MaskHeadConfig, Tag("cells")] | Annotated[CropMaskConfig, Tag("crops")],
    Discriminator(lambda given: given.get("kind", "cells") if isinstance(given, dict) else given.kind),  # old files
]
MatchConfig = Annotated[FullyConnectedMatchConfig | CorrelationConfig, Field(discriminator="kind")]
OBJECT_LEVEL = "P4"  # of the support maps that regions look at (docs/papers/compfeat.md)


class MaskTrackConfig(Config):
    """One detector, its heads, and the rule that gives identities."""

    kind: Literal["masktrack"] = "masktrack"
    detector: DetectorConfig = TwoStageConfig()
    neck: NeckConfig | None = None  # refines the pyramid by other frames
    regions: DualConfig | None = None  # refines what heads see of each box by support frames
    mask: MaskConfig = MaskHeadConfig()
    match: MatchConfig = FullyConnectedMatchConfig()
    match_average: Literal["positives", "all"] = "positives"  # regions that the match loss is divided by
    propagation: PropagationConfig | None = None  # carries objects into frames where the detector misses them
    window: Window = Window()  # its context frames are what dual attention looks at
    supports_kept: int = Field(default=4, ge=1)  # frames just before that it looks at where the window gives no context
    association: AssociationConfig = AssociationConfig()
    persistence: float = Field(default=0.0, ge=0, le=1)  # share of its best scores that an object keeps per frame
    recall: RecallConfig | None = None  # what becomes of objects that the detector misses (the paper: nothing)
    vote: Literal["majority", "score"] = "majority"  # how a track's frames agree on its class
    min_frames: int = Field(default=1, ge=1)  # shorter tracks are dropped (ObjProp: 2)

    @model_validator(mode="after")
    def _one_past(self) -> MaskTrackConfig:
        if isinstance(self.neck, STAConfig) and self.regions is not None:
            raise ValueError("neck sta looks at the frame before, regions at support frames: choose one, or neck dual")
        return self

    def build(self, classes: tuple[str, ...]) -> MaskTrackRCNN:
        return MaskTrackRCNN(self, classes)


class MaskTrackRCNN(nn.Module):
    """A VideoSegmenter: detects in every frame, then matches detections with the memory."""

    def __init__(self, config: MaskTrackConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.window = config.window
        self.precision = torch.float32  # of the network in `step`; training has its own setting
        self.vote, self.min_frames = config.vote, config.min_frames
        self.detector = config.detector.build(len(classes))
        if config.regions is not None:
            self.detector.attention = config.regions.build(self.detector.channels)
            (self.object_level,) = positions((OBJECT_LEVEL,), self.detector.all_strides).items()
        self.neck = None if config.neck is None else Neck(config.neck, self.detector)
        self.mask = config.mask.build(self.detector.channels, len(classes))
        self.match = config.match.build(self.detector.channels)
        if isinstance(config.match, CorrelationConfig):
            (self.match_level,) = positions((config.match.level,), self.detector.all_strides).items()
        self.propagation: Propagation | None = None
        if config.propagation is not None:
            if self.detector.all_strides[:4] != [4, 8, 16, 32]:
                raise ConfigError(f"propagation fuses maps of strides 4, 8, 16, 32, not {self.detector.all_strides}")
            self.propagation = config.propagation.build(self.detector.channels, len(classes))

    # training

    def forward(self, clips: list[Clip]) -> Losses:
        """Losses of clips of two frames or more; key frames learn to detect, all frames learn to be told apart.

        Context frames are support frames and, last, the reference (`targets.partners_of`).
        """
        check_clips(clips)
        images = self._prepare(clips)
        raw = self.detector.extract(images)
        targets, partners = targets_of(clips, images), partners_of(clips)
        features = self._refined(raw, images, partners)
        key = partners.key
        losses, samples = self.detector.losses(features.at(*key), images.at(*key), [targets[i] for i in key])
        regions = dict(zip(key, samples, strict=True))
        frames = [frame for clip in clips for frame in clip.frames]
        losses["mask"] = self._mask_loss(features, frames, targets, regions)
        losses |= self._match_losses(features, targets, regions, partners.reference)
        if self.propagation is not None:
            reference = {i: partners.reference[i] for i in key}
            losses |= self.propagation.losses(features.maps, images, targets, reference)
        return losses

    def _refined(self, raw: Features, images: Images, partners: Partners) -> Features:
        """Features of the batch after frame-level attention, with what object-level attention will read."""
        config, features = self.config.neck, raw
        references = sorted({partners.reference[i] for i in partners.key} - set(partners.key))
        if self.neck is not None:
            if isinstance(config, STAConfig):  # the previous frame; references stay raw, or look at themselves
                looked = {i: [partners.reference[i]] for i in partners.key}
                looked |= {i: [i] for i in references if config.reference == "self"}
            else:  # the memory holds refined objects, so references are refined too
                looked = {i: partners.supports[i] for i in sorted([*partners.key, *references])}
            for rows in _of_equal_length(looked):
                context = Context.of_batch(raw.maps, images.sizes, [looked[i] for i in rows])
                features = features.with_rows(rows, self.neck(raw.at(*rows), context, [images.sizes[i] for i in rows]))
        if self.config.regions is not None:
            every = [partners.supports[i] for i in range(len(images.sizes))]
            contexts = [Context.of_batch(raw.maps, images.sizes, [others]) for others in every]
            features = replace(features, supports=[supports_at(one, *self.object_level)[0] for one in contexts])
        return features

    def _prepare(self, clips: list[Clip]) -> Images:
        return self.detector.config.input.prepare([clip.frames for clip in clips])

    def _mask_loss(
        self, features: Features, frames: list[Tensor], targets: list[Targets], samples: dict[int, Samples]
    ) -> Tensor:
        """Binary cross-entropy on the channel of each region's class, mean over cells; or the crops' own loss."""
        if isinstance(self.mask, CropMaskHead):
            samples = {i: drawn(s, self.mask.config.sampled) for i, s in samples.items()}
        boxes = [grow(samples[i].boxes, self.config.mask.margin) for i in samples]
        cells = self._cells(features, list(samples), boxes, self.config.mask.resolution)
        own = [b / targets[i].scale for i, b in zip(samples, boxes, strict=True)]
        logits = self._outlines(cells, [frames[i] for i in samples], own)
        labels = torch.cat([targets[i].labels[s.matched] for i, s in samples.items()])
        if len(labels) == 0:
            return logits.sum() * 0
        goal = torch.cat(
            [
                crop_masks(targets[i], s.matched, b, logits.shape[-1])
                for (i, s), b in zip(samples.items(), boxes, strict=True)
            ]
        )
        if isinstance(self.mask, CropMaskHead):
            return outline_loss(logits[:, 0].float(), goal)
        return F.binary_cross_entropy_with_logits(self.mask.of_class(logits, labels).float(), goal)

    def _outlines(self, cells: Tensor, frames: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Mask logits of regions [N, C, r, r]; frames are at their own size, boxes [N_i, 4] in their pixels."""
        if isinstance(self.mask, CropMaskHead):
            return self.mask(cells, cut(frames, boxes, self.mask.config.size))
        return self.mask(cells)

    def _match_losses(
        self, features: Features, targets: list[Targets], samples: dict[int, Samples], reference: dict[int, int]
    ) -> Losses:
        """Cross-entropy over the M + 1 columns of the match matrix: mean over regions, then over images.

        With correlation also how well its map shows where the reference's objects are now.
        """
        resolution = self.config.match.resolution
        boxes = [s.boxes for s in samples.values()]
        current = self.match.describe(self._cells(features, list(samples), boxes, resolution))
        frames = sorted({reference[i] for i in samples})
        known = self.match.describe(self._cells(features, frames, [targets[i].boxes for i in frames], resolution))
        per_key = dict(zip(samples, current.split([len(b) for b in boxes]), strict=True))
        per_frame = dict(zip(frames, known.split([len(targets[i].boxes) for i in frames]), strict=True))
        losses, shown, nothing = [], [], current.sum() * 0 + known.sum() * 0
        for i, sample in samples.items():
            past, references = targets[reference[i]], per_frame[reference[i]]
            refined = None
            if isinstance(self.match, CorrelationMatch) and self.match.config.frame_branch:
                frame, now = self.match_view(features.at(i), where_now(past, targets[i]))
                refined = self.match.refine(references, frame)
                shown.append(self.match.map_loss(references, frame, now, refined))
            logits = self.match_logits(features.at(i), sample.boxes, per_key[i], references, refined).float()
            column = columns_of(targets[i], sample.matched, past)
            divisor = sample.drawn if self.config.match_average == "all" else len(column)
            if len(column):
                losses.append(F.cross_entropy(logits, column, reduction="sum") / divisor)
            nothing = nothing + logits.sum() * 0
        named = {"match": torch.stack(losses).mean() if losses else nothing}
        return named | ({"correlation": torch.stack(shown).mean()} if shown else {})

    def match_logits(
        self, features: Features, boxes: Tensor, current: Tensor, known: Tensor, refined: Tensor | None = None
    ) -> Tensor:
        """Match logits [N, M + 1] of the boxes [N, 4] of one image, given descriptors."""
        if isinstance(self.match, CorrelationMatch):
            return self.match(current, known, *self.match_view(features, boxes), refined)
        return self.match(current, known)

    def match_view(self, features: Features, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """The map [C, H, W] of one image over which references are moved, and boxes [N, 4] in its cells."""
        level, stride = self.match_level
        return features.maps[level][0], boxes / stride

    def _cells(self, features: Features, images: list[int], boxes: list[Tensor], resolution: int) -> Tensor:
        """Regions of some images of the batch, [sum N_i, C, resolution, resolution]."""
        empty = torch.zeros(0, 4, device=features.maps[0].device)
        of_image = dict(zip(images, boxes, strict=True))
        everywhere = [of_image.get(i, empty) for i in range(len(features.maps[0]))]
        order = sorted(range(len(images)), key=images.__getitem__)
        assert order == list(range(len(images))), "images must come in ascending order"
        return self.detector.cells(features, everywhere, resolution)

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
        around = clip.frames[~clip.key], clip.index[~clip.key].tolist()
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            images = self.detector.config.input.prepare([frames])
            state = entered(resized(state, images.sizes[0]), clip.shot, int(index[0]))
            if self._looks_around and around[1]:
                return self._follow(self._supported(state, *around), frames, images, index, own=False)
            return self._follow(state, frames, images, index, own=True)

    @property
    def _looks_around(self) -> bool:
        """Whether support frames are read."""
        return isinstance(self.config.neck, DualConfig) or self.config.regions is not None

    def _supported(self, state: Memory, frames: Tensor, index: list[int]) -> Memory:
        """The memory with maps of just these support frames; those that it holds are not computed again."""
        held = {kept.index: kept for kept in state.frames}
        wanted = dict.fromkeys(index)
        for t in wanted:
            if t not in held:
                images = self.detector.config.input.prepare([frames[index.index(t)][None]])
                held[t] = Kept(index=t, maps=self.detector.extract(images).maps, size=images.sizes[0])
        return replace(state, frames=tuple(held[t] for t in wanted))

    def attend(self, state: Memory, clip: Clip, frame: int, at: tuple[float, float]) -> list[Glance]:
        """Where attention looks from a point (x, y in pixels) of one key frame of the clip."""
        if bool((clip.index[clip.key] < frame).any()):
            state, _ = self.step(state, clip.up_to(frame - 1))
        images = self.detector.config.input.prepare([clip.frames[clip.key & (clip.index == frame)]])
        state = entered(resized(state, images.sizes[0]), clip.shot, frame)
        if self._looks_around and not clip.key.all():
            state = self._supported(state, clip.frames[~clip.key], clip.index[~clip.key].tolist())
        raw = self.detector.extract(images)
        own = Kept(index=frame, maps=raw.maps, size=images.sizes[0])
        refined, _ = self._look(state, raw, own, own=False)
        past = [kept for kept in state.frames if kept.like(own)] or [own]
        place = at[0] * float(images.scales[0, 0]), at[1] * float(images.scales[0, 1])
        return glances(self, state, images, raw, refined, own, past, place)

    def _follow(
        self, state: Memory, frames: Tensor, images: Images, index: Tensor, *, own: bool
    ) -> tuple[Memory, Tracks]:
        """`own`: attention reads the frames just before, which the memory keeps."""
        size = (frames.shape[-2], frames.shape[-1])
        raw = self.detector.extract(images)
        steps: list[_Objects] = []
        for t, image in enumerate(raw.at(t) for t in range(len(index))):
            scale, one = images.scales[t], images.at(t)
            features, state = self._look(
                state, image, Kept(index=int(index[t]), maps=image.maps, size=one.sizes[0]), own
            )
            (found,) = self.detector.detect(features, one)
            state, ids, kept = self._identify(state, features, found, int(index[t]))
            masks = self._masks(features, frames[t], kept, scale)
            steps.append((ids, self._trusted(kept, masks), masks))
            if self.config.recall is not None:
                state, again = self._recall(state, self.config.recall, features, frames[t], kept, scale)
                steps[-1] = _join(steps[-1], again)
            if self.propagation is not None:
                ids, kept, _ = steps[-1]
                history, lost_ids, lost, carried = self.propagation.step(
                    state.history, features.maps, one.sizes[0], scale, size, ids, kept
                )
                state = replace(state, history=history)
                steps[-1] = _join(steps[-1], (lost_ids, lost, carried))
        return state, _gather(steps, index, len(self.classes), size)

    def _look(self, state: Memory, raw: Features, frame: Kept, own: bool) -> tuple[Features, Memory]:
        """Features of one frame after attention, and the memory that keeps what later frames will look at."""
        config, features = self.config, raw
        if self.neck is None and config.regions is None:
            return features, state
        past = [kept for kept in state.frames if kept.like(frame)]
        context = Context.of_kept(past or [frame])
        if isinstance(config.neck, STAConfig) and self.neck is not None:
            alone = config.neck.first_frame == "identity" and not past
            if config.neck.at_test and not alone:
                features = self.neck(raw, context, [frame.size])
        else:
            if self.neck is not None and self.neck.config.at_test:
                features = self.neck(raw, context, [frame.size])
            if config.regions is not None and config.regions.at_test:
                features = replace(features, supports=supports_at(context, *self.object_level))
        if own:
            kept = config.supports_kept if self._looks_around else 1
            state = replace(state, frames=(*past, frame)[-kept:])
        return features, state

    def _identify(
        self, memory: Memory, features: Features, found: Detections, time: int
    ) -> tuple[Memory, Tensor, Detections]:
        """Ids [N] of the detections that are kept, and the memory with their descriptors and boxes in it."""
        config = self.config.association
        memory = replace(forget(memory, time, config.keep, config.cut_keep), time=time)
        if len(found) == 0:
            return memory, memory.ids[:0], found
        descriptors = self.match.describe(self.detector.cells(features, [found.boxes], self.config.match.resolution))
        if len(memory.ids) == 0:
            memory = replace(memory, descriptors=descriptors[:0])
            decided = associate(found.boxes.new_zeros(len(found), 1), found.confidence, config)
        else:
            logits = self.match_logits(features, found.boxes, descriptors, memory.descriptors)
            known_boxes = memory.boxes.masked_fill(memory.elsewhere[:, None], 0)  # a place in another shot says nothing
            table = cue_scores(logits, found.confidence, found.boxes, found.labels, known_boxes, memory.labels, config)
            table = across_cuts(table, logits, found.labels, memory.labels, memory.elsewhere, config)
            decided = associate(table, found.confidence, config)
        decided = drop_shadows(decided, found.boxes, found.labels, config.shadow)
        return remember(memory, descriptors, found, decided.to(found.boxes.device), time, self.config.persistence)

    def _masks(self, features: Features, frame: Tensor, found: Detections, scale: Tensor) -> Tensor:
        """Mask probabilities pasted into the whole frame [3, H, W], [N, H, W]."""
        size, config = (frame.shape[-2], frame.shape[-1]), self.config.mask
        if len(found) == 0:
            return found.boxes.new_zeros(0, *size)
        if not isinstance(config, CropMaskConfig):
            regions = grow(found.boxes, config.margin)
            return paste(self._inside(features, frame, regions, found.labels, scale), regions / scale, size)
        regions, rows = views(found.boxes, config)
        boxes, labels = found.boxes[rows], found.labels[rows]
        inside = self._inside(features, frame, regions, labels, scale)
        if config.second_look:
            own = tight(inside, regions)
            again = (box_ops.iou(own, boxes).diagonal() < config.second_look).nonzero()[:, 0]
            if len(again):
                regions = regions.index_copy(0, again, grow(own[again], config.margin))
                inside[again] = self._inside(features, frame, regions[again], labels[again], scale)
        return averaged(paste(inside, regions / scale, size), rows, len(found))

    def _trusted(self, found: Detections, masks: Tensor) -> Detections:
        """The detections with the scores that their masks [N, H, W] deserve; what is remembered keeps its own."""
        config = self.config.mask
        if not isinstance(config, CropMaskConfig) or not config.trust:
            return found
        factors = sureness(masks, config.typical).pow(config.trust)
        return replace(found, scores=(found.scores * factors[:, None].to(found.scores)).clamp(max=1))

    def _inside(self, features: Features, frame: Tensor, regions: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
        """Mask probabilities of the cells of regions [N, 4], [N, h, w]."""
        cells = self.detector.cells(features, [regions], self.config.mask.resolution)
        logits = self._outlines(cells, [frame], [regions / scale])
        own = logits[:, 0] if isinstance(self.mask, CropMaskHead) else self.mask.of_class(logits, labels)
        return own.float().sigmoid()

    def _recall(
        self,
        memory: Memory,
        config: RecallConfig,
        features: Features,
        frame: Tensor,
        found: Detections,
        scale: Tensor,
    ) -> tuple[Memory, _Objects]:
        """Objects that were not detected in this frame but are still where they were, by mask and match head."""
        lost = missing(memory, found.boxes, config)
        if len(lost):
            cells = self.detector.cells(features, [memory.boxes[lost]], self.config.match.resolution)
            described = self.match.describe(cells)
            logits = self.match_logits(features, memory.boxes[lost], described, memory.descriptors)
            lost = lost[own_probability(logits, lost) >= config.agreement]
        again = Detections(boxes=memory.boxes[lost], scores=faded(memory, lost, config.decay))
        masks = self._masks(features, frame, again, scale)
        regions = grow(again.boxes, self.config.mask.margin)
        memory, plausible = follow(memory, lost, masks, regions, scale, config.change)
        return memory, (memory.ids[lost[plausible]], again[plausible], masks[plausible])


_Objects = tuple[Tensor, Detections, Tensor]  # of one frame: ids [N], detections, masks [N, H, W]


def _join(first: _Objects, second: _Objects) -> _Objects:
    (ids, found, masks), (more_ids, more, more_masks) = first, second
    both = Detections(boxes=torch.cat([found.boxes, more.boxes]), scores=torch.cat([found.scores, more.scores]))
    return torch.cat([ids, more_ids]), both, torch.cat([masks, more_masks])


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


def _of_equal_length(rows: dict[int, list[int]]) -> list[list[int]]:
    """Keys in groups whose values are of one length, so that each group makes one batch."""
    groups: dict[int, list[int]] = {}
    for key, values in rows.items():
        groups.setdefault(len(values), []).append(key)
    return list(groups.values())
