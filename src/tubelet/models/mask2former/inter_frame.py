"""IFR's decoder: queries that walk from frame to frame, and clip queries that gather what they found.

Source: the IFR paper, Sec. 3 (docs/papers/ifr.md). Class from the clip query, mask of frame t from frame query t.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from tubelet.attention.blocks import unblock
from tubelet.attention.ifr import InterFrameLayer, RecurrentConfig
from tubelet.models.mask2former.decoder import Classification, Level, QueryDecoder, QueryDecoderConfig, seen_by


class InterFrameDecoder(QueryDecoder):
    """Frames one after another; a query looks where its own mask of that frame was after the layer before."""

    def __init__(self, config: InterFrameConfig, channels: int, queries: int, num_classes: int) -> None:
        super().__init__(channels, queries, num_classes, config.classification)
        self.config = config
        self.cross_frame = config.cross_frame
        self.cross_all_layers = config.cross_loss_layers == "all"
        self.layers = nn.ModuleList(config.layer.build(channels) for _ in range(config.layers))

    def advance(self, number: int, queries: Tensor, level: Level, kernels: Tensor) -> tuple[Tensor, Tensor]:
        layer = self.layers[number]
        assert isinstance(layer, InterFrameLayer)
        # frame by frame, because an object that is absent has no token to look at: routine here, rare jointly
        allowed = unblock(seen_by(kernels, level.features)).flatten(0, 1)
        clip, frames = layer(queries, self.queries_embedder.weight, level.tokens, level.position, allowed)
        return clip, frames


class InterFrameConfig(QueryDecoderConfig):
    """The published IFR; the losses that only it has are told here, because its decoder makes them possible."""

    kind: Literal["inter_frame"] = "inter_frame"
    layers: int = Field(default=9, ge=1)
    layer: RecurrentConfig = RecurrentConfig()
    classification: Classification = "focal"
    cross_frame: float = Field(default=0.3, ge=0)  # lambda_e: weight of a frame's kernel in the other frames (Eq. 6-7)
    cross_loss_layers: Literal["all", "last"] = "all"  # predictions that have the cross-frame loss

    def build(self, channels: int, queries: int, num_classes: int) -> InterFrameDecoder:
        return InterFrameDecoder(self, channels, queries, num_classes)
