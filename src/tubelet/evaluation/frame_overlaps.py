"""The overlaps of truths and predictions in every frame of a video, of masks or of their tight boxes.

Letters: T frames, G truths, P predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from tubelet.core import masks
from tubelet.core.masks.overlaps import frame_intersections
from tubelet.core.masks.packed import Tube
from tubelet.core.masks.run_codec import AREA
from tubelet.evaluation.pairing import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """The overlaps of one video's truths and predictions, frame by frame.

    Example:
        >>> from tubelet.evaluation.frame_overlaps import Overlaps
        >>> table = Overlaps(
        ...     similarity=np.full((2, 1, 1), 0.8),
        ...     truths=np.ones((2, 1), bool),
        ...     predictions=np.ones((2, 1), bool),
        ...     scores=np.array([0.4]),
        ... )
        >>> table.above(0.5).similarity.shape
        (2, 1, 0)
    """

    similarity: np.ndarray  # float [T, G, P], intersection over union
    truths: np.ndarray  # bool [T, G], True where the truth is present
    predictions: np.ndarray  # bool [T, P], True where the prediction is present
    scores: np.ndarray  # float [P]

    def above(self, threshold: float) -> Self:
        """Return only the predictions with a score of `threshold` or more."""
        chosen = self.scores >= threshold
        return replace(
            self,
            similarity=self.similarity[:, :, chosen],
            predictions=self.predictions[:, chosen],
            scores=self.scores[chosen],
        )

    def only(self, truths: np.ndarray, predictions: np.ndarray) -> Self:
        """Return only the chosen truths, bool [G], and predictions, bool [P]."""
        return replace(
            self,
            similarity=self.similarity[:, truths][:, :, predictions],
            truths=self.truths[:, truths],
            predictions=self.predictions[:, predictions],
            scores=self.scores[predictions],
        )


def overlaps(
    pair: Pair,
    *,
    least: float = 0.0,
    on_masks: bool = False,
    class_aware: bool = False,
) -> Overlaps:
    """Compute a video's overlaps, without crowds and without predictions of a score below `least`.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation import frame_overlaps, pairing
        >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> prediction = tubelet.Prediction(video="v", size=(4, 4), length=2, tracks=(track,))
        >>> (pair,) = pairing.pair([video], [prediction])
        >>> frame_overlaps.overlaps(pair).similarity.tolist()
        [[[1.0]], [[1.0]]]
    """
    truth_rows = [n for n, track in enumerate(pair.truths) if not track.ignore]
    prediction_rows = [n for n, track in enumerate(pair.predictions) if track.score >= least]
    truths = [pair.truth_tubes[n] for n in truth_rows]
    predictions = [pair.guess_tubes[n] for n in prediction_rows]
    truth_area = _areas(truths, pair.length)
    area = _areas(predictions, pair.length)

    if on_masks:
        similarity = _mask_overlaps(truths, predictions, truth_area, area)
    else:
        similarity = _box_overlaps(_boxes(truths, pair.length), _boxes(predictions, pair.length))

    if class_aware:
        truth_labels = np.array([pair.truths[n].label for n in truth_rows])
        labels = np.array([pair.predictions[n].label for n in prediction_rows])
        similarity = similarity * (truth_labels[:, None] == labels)

    return Overlaps(
        similarity=similarity,
        truths=truth_area > 0,
        predictions=area > 0,
        scores=np.array([pair.predictions[n].score for n in prediction_rows], np.float64),
    )


def _areas(tubes: Sequence[Tube], length: int) -> np.ndarray:
    """Pixels of each tube in each frame, [T, N]."""
    if not tubes:
        return np.zeros((length, 0))
    return np.stack([tube.facts[:, AREA] for tube in tubes], 1)


def _mask_overlaps(
    truths: Sequence[Tube],
    predictions: Sequence[Tube],
    truth_area: np.ndarray,
    area: np.ndarray,
) -> np.ndarray:
    """Intersection over union of masks, float [T, G, P]; areas are [T, G] and [T, P]."""
    shape = (len(truth_area), len(truths), len(predictions))
    if truths and predictions:
        shared = frame_intersections(truths, predictions).reshape(shape).astype(np.float64)
    else:
        shared = np.zeros(shape)
    union = truth_area[:, :, None] + area[:, None] - shared
    return np.asarray(shared / np.maximum(union, 1))


def _boxes(tubes: Sequence[Tube], length: int) -> np.ndarray:
    """Tight half-open boxes (x1, y1, x2, y2), float [T, N, 4]; zeros where a tube is absent."""
    boxes = np.zeros((length, len(tubes), 4))
    for n, tube in enumerate(tubes):
        frames = np.flatnonzero(tube.facts[:, AREA])
        rles = [rle for t in frames.tolist() if (rle := tube[t]) is not None]
        boxes[frames, n] = masks.boxes(rles)
    return boxes


def _box_overlaps(truths: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [T, G, 4] and [T, P, 4] -> [T, G, P]; 0 where either is empty."""
    first = truths[:, :, None]
    second = predictions[:, None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.clip(sides, 0, None).prod(-1)
    first_area = (first[..., 2:] - first[..., :2]).prod(-1)
    second_area = (second[..., 2:] - second[..., :2]).prod(-1)
    union = first_area + second_area - shared
    return np.asarray(shared / np.maximum(union, 1))
