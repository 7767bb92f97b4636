"""Masked attention that is annealed away: in training, a query attends only inside its mask, at test everywhere.

Source: Kerssies et al., EoMT, CVPR 2025, which VidEoMT keeps. Before each of the L2 query layers the heads predict a
mask for each query; with the probability p_n of layer n, drawn for each query, the query attends only to patches where
its mask is positive. p_n falls from 1 to 0, one layer after the other:

    p_n(s) = (1 - clamp((s / S - a_n) / (a_{n+1} - a_n), 0, 1))^0.9      a_n = (n + 1) / (L2 + 2)

at batch s of S. Letters: B frames, Q queries, D channels, S tokens of the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tubelet.core.config import Config


class MaskingConfig(Config):
    """When masked attention ends.

    Example:
        >>> from tubelet.models.videomt.masking import MaskingConfig
        >>> MaskingConfig(batches=40_000).probability(layer=0, layers=3, batch=10_000)
        0.7718...
    """

    # of the whole training, each process's; 0: no masked attention; None: as many as the recipe's training has
    batches: int | None = Field(default=None, ge=0)
    power: float = Field(default=0.9, gt=0)

    def probability(self, layer: int, layers: int, batch: int) -> float:
        """Return the probability that a query's attention is masked in a layer (0 .. layers - 1) at a batch."""
        if not self.batches:
            return 0.0
        windows = layers + 2  # one before the first layer's fall, and one after the last's
        progress = batch / self.batches * windows - (layer + 1)
        return (1 - min(max(progress, 0.0), 1.0)) ** self.power


class AnnealedMasking(nn.Module):
    """Counts the batches of the training, and draws which queries are masked.

    Example:
        >>> from tubelet.models.videomt.masking import AnnealedMasking, MaskingConfig
        >>> masking = AnnealedMasking(MaskingConfig(batches=0), layers=2)
        >>> masking.blocked(0, kernels=torch.zeros(1, 5, 8), features=torch.zeros(1, 8, 4, 4), grid=(2, 2)) is None
        True
    """

    # named as batch norm's counter is: what reads weights knows that published files have none
    num_batches_tracked: Tensor

    def __init__(self, config: MaskingConfig, layers: int) -> None:
        super().__init__()
        self.config = config
        self.layers = layers
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def advance(self) -> None:
        """Count one batch."""
        self.num_batches_tracked += 1

    @torch.no_grad()
    def blocked(self, layer: int, kernels: Tensor, features: Tensor, grid: tuple[int, int]) -> Tensor | None:
        """Draw the patches that queries must not attend to in a layer, bool [B, Q, P]; None if no query is masked.

        Draws from torch's global generator.

        Args:
            layer: 0 .. L2 - 1.
            kernels: Of the masks predicted before it, [B, Q, D].
            features: Their mask features [B, D, h, w].
            grid: Rows and columns of the patches.
        """
        probability = self.config.probability(layer, self.layers, int(self.num_batches_tracked))
        if probability == 0:
            return None

        # resizing is linear: the mask of resized features is the resized mask, at a fraction of the work
        small = F.interpolate(features, grid, mode="bilinear", align_corners=False).flatten(2)
        outside = kernels @ small <= 0  # [B, Q, P]
        is_masked = torch.rand(kernels.shape[:2], device=kernels.device) < probability
        return outside & is_masked[..., None]


def attention_bias(blocked: Tensor, tokens: int, like: Tensor) -> Tensor:
    """Return what is added to attention logits: minus infinity from a query to its blocked patches, else 0.

    Queries come first among the tokens, patches last.

    Args:
        blocked: bool [B, Q, P].
        tokens: Number of all tokens N: queries, class token, registers and patches.
        like: A tensor of the wanted type.

    Returns:
        [B, 1, N, N].

    Example:
        >>> from tubelet.models.videomt.masking import attention_bias
        >>> attention_bias(torch.tensor([[[True, False]]]), tokens=4, like=torch.zeros(1))[0, 0, 0]
        tensor([0., 0., -inf, 0.])
    """
    batch, queries, patches = blocked.shape
    bias = like.new_zeros(batch, 1, tokens, tokens)
    bias[:, 0, :queries, tokens - patches :] = like.new_zeros(blocked.shape).masked_fill(blocked, float("-inf"))
    return bias
