"""VidEoMT's network: one ViT, in whose last layers queries of the frame before meet the tokens of this frame.

Source: Norouzi et al., VidEoMT, CVPR 2026 (docs/papers/videomt.md).

    queries_0 = learned                              queries_t = Linear(propagated_{t-1}) + learned
    propagated_t = the query tokens after the last layer of frame t, before the final LayerNorm

Letters: B clips, Q queries, S tokens of the image, P patches, D channels, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tubelet.models.queries.prediction import QueryPrediction
from tubelet.models.videomt.encoder import Encoder, ViTConfig
from tubelet.models.videomt.glances import attention_of
from tubelet.models.videomt.heads import Heads
from tubelet.models.videomt.masking import AnnealedMasking, MaskingConfig, attention_bias


class FrameOutput(NamedTuple):
    """What the heads say of B frames: a mask logit is a kernel times a feature."""

    logits: Tensor  # [B, Q, K + 1], float32; the last column is "no object"
    kernels: Tensor  # [B, Q, D], float32
    features: Tensor  # [B, D, h, w] at a quarter of the padded input, float32

    @property
    def mask_logits(self) -> Tensor:
        """Masks over the padded input, [B, Q, h, w]."""
        size = self.features.shape[-2:]
        return (self.kernels @ self.features.flatten(2)).unflatten(2, size)

    def as_clips(self) -> tuple[QueryPrediction, Tensor]:
        """The frames as clips of one frame each, as losses read them: prediction and features [B, 1, D, h, w]."""
        return QueryPrediction(self.logits, self.kernels[:, None]), self.features[:, None]


class VidEoMTNetwork(nn.Module):
    """Encoder, learned queries and heads.

    Example:
        >>> from tubelet.models.videomt.encoder import ViTConfig
        >>> from tubelet.models.videomt.masking import MaskingConfig
        >>> from tubelet.models.videomt.network import VidEoMTNetwork
        >>> shape = ViTConfig(channels=16, layers=3, query_layers=1, heads=2, size=(32, 64))
        >>> network = VidEoMTNetwork(shape, queries=5, num_classes=3, masking=MaskingConfig())
        >>> tokens = network.backbone(torch.zeros(1, 3, 32, 64))
        >>> predictions, propagated = network(tokens, None, every=False)
        >>> predictions[-1].mask_logits.shape, propagated.shape
        (torch.Size([1, 5, 8, 16]), torch.Size([1, 5, 16]))
    """

    def __init__(self, encoder: ViTConfig, queries: int, num_classes: int, masking: MaskingConfig) -> None:
        super().__init__()
        self.backbone: Encoder = encoder.build()
        self.grid = encoder.grid
        self.query = nn.Embedding(queries, encoder.channels)
        self.query_updater = nn.Linear(encoder.channels, encoder.channels)
        self.heads = Heads(encoder.channels, num_classes, encoder.patch)
        self.masking = AnnealedMasking(masking, encoder.query_layers)

    def fuse(self, propagated: Tensor | None, batch: int) -> Tensor:
        """Return the queries of a frame, [B, Q, D]; `propagated` is None in a clip's first frame."""
        learned = self.query.weight.expand(batch, -1, -1)
        if propagated is None:
            return learned
        fused: Tensor = self.query_updater(propagated) + learned
        return fused

    def forward(self, tokens: Tensor, propagated: Tensor | None, *, every: bool) -> tuple[list[FrameOutput], Tensor]:
        """Apply the query layers and the heads to one frame of B clips.

        In training mode a query's attention may be limited to its mask (masking.py).

        Args:
            tokens: Of the encoder, [B, S, D].
            propagated: Queries of the frame before, [B, Q, D], or None.
            every: Return the predictions before each query layer too, else only the last.

        Returns:
            The predictions, and the queries for the next frame [B, Q, D].
        """
        queries = self.fuse(propagated, len(tokens))
        rows = torch.cat([queries, tokens], 1)  # [B, Q + S, D]
        predictions = []
        for number, layer in enumerate(self.backbone.query_layers):
            bias = None
            if every:
                predictions.append(self.predict(rows))
                bias = self._bias(number, predictions[-1], rows)
            rows = layer(rows, attn_mask=bias)
        predictions.append(self.predict(rows))
        return predictions, rows[:, : queries.shape[1]]

    def _bias(self, number: int, prediction: FrameOutput, rows: Tensor) -> Tensor | None:
        if not self.training:
            return None
        blocked = self.masking.blocked(number, prediction.kernels, prediction.features, self.grid)
        if blocked is None:
            return None
        return attention_bias(blocked, rows.shape[1], rows)

    def predict(self, rows: Tensor) -> FrameOutput:
        """Apply the heads to queries and tokens of the image [B, Q + S, D].

        Computed in float32 even under autocast.
        """
        queries = self.query.num_embeddings
        with torch.autocast(rows.device.type, enabled=False):
            normed = self.backbone.norm(rows.float())
            patches = normed[:, queries + self.backbone.prefix :]
            return FrameOutput(
                logits=self.heads.class_predictor(normed[:, :queries]),
                kernels=self.heads.mask_predictor(normed[:, :queries]),
                features=self.heads.features(patches, self.grid),
            )

    @torch.no_grad()
    def attention(self, tokens: Tensor, propagated: Tensor | None, query: int) -> list[Tensor]:
        """Return what a query attends to in each query layer: weights of all rows [Q + S], mean over the heads.

        `tokens` and `propagated` are as in `forward`, of one clip.
        """
        rows = torch.cat([self.fuse(propagated, len(tokens)), tokens], 1)
        weights = []
        for layer in self.backbone.query_layers:
            weights.append(attention_of(layer, rows, query)[0])
            rows = layer(rows)
        return weights
