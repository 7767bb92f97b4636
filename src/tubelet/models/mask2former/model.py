"""Mask2Former for video: frames -> pixels -> queries -> classes and masks through time.

The decoder is a plug; its socket is `QueryDecoderConfig` and `QueryDecoder` (decoder.py).

Sources: Cheng et al., Mask2Former-VIS, 2021, and the IFR paper (docs/papers/mask2former_vis.md, ifr.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tubelet.core.config import Config
from tubelet.core.errors import InputError
from tubelet.core.protocol import Glance, Traits, Window, check_clips
from tubelet.core.types import Clip, Losses, Tracks
from tubelet.engines.graph import Graph
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import Images, InputConfig, KeepRatio
from tubelet.models.mask2former import inter_frame  # noqa: F401 (a decoder that configs name by `kind`)
from tubelet.models.mask2former.decoder import JointConfig, QueryDecoderConfig
from tubelet.models.mask2former.pixel_decoder import LEVELS, PixelDecoderConfig, Pixels
from tubelet.models.queries.criterion import CriterionConfig, Target
from tubelet.models.queries.looks import to_glances
from tubelet.models.queries.outputs import best_queries, cut_padding, query_at
from tubelet.models.queries.prediction import QueryPrediction
from tubelet.tracking.linking import LinkingConfig, Links, are_objects, link


class Mask2FormerConfig(Config):
    """Settings of Mask2Former-VIS and IFR; by default Mask2Former-VIS with ResNet-50 at a short side of 360.

    Example:
        >>> from tubelet.models.mask2former.decoder import JointConfig
        >>> from tubelet.models.mask2former.model import Mask2FormerConfig
        >>> config = Mask2FormerConfig(decoder=JointConfig(layers=3), queries=20)
        >>> config.window.length is None, config.but(top=5).top
        (True, 5)
    """

    kind: Literal["mask2former"] = "mask2former"
    backbone: BackboneConfig = BackboneConfig(name="resnet50", frozen_stages=0)
    input: InputConfig = InputConfig(resize=KeepRatio(long=1333, short=360))  # at test; training clips are not resized
    pixel_decoder: PixelDecoderConfig = PixelDecoderConfig()
    decoder: QueryDecoderConfig = JointConfig()
    queries: int = Field(default=100, ge=1)
    criterion: CriterionConfig = CriterionConfig()
    legacy_labels: bool = False  # as the authors' code: an object that is absent from the last frame is "no object"
    window: Window = Window(length=None)  # the whole video as one clip
    top: int = Field(default=20, ge=1)  # at most so many queries of a window are objects, those with the best scores
    linking: LinkingConfig = LinkingConfig()  # of windows, if the video is not one clip
    frames_at_a_time: int = Field(default=8, ge=1)  # through backbone and pixel decoder at test
    save_memory: bool = False  # in training, recompute layers in the backward pass (gradient checkpointing)

    def build(self, classes: tuple[str, ...]) -> Mask2Former:
        """Build the model for these classes, with random weights."""
        return Mask2Former(self, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOutput:
    """Predictions for one clip: Q queries, T frames, K classes.

    Masks cover the unpadded frame at about a quarter of the network's resolution.
    """

    probabilities: Tensor  # float32 [Q, K]: of each class, without a column for "no object"
    mask_logits: Tensor  # float32 [Q, T, h, w]


class Mask2Former(nn.Module):
    """A VideoSegmenter: each query is one object in all frames of a clip."""

    def __init__(self, config: Mask2FormerConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        self.window = config.window
        self.precision = torch.float32  # of the network in `predict`; training has its own setting
        self.traits = Traits(vote="mean", average="logits", resizable=True, attention=True)

        self.backbone = config.backbone.build()
        self.backbone.save_memory(config.save_memory)
        self.maps = Graph("maps", self.backbone, self._maps)
        self.pixel_decoder = config.pixel_decoder.build(self.backbone.channels)
        channels = config.pixel_decoder.channels
        self.decoder = config.decoder.build(channels, config.queries, len(classes))
        self.criterion = config.criterion.build(
            self.decoder.classification,
            self.decoder.cross_frame,
            all_layers=self.decoder.cross_all_layers,
        )

    def graphs(self) -> list[Graph]:
        """Return the parts that an engine can compute: the backbone; the decoders are torch's."""
        return [self.maps]

    def _maps(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(pixels))

    # training

    def forward(self, clips: list[Clip]) -> Losses:
        """Compute the losses of all layers for clips of one length.

        All frames count, key or not. Clips are not resized.
        Raises InputError if the clips differ in length or have no annotated objects.
        """
        check_clips(clips)
        length = len(clips[0])
        if any(len(clip) != length for clip in clips):
            raise InputError(f"clips of a batch must have one length, got {[len(clip) for clip in clips]} frames")

        save_memory = self.config.save_memory and self.training
        images = self._prepare(clips)
        pixels = self.pixel_decoder(self.backbone(images.pixels), save_memory=save_memory)
        predictions = self.decoder(pixels, length, every=True, save_memory=save_memory)
        targets = [self._target(clip, images, n * length) for n, clip in enumerate(clips)]
        return self.criterion(predictions, pixels.features.unflatten(0, (-1, length)), targets)

    def _prepare(self, clips: Sequence[Clip]) -> Images:
        """Put clips, each at its own size, into one batch."""
        parts = [self.config.input.unresized(clip.size).prepare([clip.frames]) for clip in clips]
        height = max(part.pixels.shape[-2] for part in parts)
        width = max(part.pixels.shape[-1] for part in parts)

        pixels: list[Tensor] = []
        sizes: list[tuple[int, int]] = []
        for part in parts:
            h, w = part.pixels.shape[-2:]
            pixels.append(F.pad(part.pixels, (0, width - w, 0, height - h)))
            sizes += part.sizes
        return Images(torch.cat(pixels), sizes, torch.cat([part.scales for part in parts]))

    def _target(self, clip: Clip, images: Images, first: int) -> Target:
        """Objects with a pixel in the clip, without crowds; `first` is the clip's first image."""
        if clip.tracks is None:
            raise InputError("a clip without annotated objects cannot be learnt from")

        is_crowd = clip.tracks.scores.sum(1) <= 0
        tracks = clip.tracks[~is_crowd & clip.tracks.present.any(1)]
        labels = tracks.labels
        if self.config.legacy_labels:
            labels = torch.where(tracks.present[:, -1], labels, len(self.classes))

        height, width = images.sizes[first]
        padded = images.pixels.shape
        padding = torch.tensor([padded[-1] / width, padded[-2] / height], device=images.pixels.device)
        return Target(labels=labels, masks=tracks.masks.float(), padding=padding)

    # inference

    def start(self) -> Links:
        """Return the state before the first clip of a video."""
        return Links()

    def step(self, state: Links, clip: Clip) -> tuple[Links, Tracks]:
        """Find the objects of the clip's key frames and link them to those of earlier clips."""
        output = self.look(clip.frames[clip.key], keep=self.config.top)
        return self.settle(state, output, clip.index[clip.key], clip.shot)

    @torch.no_grad()
    def look(self, frames: Tensor, short: int | None = None, *, keep: int | None = None) -> ClipOutput:
        """Predict classes and masks of all queries for one clip.

        Args:
            frames: uint8 [T, 3, H, W].
            short: Short side to resize to (test-time augmentation); None for the configured one.
            keep: Return only so many queries, those with the best scores, the best first. They
                include every query that is in one of the `keep` best (query, class) pairs.
        """
        size = self.config.input if short is None else self.config.input.at_short(short)
        with self._autocast(frames):
            pixels, images = self._read(frames, size)
            prediction = self.decoder(pixels, len(frames), every=False)[-1]
        return self.answer(prediction, pixels, images.sizes[0], keep)

    def pixels(self, images: Images) -> Pixels:
        """Apply the backbone and the pixel decoder."""
        pixels: Pixels = self.pixel_decoder(self.maps(images.pixels))
        return pixels

    def answer(
        self, prediction: QueryPrediction, pixels: Pixels, size: tuple[int, int], keep: int | None = None
    ) -> ClipOutput:
        """Convert the decoder's prediction for one clip to classes and masks.

        Args:
            prediction: Of one clip.
            pixels: Maps of the clip's frames.
            size: Height and width of the network input without padding, which masks cover.
            keep: As in `look`.
        """
        kernels = prediction.kernels[0]
        probabilities = self.decoder.probabilities(prediction.logits[0])
        if keep is not None:
            best = best_queries(probabilities, keep)
            probabilities = probabilities[best]
            kernels = kernels[:, best]

        maps = (kernels @ pixels.features.flatten(2)).transpose(0, 1)  # [Q, T, h w]
        maps = maps.unflatten(-1, pixels.features.shape[-2:])
        return ClipOutput(probabilities=probabilities, mask_logits=cut_padding(maps, size))

    def settle(self, state: Links, answer: ClipOutput, index: Tensor, shot: int = 0) -> tuple[Links, Tracks]:
        """Choose the queries that are objects and link them to those of earlier clips of the shot.

        The first clip, which may be the whole video, keeps its `top` queries whatever their scores: evaluation ranks
        all of them. Later clips keep only queries that are objects (`are_objects`).

        Args:
            state: Links of the earlier clips.
            answer: Predictions for this clip.
            index: Numbers of its frames [T].
            shot: Number of its shot.
        """
        best = best_queries(answer.probabilities, self.config.top)
        if state.windows:
            probabilities = answer.probabilities[best]
            best = best[are_objects(probabilities, self.config.linking, exclusive=self.decoder.exclusive)]

        objects = Tracks(
            ids=torch.zeros(len(best), dtype=torch.int64, device=best.device),  # `link` gives ids
            scores=answer.probabilities[best],
            masks=answer.mask_logits[best].sigmoid(),
            index=index,
        )
        return link(state, objects, self.config.linking, shot)

    @torch.no_grad()
    def attend(self, state: Links, clip: Clip, frame: int, at: tuple[float, float]) -> list[Glance]:
        """Return what the query of the object at a point of a key frame attends to.

        The query is the one with the largest class probability times mask probability at the point. The state is not
        needed: queries of a clip do not depend on earlier clips.
        """
        frames = clip.frames[clip.key]
        index = clip.index[clip.key]
        t = index.tolist().index(frame)
        with self._autocast(frames):
            pixels, images = self._read(frames, self.config.input)
            prediction = self.decoder(pixels, len(frames), every=False)[-1]
            output = self.answer(prediction, pixels, images.sizes[0])
            query = query_at(output.probabilities, output.mask_logits[:, t], at, clip.size)
            looks = self.decoder.looks(pixels, len(frames), query, t)

        scale = pixels.scales[(len(self.decoder.layers) - 1) % LEVELS]
        padded = (images.pixels.shape[-2], images.pixels.shape[-1])
        return to_glances(looks, index, padded, (scale.shape[-2], scale.shape[-1]), images.sizes[0])

    def _autocast(self, frames: Tensor) -> torch.autocast:
        use_bf16 = self.precision == torch.bfloat16
        return torch.autocast(frames.device.type, torch.bfloat16, enabled=use_bf16)

    def _read(self, frames: Tensor, size: InputConfig) -> tuple[Pixels, Images]:
        """Pixels of all frames, computed a few frames at a time; the images are the last few."""
        parts: list[Pixels] = []
        for chunk in frames.split(self.config.frames_at_a_time):
            images = size.prepare([chunk])
            parts.append(self.pixels(images))
        return Pixels.cat(parts), images
