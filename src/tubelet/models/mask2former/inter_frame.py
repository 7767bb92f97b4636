"""IFR's decoder: frame queries that start from those of the frame before, and clip queries that attend to them.

Source: the IFR paper, Sec. 3 (docs/papers/ifr.md). Class from the clip query, mask of frame t from frame query t.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from tubelet.attention.blocks import unblock
from tubelet.attention.ifr import InterFrameLayer, RecurrentConfig
from tubelet.models.mask2former.decoder import Level, QueryDecoder, QueryDecoderConfig, inside_masks
from tubelet.models.queries.looks import QueryLook, shown_frames, with_share
from tubelet.models.queries.prediction import Classification


class InterFrameDecoder(QueryDecoder):
    """A query attends to one frame after another, inside its mask of that frame and the layer before.

    Example:
        >>> from tubelet.attention.ifr import RecurrentConfig
        >>> from tubelet.models.mask2former.inter_frame import InterFrameConfig
        >>> from tubelet.models.mask2former.pixel_decoder import Pixels
        >>> config = InterFrameConfig(layers=1, layer=RecurrentConfig(heads=2, feed_forward=16))
        >>> decoder = config.build(channels=8, queries=5, num_classes=3)
        >>> pixels = Pixels(torch.rand(2, 8, 16, 16), [torch.rand(2, 8, n, n) for n in (2, 4, 8)])
        >>> prediction = decoder(pixels, length=2, every=False)[-1]
        >>> prediction.logits.shape, prediction.kernels.shape
        (torch.Size([1, 5, 3]), torch.Size([1, 2, 5, 8]))
    """

    def __init__(self, config: InterFrameConfig, channels: int, queries: int, num_classes: int) -> None:
        super().__init__(channels, queries, num_classes, config.classification)
        self.config = config
        self.cross_frame = config.cross_frame
        self.cross_all_layers = config.cross_loss_layers == "all"
        self.layers = nn.ModuleList(config.layer.build(channels) for _ in range(config.layers))

    def advance(self, number: int, queries: Tensor, level: Level, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """Apply layer `number`; returns clip queries and frame queries."""
        layer = self.layers[number]
        assert isinstance(layer, InterFrameLayer)

        # unblock each frame, because an absent object has an empty mask there: common here, rare in the joint decoder
        allowed = unblock(inside_masks(kernels, level.features)).flatten(0, 1)
        position = self.queries_embedder.weight
        clip, frames = layer(queries, position, level.tokens, level.position, allowed)
        return clip, frames

    def looks_of_last(self, queries: Tensor, level: Level, kernels: Tensor, query: int, t: int) -> list[QueryLook]:
        """Return the frame query's attention in frame `t` and in the frame before, and the clip query's over frames.

        Frame queries and the clip query attend to queries, not to cells. Such weights are shown by the cells that these
        queries attend to in their frame: sum_m weight(m) cells(m).
        """
        layer = self.layers[-1]
        assert isinstance(layer, InterFrameLayer)
        allowed = unblock(inside_masks(kernels, level.features)).flatten(0, 1)
        position = self.queries_embedder.weight
        weights = layer.weights(queries, position, level.tokens, level.position, allowed)

        looks = [
            QueryLook(f"query {query}, from the frame before", t, weights.from_before[t, query]),
            QueryLook(f"query {query}, from the clip", t, weights.from_clip[t, query]),
        ]
        num_queries = queries.shape[1]
        if t > 0 and layer.config.recurrence:
            to_before = weights.mixing[t, query, :num_queries]
            name = with_share("via the frame before", to_before.sum())
            looks.append(QueryLook(name, t - 1, to_before @ weights.from_before[t - 1]))

        for frame in shown_frames(len(allowed), t):
            to_frame = weights.over_frames[query, frame]
            name = with_share(f"clip query {query}", to_frame.sum())
            looks.append(QueryLook(name, frame, to_frame @ weights.from_before[frame]))
        return looks


class InterFrameConfig(QueryDecoderConfig):
    """Settings of IFR's decoder, as published, with the weight of its cross-frame loss.

    Example:
        >>> from tubelet.models.mask2former.inter_frame import InterFrameConfig
        >>> from tubelet.models.mask2former.model import Mask2FormerConfig
        >>> ifr = Mask2FormerConfig(decoder=InterFrameConfig(cross_frame=0.3))
        >>> ifr.decoder.kind
        'inter_frame'
    """

    kind: Literal["inter_frame"] = "inter_frame"
    layers: int = Field(default=9, ge=1)
    layer: RecurrentConfig = RecurrentConfig()
    classification: Classification = "focal"
    cross_frame: float = Field(default=0.3, ge=0)  # lambda_e: weight of a frame's kernel in the other frames (Eq. 6-7)
    cross_loss_layers: Literal["all", "last"] = "all"  # predictions with the cross-frame loss

    def build(self, channels: int, queries: int, num_classes: int) -> InterFrameDecoder:
        """Build the decoder for pixels of this many channels."""
        return InterFrameDecoder(self, channels, queries, num_classes)
