"""Which query is which object, outside the model.

A query keeps its identity as long as its object lives, also while the object is hidden. A query that has shown nothing
for more than `keep` frames and then shows something of another class, elsewhere, that looks different, has found
another object, and starts a new identity. Nothing crosses a cut.

Letters: Q queries, N of them shown in a frame, K classes, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from tubelet.core.config import Config
from tubelet.models.queries.outputs import best_queries


class IdentityConfig(Config):
    """Which queries are shown, and when a query starts a new identity.

    Example:
        >>> from tubelet.models.videomt.identities import IdentityConfig
        >>> IdentityConfig(keep=10).top
        20
    """

    score: float = Field(default=0.05, ge=0, lt=1)  # a query is shown if its best class is more probable
    top: int = Field(default=20, ge=1)  # at most so many queries of a frame are shown, those with the best scores
    keep: int = Field(default=30, ge=0)  # frames for which an unseen object surely keeps its query
    similarity: float = Field(default=0.5, ge=-1, le=1)  # cosine of embeddings below which an object looks different


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """What is known of each of Q queries after a frame; its size does not depend on the number of frames.

    Example:
        >>> from tubelet.models.videomt.identities import Identities
        >>> known = Identities.of(queries=5, channels=8, grid=(4, 6), device=torch.device("cpu"))
        >>> known.ids
        tensor([-1, -1, -1, -1, -1])
    """

    ids: Tensor  # int64 [Q]; -1 for a query that has never been shown
    seen: Tensor  # int64 [Q]: the last frame in which each was shown
    labels: Tensor  # int64 [Q]: its class in that frame
    masks: Tensor  # bool [Q, h, w]: its mask in that frame
    embeddings: Tensor  # [Q, D]: its tokens in that frame
    next_id: int = 1

    @classmethod
    def of(
        cls, queries: int, channels: int, grid: tuple[int, int], device: torch.device, next_id: int = 1
    ) -> Identities:
        """Before the first frame of a video or shot; `grid` is the size of masks."""
        unknown = torch.full((queries,), -1, dtype=torch.int64, device=device)
        return cls(
            ids=unknown,
            seen=unknown,
            labels=unknown,
            masks=torch.zeros(queries, *grid, dtype=torch.bool, device=device),
            embeddings=torch.zeros(queries, channels, device=device),
            next_id=next_id,
        )


def identify(
    known: Identities,
    probabilities: Tensor,
    masks: Tensor,
    embeddings: Tensor,
    time: int,
    config: IdentityConfig,
) -> tuple[Identities, Tensor]:
    """Choose the queries that are shown in a frame, and give each an identity.

    Args:
        known: What was known before the frame.
        probabilities: Class probabilities [Q, K], without "no object".
        masks: Their masks in this frame, bool [Q, h, w].
        embeddings: Their tokens [Q, D].
        time: Number of the frame.
        config: Which are shown.

    Returns:
        What is known after the frame, and the queries that are shown [N], best first; their ids are those of the first.

    Example:
        >>> from tubelet.models.videomt.identities import Identities, IdentityConfig, identify
        >>> known = Identities.of(queries=3, channels=8, grid=(4, 6), device=torch.device("cpu"))
        >>> probabilities = torch.tensor([[0.0, 0.1], [0.9, 0.0], [0.0, 0.0]])
        >>> masks = torch.ones(3, 4, 6, dtype=torch.bool)
        >>> known, shown = identify(known, probabilities, masks, torch.ones(3, 8), time=0, config=IdentityConfig())
        >>> shown, known.ids
        (tensor([1, 0]), tensor([ 2,  1, -1]))
    """
    best = best_queries(probabilities, config.top)
    shown = best[probabilities[best].amax(1) > config.score]

    labels = probabilities.argmax(1)
    is_new = known.ids[shown] < 0
    gone = time - known.seen[shown] > config.keep
    is_new |= gone & _is_other(known, shown, labels, masks, embeddings, config.similarity)

    ids = known.ids.clone()
    count = int(is_new.sum())
    ids[shown[is_new]] = known.next_id + torch.arange(count, device=ids.device)
    after = Identities(
        ids=ids,
        seen=_put(known.seen, shown, torch.full_like(known.seen, time)),
        labels=_put(known.labels, shown, labels),
        masks=_put(known.masks, shown, masks),
        embeddings=_put(known.embeddings, shown, embeddings.to(known.embeddings.dtype)),
        next_id=known.next_id + count,
    )
    return after, shown


def _is_other(
    known: Identities, shown: Tensor, labels: Tensor, masks: Tensor, embeddings: Tensor, similarity: float
) -> Tensor:
    """Whether each shown query shows another object than the one it showed last, bool [N]."""
    other_class = labels[shown] != known.labels[shown]
    elsewhere = ~(masks[shown] & known.masks[shown]).flatten(1).any(1)
    cosine = F.cosine_similarity(embeddings[shown].float(), known.embeddings[shown].float(), dim=1)
    return other_class & elsewhere & (cosine < similarity)


def _put(values: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    """A copy of `values` with some rows of `new`."""
    changed = values.clone()
    changed[rows] = new[rows]
    return changed
