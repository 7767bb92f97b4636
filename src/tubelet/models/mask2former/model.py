"""Mask2Former for video: frames -> pixels -> queries -> classes and masks through time.

Host of the decoders, whose socket is `QueryDecoderConfig` and `QueryDecoder` (decoder.py).

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
from tubelet.core.protocol import Traits, Window, check_clips
from tubelet.core.types import Clip, Losses, Tracks
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import Images, InputConfig, KeepRatio
from tubelet.models.mask2former import inter_frame  # noqa: F401 (a decoder that configs name by `kind`)
from tubelet.models.mask2former.criterion import CriterionConfig, Target
from tubelet.models.mask2former.decoder import JointConfig, QueryDecoderConfig, QueryPrediction
from tubelet.models.mask2former.pixel_decoder import PixelDecoderConfig, Pixels
from tubelet.tracking.linking import LinkingConfig, Links, are_objects, link

STRIDE = 4  # of mask features


class Mask2FormerConfig(Config):
    """Defaults: Mask2Former-VIS with ResNet-50, read at a short side of 360 (Swin: 480)."""

    kind: Literal["mask2former"] = "mask2former"
    backbone: BackboneConfig = BackboneConfig(name="resnet50", frozen_stages=0)
    input: InputConfig = InputConfig(
        resize=KeepRatio(long=1333, short=360)
    )  # at test; training takes clips as they are
    pixel_decoder: PixelDecoderConfig = PixelDecoderConfig()
    decoder: QueryDecoderConfig = JointConfig()
    queries: int = Field(default=100, ge=1)
    criterion: CriterionConfig = CriterionConfig()
    legacy_labels: bool = False  # a label counts only where the object is in the clip's last frame (the original's)
    window: Window = Window(length=None)  # per video
    top: int = Field(default=20, ge=1)  # queries kept of a window at most, those with the best scores
    linking: LinkingConfig = LinkingConfig()  # of clips, where the video is not read as a whole
    frames_at_a_time: int = Field(default=8, ge=1)  # through backbone and pixel decoder at test
    save_memory: bool = False  # training computes layers again in the backward pass (gradient checkpointing)

    def build(self, classes: tuple[str, ...]) -> Mask2Former:
        return Mask2Former(self, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOutput:
    """What is said of one clip: Q queries, T frames, K classes; masks cover the unpadded frame at about a quarter."""

    probabilities: Tensor  # float32 [Q, K]: of each class, without a column for "no object"
    mask_logits: Tensor  # float32 [Q, T, h, w]


class Mask2Former(nn.Module):
    """A VideoSegmenter: a query is one object through all frames of a clip."""

    def __init__(self, config: Mask2FormerConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.window = config.window
        self.precision = torch.float32  # of the network in `predict`; training has its own setting
        self.traits = Traits(vote="mean", average="logits", resizable=True)
        self.backbone = config.backbone.build()
        self.backbone.save_memory(config.save_memory)
        self.pixel_decoder = config.pixel_decoder.build(self.backbone.channels)
        self.decoder = config.decoder.build(config.pixel_decoder.channels, config.queries, len(classes))
        decoder = self.decoder
        self.criterion = config.criterion.build(
            decoder.classification, decoder.cross_frame, all_layers=decoder.cross_all_layers
        )

    # training

    def forward(self, clips: list[Clip]) -> Losses:
        """Losses of all predictions for clips of one length; all frames count, whether key or not.

        Clips are read at the size that they have: what is drawn for each is a matter of the transforms.
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
        """Every clip at its own size, all in one batch."""
        parts = [self.config.input.unresized(clip.size).prepare([clip.frames]) for clip in clips]
        height, width = (max(part.pixels.shape[axis] for part in parts) for axis in (-2, -1))
        pixels = [F.pad(p.pixels, (0, width - p.pixels.shape[-1], 0, height - p.pixels.shape[-2])) for p in parts]
        sizes = [size for part in parts for size in part.sizes]
        return Images(torch.cat(pixels), sizes, torch.cat([part.scales for part in parts]))

    def _target(self, clip: Clip, images: Images, first: int) -> Target:
        """Objects with a pixel in the clip; crowds are left out."""
        if clip.tracks is None:
            raise InputError("a clip without annotated objects cannot be learnt from")
        tracks = clip.tracks[(clip.tracks.scores.sum(1) > 0) & clip.tracks.present.any(1)]
        labels = tracks.labels
        if self.config.legacy_labels:
            labels = torch.where(tracks.present[:, -1], labels, len(self.classes))
        height, width = images.sizes[first]
        padded = images.pixels.shape
        padding = torch.tensor([padded[-1] / width, padded[-2] / height], device=images.pixels.device)
        return Target(labels=labels, masks=tracks.masks.float(), padding=padding)

    # inference

    def start(self) -> Links:
        """Nothing is known before the first clip."""
        return Links()

    def step(self, state: Links, clip: Clip) -> tuple[Links, Tracks]:
        """Objects of the clip's key frames, which are read as one clip; `look`, then `settle`."""
        answer = self.look(clip.frames[clip.key], keep=self.config.top)
        return self.settle(state, answer, clip.index[clip.key], clip.shot)

    @torch.no_grad()
    def look(self, frames: Tensor, short: int | None = None, *, keep: int | None = None) -> ClipOutput:
        """What the queries say of frames uint8 [T, 3, H, W], taken as one clip.

        `short` reads them at another short side than the configured one (test-time augmentation). `keep` gives masks to
        so many queries of the best scores alone, in that order: no other query is in as many best (query, class) pairs.
        """
        size = self.config.input if short is None else self.config.input.at_short(short)
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            pixels, images = self._read(frames, size)
            prediction = self.decoder(pixels, len(frames), every=False)[-1]
        return self.answer(prediction, pixels, images.sizes[0], keep)

    def pixels(self, images: Images) -> Pixels:
        """Backbone and pixel decoder."""
        pixels: Pixels = self.pixel_decoder(self.backbone(images.pixels))
        return pixels

    def answer(
        self, prediction: QueryPrediction, pixels: Pixels, size: tuple[int, int], keep: int | None = None
    ) -> ClipOutput:
        """The decoder's prediction for one clip, as classes and masks over frames of a size without padding."""
        kernels = prediction.kernels[0]
        probabilities = self.decoder.probabilities(prediction.logits[0])
        if keep is not None:
            best = _best(probabilities, keep)
            probabilities, kernels = probabilities[best], kernels[:, best]
        maps = (kernels @ pixels.features.flatten(2)).transpose(0, 1)  # [Q, T, h w]
        maps = maps.unflatten(-1, pixels.features.shape[-2:])
        return ClipOutput(probabilities=probabilities, mask_logits=cut_padding(maps, size))

    def settle(self, state: Links, answer: ClipOutput, index: Tensor, shot: int = 0) -> tuple[Links, Tracks]:
        """The best queries as objects of the frames `index` [T] of a shot, linked to those of its clips before.

        The first clip, which may be the whole video, keeps them whatever they score: which (query, class) pairs are the
        best is a matter of the whole answer. Of later clips only those that are objects stay.
        """
        best = _best(answer.probabilities, self.config.top)
        if state.windows:
            best = best[are_objects(answer.probabilities[best], self.config.linking, exclusive=self.decoder.exclusive)]
        ids = torch.zeros(len(best), dtype=torch.int64, device=index.device)
        masks = answer.mask_logits[best].sigmoid()
        found = Tracks(ids=ids, scores=answer.probabilities[best], masks=masks, index=index)
        return link(state, found, self.config.linking, shot)

    def _read(self, frames: Tensor, size: InputConfig) -> tuple[Pixels, Images]:
        """Pixels of all frames, a few at a time; the images are those of the last few."""
        parts = []
        for some in frames.split(self.config.frames_at_a_time):
            images = size.prepare([some])
            parts.append(self.pixels(images))
        return Pixels.cat(parts), images


def cut_padding(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [Q, T, h, w] of stride 4 -> the part that covers a frame of `size` (height, width) in network pixels.

    Where the frame does not end with a cell, cells are taken anew so that they cover the frame and nothing else.
    """
    cells = [max(round(side / STRIDE), 1) for side in size]
    if all(side == STRIDE * n for side, n in zip(size, cells, strict=True)):
        return maps[..., : cells[0], : cells[1]]
    rows, columns = (
        ((torch.arange(n, device=maps.device) + 0.5) / n * side) / (STRIDE * there) * 2 - 1
        for n, side, there in zip(cells, size, maps.shape[-2:], strict=True)
    )
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # [h, w, (x, y)]
    return F.grid_sample(
        maps, grid.to(maps.dtype).expand(len(maps), -1, -1, -1), padding_mode="border", align_corners=False
    )


def _best(probabilities: Tensor, count: int) -> Tensor:
    """The queries of [Q, K] whose best class is most probable, at most `count`, the best first."""
    return probabilities.amax(1).argsort(descending=True, stable=True)[:count]
