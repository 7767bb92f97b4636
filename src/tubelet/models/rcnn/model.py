"""MaskTrack R-CNN: Mask R-CNN with a fourth head that matches each detection with a known object.

Source: Yang et al., Video Instance Segmentation, ICCV 2019 (docs/papers/masktrack_rcnn.md). This is
the host of the R-CNN family: other papers plug into its sockets. Their interfaces are in
`detectors/detector.py`, `neck.py` (STA, dual attention), `regions.py` (object-level attention),
`heads/sockets.py` (mask and match heads) and `propagation.py` (ObjProp).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tubelet.core.config import Config
from tubelet.core.protocol import Glance, Traits, Window, check_clips
from tubelet.core.types import Clip, Losses, Tracks
from tubelet.engines.graph import Graph
from tubelet.engines.threads import is_by_engine, torch_on_one_thread
from tubelet.models.inputs import Images
from tubelet.models.rcnn.context import Context, FrameFeatures
from tubelet.models.rcnn.detectors import nanodet, ssdlite  # noqa: F401 (register detectors, by `kind`)
from tubelet.models.rcnn.detectors.detector import Detections, DetectorConfig, Features
from tubelet.models.rcnn.detectors.two_stage import TwoStageConfig
from tubelet.models.rcnn.glances import Point
from tubelet.models.rcnn.heads import correlation, crops  # noqa: F401 (registers heads, by `kind`)
from tubelet.models.rcnn.heads.crops import sureness
from tubelet.models.rcnn.heads.paste import FrameMasks
from tubelet.models.rcnn.heads.sockets import Batch, MaskConfig, MatchConfig, View
from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.identification import identify, named_by_votes, remember_as
from tubelet.models.rcnn.memory import Memory, empty_memory, entered, resized
from tubelet.models.rcnn.naming import NamingConfig
from tubelet.models.rcnn.neck import NeckConfig
from tubelet.models.rcnn.objects import Objects, recognised, tracks_of
from tubelet.models.rcnn.propagation import Propagation, PropagationConfig
from tubelet.models.rcnn.recall import RecallConfig, Search, are_present, faded, follow, recognised_at_last
from tubelet.models.rcnn.regions import RegionsConfig, RegionsPlug
from tubelet.models.rcnn.targets import Partners, partners_of, targets_of
from tubelet.tracking.association import NEW, AssociationConfig


class MaskTrackConfig(Config):
    """Settings of the R-CNN family: a detector, its heads, and how detections become tracks.

    Example:
        >>> from tubelet.models.rcnn.model import MaskTrackConfig
        >>> from tubelet.models.rcnn.neck import STANeckConfig
        >>> sta = MaskTrackConfig(neck=STANeckConfig())
        >>> sta.neck.levels
        ('P3', 'P4', 'P5', 'P6')
    """

    kind: Literal["masktrack"] = "masktrack"
    detector: DetectorConfig = TwoStageConfig()
    neck: NeckConfig | None = None  # refines the pyramid by other frames
    regions: RegionsConfig | None = None  # refines each box's region features by support frames
    mask: MaskConfig = MaskHeadConfig()
    match: MatchConfig = FullyConnectedMatchConfig()
    match_average: Literal["positives", "all"] = "positives"  # regions that the match loss is divided by
    propagation: PropagationConfig | None = None  # carries objects into frames where the detector misses them
    window: Window = Window()  # its context frames are the support frames of dual attention
    supports_kept: int = Field(default=4, ge=1)  # last frames used as support where the window gives no context
    association: AssociationConfig = AssociationConfig()
    persistence: float = Field(default=0.0, ge=0, le=1)  # share of its best scores that an object keeps per frame
    recall: RecallConfig | None = None  # searches for objects that the detector misses (the paper: none)
    naming: NamingConfig | None = None  # frames vote on the class, and the score says how much they agree
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
        """Build the model with random weights for these class names."""
        return MaskTrackRCNN(self, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a step computes of its T key frames before it looks into the memory.

    Example:
        >>> model = tubelet.load("default", device="cpu", engine="torch")
        >>> frames = torch.zeros(2, 3, 48, 64, dtype=torch.uint8)
        >>> clip = tubelet.Clip(frames=frames, index=torch.arange(2), key=torch.ones(2, dtype=torch.bool))
        >>> with torch.inference_mode():
        ...     prepared = model.prepare(clip)
        >>> len(prepared.detections)
        2
    """

    images: Images
    features: Features  # without attention
    detections: list[Detections] | None  # [T]; None where attention refines the maps first


class MaskTrackRCNN(nn.Module):
    """A VideoSegmenter: detects objects in every frame, then matches them with its memory."""

    def __init__(self, config: MaskTrackConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        self.window = config.window
        self.precision = torch.float32  # of the network in `step`; training has its own setting

        self.detector = config.detector.build(len(classes))
        channels = self.detector.channels
        strides = self.detector.all_strides
        if config.regions is not None:
            self.detector.attention = config.regions.build(channels, strides)
        self.neck = None if config.neck is None else config.neck.attach(self.detector)
        self.mask = config.mask.build(channels, len(classes))
        self.match = config.match.build(channels, strides)
        self.propagation: Propagation | None = None
        if config.propagation is not None:
            self.propagation = config.propagation.build(channels, len(classes), strides)

        plugs = (self.neck, self.regions, self.match, self.propagation)
        attention = any(plug is not None and plug.has_glances for plug in plugs)
        self.traits = Traits(vote=config.vote, min_frames=config.min_frames, attention=attention, guided=True)

    @property
    def regions(self) -> RegionsPlug | None:
        """Object-level attention; part of the detector, because the box head reads its output."""
        return self.detector.attention

    def graphs(self) -> list[Graph]:
        """Return the parts that an engine can compute; attention and propagation are torch's."""
        return [*self.detector.graphs(), *self.mask.graphs(), *self.match.graphs()]

    # training

    def forward(self, clips: list[Clip]) -> Losses:
        """Compute the losses of clips of two frames or more.

        Key frames train the detector; each is matched with its reference frame. Context frames are
        support frames and, last, the reference frame (see `targets.partners_of`).
        """
        check_clips(clips)
        images = self._prepare(clips)
        targets = targets_of(clips, images)
        partners = partners_of(clips)
        features = self._refine_batch(self.detector.extract(images), images, partners)

        key = partners.key
        key_targets = [targets[i] for i in key]
        losses, samples = self.detector.losses(features.at(*key), images.at(*key), key_targets)

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

    def _refine_batch(self, raw: Features, images: Images, partners: Partners) -> Features:
        """Apply frame-level attention, and add the support maps of object-level attention."""
        features = raw
        if self.neck is not None:
            features = self.neck.refine_batch(raw, images.sizes, partners)

        if self.regions is not None:
            rows = [partners.supports[i] for i in range(len(images.sizes))]
            contexts = [Context.of_batch(raw.maps, images.sizes, [others]) for others in rows]
            supports = [self.regions.support(context) for context in contexts]
            features = replace(features, supports=supports)
        return features

    def _prepare(self, clips: list[Clip]) -> Images:
        return self.detector.config.input.prepare([clip.frames for clip in clips])

    # inference

    def start(self) -> Memory:
        """Return an empty memory, for the start of a video."""
        return empty_memory(len(self.classes))

    def step(self, state: Memory, clip: Clip) -> tuple[Memory, Tracks]:
        """Find the objects of the clip's key frames, one frame after the other.

        Key frames up to the last frame in memory are skipped.
        """
        new = clip.at(~clip.key | (clip.index > state.time))
        return self.finish(state, new, self.prepare(new))

    @property
    def worth_preparing(self) -> bool:
        """Whether an engine computes the networks: torch alone keeps all cores busy."""
        return any(map(is_by_engine, self.graphs()))

    def prepare(self, clip: Clip) -> Prepared | None:
        """Compute the pyramids of the clip's key frames and, unless attention refines them, their detections.

        None if it has no key frames.
        """
        frames = clip.at(clip.key).frames
        if len(frames) == 0:
            return None

        with self._computing(frames.device):
            images = self.detector.config.input.prepare([frames])
            features = self.detector.extract(images)
            detections = None
            if self.neck is None and self.regions is None:
                detections = [self.detector.detect(features.at(t), images.at(t))[0] for t in range(len(frames))]
        return Prepared(images=images, features=features, detections=detections)

    def finish(self, state: Memory, clip: Clip, prepared: Prepared | None) -> tuple[Memory, Tracks]:
        """Find the objects of the clip's key frames in what `prepare` returned for this clip."""
        key = clip.at(clip.key)
        new = [t for t, number in enumerate(key.index.tolist()) if number > state.time]
        index = key.index[new]
        if prepared is None or not new:
            return state, Tracks.empty(index, len(self.classes), clip.size)

        images = prepared.images
        with self._computing(clip.frames.device):
            state = entered(resized(state, images.sizes[0]), clip.shot, int(index[0]))
            has_supports = self._reads_supports and not bool(clip.key.all())
            if has_supports:
                state = self._with_supports(state, clip)

            objects = []
            for t in new:
                state, frame_objects = self._step_frame(
                    state,
                    prepared.features.at(t),
                    images.at(t),
                    key.frames[t],
                    int(key.index[t]),
                    None if prepared.detections is None else prepared.detections[t],
                    store=not has_supports,
                )
                objects.append(frame_objects)
        return state, tracks_of(objects, index, len(self.classes))

    @contextmanager
    def _computing(self, device: torch.device) -> Iterator[None]:
        """Compute in this block as inference does: in the model's precision, beside an engine's threads."""
        bf16 = self.precision == torch.bfloat16
        with torch_on_one_thread(self.graphs()), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            yield

    def introduce(self, state: Memory, clip: Clip, objects: Tracks) -> Memory:
        """Return the memory after a frame whose objects are given: a later `step` follows them.

        They get the next ids, in their order. Each counts as a detection of score 1, of the class
        that the detector sees at its place, for it will call the object so in the next frame; where
        it sees nothing, of the given class.
        """
        bf16 = self.precision == torch.bfloat16
        with torch.autocast(clip.frames.device.type, torch.bfloat16, enabled=bf16):
            image = self.detector.config.input.prepare([clip.frames])
            time = int(clip.index[0])
            state = entered(resized(state, image.sizes[0]), clip.shot, time)
            raw = self.detector.extract(image)
            state, view = self._view(state, raw, image, clip.frames[0], time, store=True)

            objects = objects.to("cpu")
            boxes = objects.boxes[:, 0] * view.scale
            (seen,) = self.detector.detect(view.features, image)
            given = Detections(boxes=boxes, scores=recognised(boxes, objects.scores, seen))
            descriptors = self.match.describe(view.cells(boxes, self.match.resolution))
            memory = replace(state, descriptors=descriptors[:0]) if len(state.ids) == 0 else state
            new = torch.full_like(objects.ids, NEW)
            memory, ids, given = remember_as(self.config, replace(memory, time=time), descriptors, given, new, time)
            if self.propagation is not None:
                maps, size = view.features.maps, image.sizes[0]
                history, *_ = self.propagation.step(memory.history, maps, size, view.scale, view.size, ids, given)
                memory = replace(memory, history=history)
        return memory

    def _view(
        self, state: Memory, raw: Features, image: Images, frame: Tensor, time: int, *, store: bool
    ) -> tuple[Memory, View]:
        """Refine the maps of a frame; `store` its raw maps for attention of later frames."""
        current = FrameFeatures(index=time, maps=raw.maps, size=image.sizes[0])
        features = self._refine_frame(state, raw, current)
        if store:
            state = self._with_frame(state, current)
        return state, View(detector=self.detector, features=features, frame=frame, scale=image.scales[0])

    def _step_frame(
        self,
        state: Memory,
        raw: Features,
        image: Images,
        frame: Tensor,
        time: int,
        detections: Detections | None,
        *,
        store: bool,
    ) -> tuple[Memory, Objects]:
        """Find the objects of one frame; `store` its raw maps for attention of later frames."""
        state, view = self._view(state, raw, image, frame, time, store=store)

        if detections is None:
            (detections,) = self.detector.detect(view.features, image)
        state, ids, detections, search = identify(self.config, self.match, state, view, detections, time)
        state, objects = self._segment(state, view, ids, detections, search)

        if self.propagation is not None:
            history, ids, lost, lost_masks = self.propagation.step(
                state.history,
                view.features.maps,
                image.sizes[0],
                view.scale,
                view.size,
                objects.ids,
                objects.detections,
            )
            state = replace(state, history=history)
            objects += Objects(ids=ids, detections=lost, masks=lost_masks)
        return state, objects

    def _refine_frame(self, state: Memory, raw: Features, frame: FrameFeatures) -> Features:
        """Apply attention to the frames in memory, at frame level and at object level."""
        features = raw
        past = _past(state, frame)
        if self.neck is not None:
            features = self.neck.refine_frame(raw, frame, past)

        if self.regions is not None and self.regions.at_test:
            support = self.regions.support(Context.of_frames(past or [frame]))
            features = replace(features, supports=[support])
        return features

    @property
    def _reads_supports(self) -> bool:
        """Whether attention reads a clip's context frames."""
        neck = self.config.neck
        return self.regions is not None or (neck is not None and neck.reads_supports)

    def _with_supports(self, state: Memory, clip: Clip) -> Memory:
        """Replace the stored maps by those of the clip's context frames, reusing the known ones."""
        frames = clip.frames[~clip.key]
        index = clip.index[~clip.key].tolist()
        support_times = dict.fromkeys(index)

        known = {frame.index: frame for frame in state.frames}
        for t in support_times:
            if t not in known:
                images = self.detector.config.input.prepare([frames[index.index(t)][None]])
                maps = self.detector.extract(images).maps
                known[t] = FrameFeatures(index=t, maps=maps, size=images.sizes[0])
        return replace(state, frames=tuple(known[t] for t in support_times))

    def _with_frame(self, state: Memory, frame: FrameFeatures) -> Memory:
        """Store the maps of this frame for attention of later ones; drop the oldest."""
        if self.neck is None and self.regions is None:
            return state
        count = self.config.supports_kept if self._reads_supports else 1
        frames = (*_past(state, frame), frame)
        return replace(state, frames=frames[-count:])

    def _segment(
        self, memory: Memory, view: View, ids: Tensor, detections: Detections, search: Search
    ) -> tuple[Memory, Objects]:
        """Predict the masks of the N detections, and of undetected objects that are near their last boxes."""
        lost, recalled = self._lost(memory, detections, search)
        count = len(detections)
        both = detections + recalled
        masks = self.mask.masks(view, both.boxes, both.labels, groups=(count, len(lost)))
        detections = named_by_votes(self.config, memory, ids, self.mask.rescored(detections, masks.part(slice(count))))
        objects = Objects(
            ids=torch.cat([ids, memory.ids[lost]]),
            detections=detections + recalled,
            masks=masks.probabilities,
        )
        if self.config.recall is None or len(lost) == 0:
            return memory, objects

        visible = self.visible(memory, lost, search, masks.part(slice(count, None)))
        objects = objects[torch.cat([torch.ones(count, dtype=torch.bool), visible])]
        regions = self.mask.reach(recalled.boxes[visible])
        change = self.config.recall.change
        memory, plausible = follow(memory, lost[visible], objects.masks[count:], regions, view.scale, change)
        return memory, objects[torch.cat([torch.ones(count, dtype=torch.bool), plausible])]

    def visible(self, memory: Memory, lost: Tensor, search: Search, masks: FrameMasks) -> Tensor:
        """Whether each undetected object is visible where its mask was predicted, bool [L]."""
        config = self.config.recall
        if config is None or config.presence is None:
            return torch.ones(len(lost), dtype=torch.bool)
        return are_present(config.presence, memory, lost, search, sureness(masks, typical=1.0))

    def _lost(self, memory: Memory, detections: Detections, search: Search) -> tuple[Tensor, Detections]:
        """Choose the undetected objects that the match head recognises at their last boxes: positions [L], boxes."""
        config = self.config.recall
        if config is None:
            return search.objects, detections[:0]
        lost = recognised_at_last(config, memory, detections.boxes, search)
        recalled = Detections(boxes=memory.boxes[lost], scores=faded(memory, lost, config.decay))
        return lost, named_by_votes(self.config, memory, memory.ids[lost], recalled)

    # attention maps

    def attend(self, state: Memory, clip: Clip, frame: int, at: tuple[float, float]) -> list[Glance]:
        """Return the attention weights of one point of a key frame.

        Args:
            state: The memory before this clip.
            clip: A clip that holds the frame.
            frame: Index of the key frame in the video.
            at: The point (x, y) in pixels of the frame.
        """
        if bool((clip.index[clip.key] < frame).any()):
            state, _ = self.step(state, clip.up_to(frame - 1))

        images = self.detector.config.input.prepare([clip.frames[clip.key & (clip.index == frame)]])
        state = entered(resized(state, images.sizes[0]), clip.shot, frame)
        if self._reads_supports and not clip.key.all():
            state = self._with_supports(state, clip)

        raw = self.detector.extract(images)
        current = FrameFeatures(index=frame, maps=raw.maps, size=images.sizes[0])
        scale = images.scales[0]
        point = at[0] * float(scale[0]), at[1] * float(scale[1])
        return self._glances(state, images, raw, current, point)

    def _glances(self, state: Memory, images: Images, raw: Features, frame: FrameFeatures, at: Point) -> list[Glance]:
        """Collect the attention weights of every plug, in the order of the forward pass."""
        features = self._refine_frame(state, raw, frame)
        past = _past(state, frame) or [frame]
        glances = [] if self.neck is None else self.neck.glances(raw, frame, past, at)

        box = _box_around(self.detector.detect(features, images)[0], at)
        if box is not None:
            if self.regions is not None:
                cells = self.detector.regions(features.maps, [box], 7)
                glances += self.regions.glances(cells, past)
            cells = self.detector.cells(features, [box], self.match.resolution)
            descriptor = self.match.describe(cells)
            glances += self.match.glances(features, box, descriptor, state.descriptors, state.ids, frame)

        if self.propagation is not None:
            glances += self.propagation.glances(state.history, features.maps, frame, state.time, at)
        return glances


def _past(memory: Memory, frame: FrameFeatures) -> list[FrameFeatures]:
    """Stored frames whose maps have the size of this frame's."""
    return [past for past in memory.frames if past.like(frame)]


def _box_around(detections: Detections, at: Point) -> Tensor | None:
    """The best detected box [1, 4] that contains a point; None if there is none."""
    x, y = at
    boxes = detections.boxes
    in_columns = (boxes[:, 0] <= x) & (x < boxes[:, 2])
    in_rows = (boxes[:, 1] <= y) & (y < boxes[:, 3])
    rows = (in_columns & in_rows).nonzero()[:, 0]
    return boxes[rows[:1]] if len(rows) else None
