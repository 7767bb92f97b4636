"""What a query attends to among queries and patches (`tubelet attend`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def attention_of(layer: nn.Module, rows: Tensor, row: int) -> Tensor:
    """Return the weights of one row's attention in a timm block, mean over the heads, [B, N].

    Args:
        layer: A block of timm's VisionTransformer, which computes no weights of its own where attention is fused.
        rows: Its input [B, N, D].
        row: Which row looks.

    Example:
        >>> from tubelet.models.videomt.encoder import ViTConfig
        >>> from tubelet.models.videomt.glances import attention_of
        >>> encoder = ViTConfig(channels=16, layers=1, query_layers=1, heads=2, size=(32, 32)).build()
        >>> attention_of(encoder.query_layers[0], torch.rand(1, 9, 16), row=3).shape
        torch.Size([1, 9])
    """
    block: Any = layer
    attention = block.attn
    joint = attention.qkv(block.norm1(rows))
    queries, keys, _ = (
        joint.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).float()
    )  # [B, heads, N, d]
    logits = queries[:, :, [row]] @ keys.transpose(2, 3) * attention.scale
    weights: Tensor = torch.softmax(logits, -1)
    return weights[:, :, 0].mean(1)
