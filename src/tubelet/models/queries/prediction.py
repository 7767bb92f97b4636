"""What mask transformers predict: for each query a class and a mask kernel."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

Classification = Literal["ce", "focal"]  # softmax with a column for "no object", or a sigmoid for each class


class QueryPrediction(NamedTuple):
    """Classes and mask kernels of B clips after one layer; a mask logit is a kernel times a feature.

    Example:
        >>> from tubelet.models.queries.prediction import QueryPrediction
        >>> prediction = QueryPrediction(logits=torch.zeros(1, 5, 4), kernels=torch.zeros(1, 2, 5, 8))
        >>> prediction.kernels.shape[1]  # frames of a clip
        2
    """

    logits: Tensor  # [B, Q, K + 1] ("ce") or [B, Q, K] ("focal"), float32
    kernels: Tensor  # [B, T, Q, D], float32; the same in every frame where frames are decoded jointly
