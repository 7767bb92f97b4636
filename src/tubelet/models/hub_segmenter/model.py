"""An image segmenter of the hub with our memory: masks and classes are its own, identities are ours.

No paper: the bridge from RF-DETR-Seg, EoMT and Mask2Former of images (transformers' classes) to video. An object is
known by its query's embedding, its box and its class (tracking/association.py); it may be hidden for a while, and is
found again after a cut only where the match is beyond doubt. A detection too weak to start an object may continue one.

Letters: N detections, M known objects, Q queries, K classes, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tubelet.core import boxes as box_ops
from tubelet.core.config import Config
from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Traits, Window, check_clips
from tubelet.core.types import Clip, Losses, Tracks
from tubelet.engines.graph import Graph
from tubelet.models.frames import join_frames
from tubelet.models.hub_segmenter.answers import SegmenterAnswer, SegmenterFamily, mask_confidence
from tubelet.models.hub_segmenter.pictures import PictureConfig, cut_to_frame, to_frame
from tubelet.models.rcnn.detectors.detector import Detections
from tubelet.models.rcnn.memory import Memory, empty_memory, entered, forget, match_scores, remember, resized
from tubelet.tracking.association import (
    DROPPED,
    AssociationConfig,
    associate,
    drop_shadows,
)


class HubSegmenterConfig(Config):
    """Settings of the bridge; what the checkpoint says of itself is not among them.

    Example:
        >>> from tubelet.models.hub_segmenter.model import HubSegmenterConfig
        >>> HubSegmenterConfig(score=0.2).association.assignment
        'optimal'
    """

    score: float = Field(default=0.1, ge=0, le=1)  # the lowest with which a detection can continue an object
    birth: float | None = Field(default=None, ge=0, le=1)  # and start one; None: from which the processor shows it
    top: int = Field(default=100, ge=1)  # at most so many detections of a frame, the best
    cosine: float = Field(default=0.8, ge=-1, le=1)  # of embeddings, at which "the same" is as likely as "new"
    sharpness: float = Field(default=20.0, gt=0)  # of the match logits in the cosine
    # the cues of Yang et al. with an optimal assignment; a class may change from frame to frame
    association: AssociationConfig = AssociationConfig(
        iou_weight=5.0,
        label_weight=1.0,
        assignment="optimal",
        shadow=0.7,
        keep=30,
        cut_match=0.95,
    )
    window: Window = Window()
    frames_at_a_time: int = Field(default=8, ge=1)  # through the network, where clips have more


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameDetections:
    """The N detections of one frame, best first.

    Example:
        >>> from tubelet.models.hub_segmenter.model import FrameDetections
        >>> from tubelet.models.rcnn.detectors.detector import Detections
        >>> detections = Detections(boxes=torch.zeros(2, 4), scores=torch.ones(2, 3))
        >>> found = FrameDetections(
        ...     detections=detections, masks=torch.zeros(2, 4, 6), embeddings=torch.zeros(2, 8)
        ... )
        >>> len(found.masks)
        2
    """

    detections: Detections  # boxes in pixels of the frame; on the CPU
    masks: Tensor  # [N, h, w], probabilities over the frame
    embeddings: Tensor  # [N, D]


class HubSegmenter(nn.Module):
    """A VideoSegmenter around a network of transformers."""

    def __init__(
        self,
        network: nn.Module,
        family: SegmenterFamily,
        pictures: PictureConfig,
        classes: tuple[str, ...],
        columns: tuple[int, ...],
        config: HubSegmenterConfig,
    ) -> None:
        """Wrap a network; `columns` are those of its class scores that the classes are."""
        super().__init__()
        self.network = network
        self.family = family
        self.pictures = pictures
        self.classes = classes
        self.columns = columns
        self.config = config
        self.window = config.window
        self.precision = torch.float32
        self.traits = Traits(vote="score")
        birth = family.threshold if config.birth is None else config.birth
        self.association = config.association.but(birth=birth)

    def graphs(self) -> list[Graph]:
        """Return the parts that an engine can compute: none, the layers are those of another library."""
        return []

    def forward(self, clips: list[Clip]) -> Losses:
        """Raise ConfigError: a segmenter of the hub is not trained here."""
        check_clips(clips)
        raise ConfigError("a segmenter of the hub is not trained here; train it with transformers, or another recipe")

    def start(self) -> Memory:
        """Return an empty memory, for the start of a video."""
        return empty_memory(len(self.classes))

    @torch.no_grad()
    def step(self, state: Memory, clip: Clip) -> tuple[Memory, Tracks]:
        """Find the objects of the clip's key frames, whose network runs on several frames at once.

        Key frames up to the last frame in memory are skipped.
        """
        new = clip.at(clip.key & (clip.index > state.time))
        index = new.index
        if len(index) == 0:
            return state, Tracks.empty(index, len(self.classes), clip.size)

        state = entered(resized(state, clip.size), clip.shot, int(index[0]))
        times = iter(index)
        tracks: list[Tracks] = []
        for frames in new.frames.split(self.config.frames_at_a_time):
            for found in self.detect(frames):
                time = next(times)
                state, ids, found = self._identify(state, found, int(time))
                tracks.append(
                    Tracks(ids=ids, scores=found.detections.scores, masks=found.masks[:, None], index=time[None])
                )
        return state, join_frames(tracks)

    def detect(self, frames: Tensor) -> list[FrameDetections]:
        """Return the detections of each of B frames, uint8 [B, 3, H, W], with a score above the configured one."""
        pixels, size = self.pictures.prepare(frames)
        bf16 = self.precision == torch.bfloat16
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
            outputs: Any = self.network(pixel_values=pixels)
        answer = self.family.read(outputs)
        padded = (pixels.shape[-2], pixels.shape[-1])
        frame = (frames.shape[-2], frames.shape[-1])
        return [self._select(answer, b, padded, size, frame) for b in range(len(frames))]

    def _select(
        self,
        answer: SegmenterAnswer,
        b: int,
        padded: tuple[int, int],
        size: tuple[int, int],
        frame: tuple[int, int],
    ) -> FrameDetections:
        """The detections of frame `b` of a batch."""
        scores = answer.scores[b][:, list(self.columns)]
        best = scores.amax(1).argsort(descending=True, stable=True)[: self.config.top]
        best = best[scores[best].amax(1) > self.config.score]
        masks = cut_to_frame(answer.mask_logits[b, best], padded, size).sigmoid()

        confidence = mask_confidence(masks)
        scores = scores[best]
        if self.family.rescored:
            scores = scores * confidence[:, None]
        shown = (confidence > 0) & (scores.amax(1) > self.config.score)
        order = shown.nonzero()[:, 0]
        order = order[scores[order].amax(1).argsort(descending=True, stable=True)]

        masks = masks[order]
        boxes = to_frame(box_ops.from_masks(masks > 0.5).float(), masks.shape[-2:], frame)
        return FrameDetections(
            detections=Detections(boxes=boxes.cpu(), scores=scores[order].cpu()),
            masks=masks,
            embeddings=answer.embeddings[b, best[order]],
        )

    def _identify(self, memory: Memory, found: FrameDetections, time: int) -> tuple[Memory, Tensor, FrameDetections]:
        """Give ids to detections and store them; those that the association drops are left out."""
        config = self.association
        memory = replace(forget(memory, time, config.keep, config.cut_keep), time=time)
        detections = found.detections
        if len(detections) == 0:
            return memory, memory.ids[:0], found
        if len(memory.ids) == 0:
            memory = replace(memory, descriptors=found.embeddings[:0])

        logits = appearance(found.embeddings, memory.descriptors, self.config).cpu()
        table = match_scores(memory, detections, logits, config)
        decided = drop_shadows(
            associate(table, detections.confidence, config),
            detections.boxes,
            detections.labels,
            config.shadow,
        )
        memory, ids, kept = remember(memory, found.embeddings, detections, decided, time)
        stored = decided != DROPPED
        return (
            memory,
            ids,
            FrameDetections(detections=kept, masks=found.masks[stored], embeddings=found.embeddings[stored]),
        )


def appearance(current: Tensor, known: Tensor, config: HubSegmenterConfig) -> Tensor:
    """Match logits from the cosine of embeddings, [N, M + 1]; column 0 is a new object.

    Args:
        current: Embeddings of the detections [N, D].
        known: Embeddings of the known objects [M, D].
        config: Its `cosine` and `sharpness`.

    Example:
        >>> from tubelet.models.hub_segmenter.model import HubSegmenterConfig, appearance
        >>> config = HubSegmenterConfig(cosine=0.5, sharpness=10)
        >>> appearance(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]), config)
        tensor([[ 0.,  5., -5.]])
    """
    cosine = F.normalize(current, dim=1) @ F.normalize(known, dim=1).T
    logits = config.sharpness * (cosine - config.cosine)
    return torch.cat([logits.new_zeros(len(current), 1), logits], 1)
