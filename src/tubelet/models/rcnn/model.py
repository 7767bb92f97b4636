"""MaskTrack R-CNN: Mask R-CNN with a fourth head that says which known object each detection is.

Source: Yang et al., Video Instance Segmentation, ICCV 2019 (docs/papers/masktrack_rcnn.md). The host of the family:
what the papers add plugs into its sockets. Their interfaces are `detectors/detector.py`, `neck.py` (STA, dual
attention), `regions.py` (object-level attention), `heads/sockets.py` (mask and match heads), and `propagation.py`
(ObjProp).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tubelet.core.config import Config
from tubelet.core.protocol import Glance, Traits, Window, check_clips
from tubelet.core.types import Clip, Losses, Tracks
from tubelet.models.inputs import Images
from tubelet.models.rcnn.context import Context, Kept
from tubelet.models.rcnn.detectors import nanodet, ssdlite  # noqa: F401 (plugs that configs name by `kind`)
from tubelet.models.rcnn.detectors.detector import Detections, DetectorConfig, Features
from tubelet.models.rcnn.detectors.two_stage import TwoStageConfig
from tubelet.models.rcnn.glances import Point
from tubelet.models.rcnn.heads import correlation, crops  # noqa: F401 (the same)
from tubelet.models.rcnn.heads.sockets import Batch, MaskConfig, MatchConfig, View
from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.memory import Memory, entered, forget, remember, resized
from tubelet.models.rcnn.neck import NeckConfig
from tubelet.models.rcnn.objects import Objects, tracks_of
from tubelet.models.rcnn.propagation import Propagation, PropagationConfig
from tubelet.models.rcnn.recall import RecallConfig, faded, follow, missing, own_probability
from tubelet.models.rcnn.regions import RegionsConfig, RegionsPlug
from tubelet.models.rcnn.targets import Partners, partners_of, targets_of
from tubelet.tracking.association import AssociationConfig, across_cuts, associate, cue_scores, drop_shadows


class MaskTrackConfig(Config):
    """One detector, its heads, and the rule that gives identities."""

    kind: Literal["masktrack"] = "masktrack"
    detector: DetectorConfig = TwoStageConfig()
    neck: NeckConfig | None = None  # refines the pyramid by other frames
    regions: RegionsConfig | None = None  # refines what heads see of each box by support frames
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
        if self.neck is not None and not self.neck.reads_supports and self.regions is not None:
            raise ValueError(
                f"neck {self.neck.kind} looks at the frame before, regions at support frames: choose one, or neck dual"
            )
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
        self.detector = config.detector.build(len(classes))
        channels, strides = self.detector.channels, self.detector.all_strides
        if config.regions is not None:
            self.detector.attention = config.regions.build(channels, strides)
        self.neck = None if config.neck is None else config.neck.attach(self.detector)
        self.mask = config.mask.build(channels, len(classes))
        self.match = config.match.build(channels, strides)
        self.propagation: Propagation | None = None
        if config.propagation is not None:
            self.propagation = config.propagation.build(channels, len(classes), strides)
        plugs = (self.neck, self.regions, self.match, self.propagation)
        looks = any(plug is not None and plug.looks for plug in plugs)
        self.traits = Traits(vote=config.vote, min_frames=config.min_frames, attention=looks)

    @property
    def regions(self) -> RegionsPlug | None:
        """Object-level attention; a part of the detector, whose box head reads what it refines."""
        return self.detector.attention

    # training

    def forward(self, clips: list[Clip]) -> Losses:
        """Losses of clips of two frames or more; key frames learn to detect, all frames learn to be told apart.

        Context frames are support frames and, last, the reference (`targets.partners_of`).
        """
        check_clips(clips)
        images = self._prepare(clips)
        targets, partners = targets_of(clips, images), partners_of(clips)
        features = self._refined(self.detector.extract(images), images, partners)

        key = partners.key
        losses, samples = self.detector.losses(features.at(*key), images.at(*key), [targets[i] for i in key])

        batch = Batch(
            detector=self.detector,
            features=features,
            frames=[frame for clip in clips for frame in clip.frames],
            targets=targets,
            samples=dict(zip(key, samples, strict=True)),
            reference=partners.reference,
        )
        losses |= self.mask.losses(batch)
        losses |= self.match.losses(batch, self.config.match_average)
        if self.propagation is not None:
            reference = {i: partners.reference[i] for i in key}
            losses |= self.propagation.losses(features.maps, images, targets, reference)
        return losses

    def _refined(self, raw: Features, images: Images, partners: Partners) -> Features:
        """Features of the batch after frame-level attention, with what object-level attention will read."""
        features = raw
        if self.neck is not None:
            features = self.neck.refine_batch(raw, images.sizes, partners)
        if self.regions is not None:
            rows = [partners.supports[i] for i in range(len(images.sizes))]
            contexts = [Context.of_batch(raw.maps, images.sizes, [others]) for others in rows]
            features = replace(features, supports=[self.regions.support(context) for context in contexts])
        return features

    def _prepare(self, clips: list[Clip]) -> Images:
        return self.detector.config.input.prepare([clip.frames for clip in clips])

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
            images = self.detector.config.input.prepare([frames])
            state = entered(resized(state, images.sizes[0]), clip.shot, int(index[0]))
            around = self._reads_supports and not bool(clip.key.all())
            if around:
                state = self._with_supports(state, clip)
            raw = self.detector.extract(images)
            objects = []
            for t in range(len(index)):
                state, found = self._frame(state, raw.at(t), images.at(t), frames[t], int(index[t]), keep=not around)
                objects.append(found)
        return state, tracks_of(objects, index, len(self.classes))

    def _frame(
        self, state: Memory, raw: Features, image: Images, frame: Tensor, time: int, *, keep: bool
    ) -> tuple[Memory, Objects]:
        """The objects of one frame; `keep` its raw maps for the next ones to look at."""
        kept = Kept(index=time, maps=raw.maps, size=image.sizes[0])
        features = self._look(state, raw, kept)
        if keep:
            state = self._with_frame(state, kept)
        view = View(detector=self.detector, features=features, frame=frame, scale=image.scales[0])

        (detections,) = self.detector.detect(features, image)
        state, ids, found = self._identify(state, view, detections, time)
        masks = self.mask.masks(view, found.boxes, found.labels)
        objects = Objects(ids=ids, found=self.mask.rescored(found, masks), masks=masks)

        if self.config.recall is not None:
            state, again = self._recall(state, self.config.recall, view, found)
            objects += again
        if self.propagation is not None:
            history, ids, lost, lost_masks = self.propagation.step(
                state.history, features.maps, kept.size, view.scale, view.size, objects.ids, objects.found
            )
            state = replace(state, history=history)
            objects += Objects(ids=ids, found=lost, masks=lost_masks)
        return state, objects

    def _look(self, state: Memory, raw: Features, frame: Kept) -> Features:
        """Features of one frame after attention to the frames in memory."""
        features, past = raw, _past(state, frame)
        if self.neck is not None:
            features = self.neck.refine_frame(raw, frame, past)
        if self.regions is not None and self.regions.at_test:
            support = self.regions.support(Context.of_kept(past or [frame]))
            features = replace(features, supports=[support])
        return features

    @property
    def _reads_supports(self) -> bool:
        """Whether support frames are looked at where a clip brings any."""
        neck = self.config.neck
        return self.regions is not None or (neck is not None and neck.reads_supports)

    def _with_supports(self, state: Memory, clip: Clip) -> Memory:
        """The memory with maps of just the clip's context frames; those that it holds are not computed again."""
        frames, index = clip.frames[~clip.key], clip.index[~clip.key].tolist()
        known = {kept.index: kept for kept in state.frames}
        wanted = dict.fromkeys(index)
        for t in wanted:
            if t not in known:
                images = self.detector.config.input.prepare([frames[index.index(t)][None]])
                known[t] = Kept(index=t, maps=self.detector.extract(images).maps, size=images.sizes[0])
        return replace(state, frames=tuple(known[t] for t in wanted))

    def _with_frame(self, state: Memory, frame: Kept) -> Memory:
        """The memory with maps of this frame, for the next ones to look at; the oldest are dropped."""
        if self.neck is None and self.regions is None:
            return state
        count = self.config.supports_kept if self._reads_supports else 1
        return replace(state, frames=(*_past(state, frame), frame)[-count:])

    def _identify(self, memory: Memory, view: View, found: Detections, time: int) -> tuple[Memory, Tensor, Detections]:
        """Ids [N] of the detections that are kept, and the memory with their descriptors and boxes in it."""
        config = self.config.association
        memory = replace(forget(memory, time, config.keep, config.cut_keep), time=time)
        if len(found) == 0:
            return memory, memory.ids[:0], found
        descriptors = self.match.describe(view.cells(found.boxes, self.match.resolution))
        if len(memory.ids) == 0:
            memory = replace(memory, descriptors=descriptors[:0])
            decided = associate(found.boxes.new_zeros(len(found), 1), found.confidence, config)
        else:
            logits = self.match.compare(view.features, found.boxes, descriptors, memory.descriptors)
            known_boxes = memory.boxes.masked_fill(memory.elsewhere[:, None], 0)  # a place in another shot says nothing
            table = cue_scores(logits, found.confidence, found.boxes, found.labels, known_boxes, memory.labels, config)
            table = across_cuts(table, logits, found.labels, memory.labels, memory.elsewhere, config)
            decided = associate(table, found.confidence, config)
        decided = drop_shadows(decided, found.boxes, found.labels, config.shadow)
        return remember(memory, descriptors, found, decided.to(found.boxes.device), time, self.config.persistence)

    def _recall(self, memory: Memory, config: RecallConfig, view: View, found: Detections) -> tuple[Memory, Objects]:
        """Objects that were not detected in this frame but are still where they were, by mask and match head."""
        lost = missing(memory, found.boxes, config)
        if len(lost):
            boxes = memory.boxes[lost]
            described = self.match.describe(view.cells(boxes, self.match.resolution))
            logits = self.match.compare(view.features, boxes, described, memory.descriptors)
            lost = lost[own_probability(logits, lost) >= config.agreement]
        again = Detections(boxes=memory.boxes[lost], scores=faded(memory, lost, config.decay))
        masks = self.mask.masks(view, again.boxes, again.labels)
        memory, plausible = follow(memory, lost, masks, self.mask.reach(again.boxes), view.scale, config.change)
        objects = Objects(ids=memory.ids[lost[plausible]], found=again[plausible], masks=masks[plausible])
        return memory, objects

    # looking

    def attend(self, state: Memory, clip: Clip, frame: int, at: tuple[float, float]) -> list[Glance]:
        """Where attention looks from a point (x, y in pixels) of one key frame of the clip."""
        if bool((clip.index[clip.key] < frame).any()):
            state, _ = self.step(state, clip.up_to(frame - 1))
        images = self.detector.config.input.prepare([clip.frames[clip.key & (clip.index == frame)]])
        state = entered(resized(state, images.sizes[0]), clip.shot, frame)
        if self._reads_supports and not clip.key.all():
            state = self._with_supports(state, clip)
        raw = self.detector.extract(images)
        place = at[0] * float(images.scales[0, 0]), at[1] * float(images.scales[0, 1])
        return self._glances(state, images, raw, Kept(index=frame, maps=raw.maps, size=images.sizes[0]), place)

    def _glances(self, state: Memory, images: Images, raw: Features, frame: Kept, at: Point) -> list[Glance]:
        """Of every plug in the order in which they come, asked once more with what they would be given."""
        features, past = self._look(state, raw, frame), _past(state, frame) or [frame]
        glances = [] if self.neck is None else self.neck.glances(raw, frame, past, at)
        box = _around(self.detector.detect(features, images)[0], at)
        if box is not None:
            if self.regions is not None:
                glances += self.regions.glances(self.detector.regions(features.maps, [box], 7), past)
            described = self.match.describe(self.detector.cells(features, [box], self.match.resolution))
            glances += self.match.glances(features, box, described, state.descriptors, state.ids, frame)
        if self.propagation is not None:
            glances += self.propagation.glances(state.history, features.maps, frame, state.time, at)
        return glances


def _past(memory: Memory, frame: Kept) -> list[Kept]:
    """Remembered maps that can be read beside those of this frame."""
    return [kept for kept in memory.frames if kept.like(frame)]


def _around(found: Detections, at: Point) -> Tensor | None:
    """The best detected box [1, 4] around a point."""
    x, y = at
    boxes = found.boxes
    inside = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
    rows = inside.nonzero()[:, 0]
    return boxes[rows[:1]] if len(rows) else None
