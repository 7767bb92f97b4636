"""What the image segmenters of transformers answer, in one form: scores, masks and embeddings of their queries.

Letters: B frames, Q queries, K classes, D channels, h w cells of a mask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor


class SegmenterAnswer(NamedTuple):
    """Queries of B frames."""

    scores: Tensor  # [B, Q, K], class probabilities without "no object"
    mask_logits: Tensor  # [B, Q, h, w] over the padded network input
    embeddings: Tensor  # [B, Q, D], the queries after the decoder's last layer


class SegmenterFamily(ABC):
    """A family of image segmenters: its class in transformers, and how its outputs are read.

    `threshold` is the score from which its own processor shows an object.
    """

    threshold: float
    rescored: bool  # whether its processor multiplies a score by the mean probability inside the mask

    @abstractmethod
    def network_class(self) -> Any:
        """Import the class; raises ImportError where transformers has none."""

    @abstractmethod
    def read(self, outputs: Any) -> SegmenterAnswer:
        """Read what the network returned."""


class RfDetr(SegmenterFamily):
    """RF-DETR-Seg (Apache-2.0): a sigmoid for each class."""

    threshold = 0.5
    rescored = False

    def network_class(self) -> Any:
        """Import the class of transformers."""
        from transformers import RfDetrForInstanceSegmentation

        return RfDetrForInstanceSegmentation

    def read(self, outputs: Any) -> SegmenterAnswer:
        """Read logits [B, Q, K], masks, and the decoder's last hidden state."""
        return SegmenterAnswer(
            outputs.logits.float().sigmoid(), outputs.pred_masks.float(), outputs.last_hidden_state.float()
        )


class Eomt(SegmenterFamily):
    """EoMT for images: queries are the first tokens of its ViT."""

    threshold = 0.8
    rescored = True

    def network_class(self) -> Any:
        """Import the class of transformers."""
        from transformers import EomtForUniversalSegmentation

        return EomtForUniversalSegmentation

    def read(self, outputs: Any) -> SegmenterAnswer:
        """Read class logits with "no object" last, masks, and the queries' tokens after the last norm."""
        queries = outputs.class_queries_logits.shape[1]
        return SegmenterAnswer(
            without_no_object(outputs.class_queries_logits),
            outputs.masks_queries_logits.float(),
            outputs.last_hidden_state[:, :queries].float(),
        )


class EomtDinov3(Eomt):
    """EoMT with DINOv3."""

    def network_class(self) -> Any:
        """Import the class of transformers."""
        from transformers import EomtDinov3ForUniversalSegmentation

        return EomtDinov3ForUniversalSegmentation


class Mask2FormerImages(SegmenterFamily):
    """Mask2Former for images, with whatever backbone transformers builds."""

    threshold = 0.5
    rescored = True

    def network_class(self) -> Any:
        """Import the class of transformers."""
        from transformers import Mask2FormerForUniversalSegmentation

        return Mask2FormerForUniversalSegmentation

    def read(self, outputs: Any) -> SegmenterAnswer:
        """Read class logits with "no object" last, masks, and the decoder's last hidden state."""
        return SegmenterAnswer(
            without_no_object(outputs.class_queries_logits),
            outputs.masks_queries_logits.float(),
            outputs.transformer_decoder_last_hidden_state.float(),
        )


FAMILIES: dict[str, SegmenterFamily] = {  # by the model_type of config.json
    "rf_detr": RfDetr(),
    "eomt": Eomt(),
    "eomt_dinov3": EomtDinov3(),
    "mask2former": Mask2FormerImages(),
}


def without_no_object(logits: Tensor) -> Tensor:
    """Convert logits with "no object" in the last column to class probabilities.

    Example:
        >>> from tubelet.models.hub_segmenter.answers import without_no_object
        >>> without_no_object(torch.zeros(1, 1, 4))
        tensor([[[0.2500, 0.2500, 0.2500]]])
    """
    return logits.float().softmax(-1)[..., :-1]


def mask_confidence(probabilities: Tensor) -> Tensor:
    """Return the mean probability inside each mask, [N, h, w] -> [N]; 0 where a mask is empty.

    Example:
        >>> from tubelet.models.hub_segmenter.answers import mask_confidence
        >>> mask_confidence(torch.tensor([[[0.9, 0.7, 0.1]]]))
        tensor([0.8000])
    """
    inside = probabilities > 0.5
    total = (probabilities * inside).flatten(1).sum(1)
    return total / inside.flatten(1).sum(1).clamp(min=1)
