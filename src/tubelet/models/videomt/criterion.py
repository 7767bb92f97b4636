"""Losses of a clip whose frames are predicted one after the other: a query keeps the object that it was given.

The losses of a frame are those of mask transformers (models/queries/criterion.py). What differs is the matching: an
object that appears is matched, at the least cost, to a query that has none, and that query keeps it to the clip's end.
Where its object is absent the query is to say "no object" and to show an empty mask.

Letters: B clips, Q queries, M objects, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tubelet.core.types import Losses
from tubelet.models.queries.criterion import Criterion, Match, Target, mean_over_processes
from tubelet.models.queries.prediction import QueryPrediction
from tubelet.models.videomt.network import FrameOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTarget:
    """The M true objects of one clip.

    Example:
        >>> from tubelet.models.videomt.criterion import ClipTarget
        >>> masks = torch.tensor([[[[1.0]], [[0.0]]]])
        >>> target = ClipTarget(labels=torch.tensor([2]), masks=masks, padding=torch.ones(2), no_object=3)
        >>> target.present.tolist(), target.frame(1).labels.tolist()
        ([[True, False]], [3])
    """

    labels: Tensor  # int64 [M]
    masks: Tensor  # float [M, T, H, W], 0 or 1, over the frame
    padding: Tensor  # [2]: width and height of the padded network input over those of the frame in it
    no_object: int  # K

    @property
    def present(self) -> Tensor:
        """Whether each object has a pixel in each frame, bool [M, T]."""
        return self.masks.flatten(2).any(2)

    def frame(self, t: int) -> Target:
        """The objects in one frame; those that are absent from it have the label "no object"."""
        labels = torch.where(self.present[:, t], self.labels, self.no_object)
        return Target(labels=labels, masks=self.masks[:, [t]], padding=self.padding)


class ClipCriterion:
    """Losses of all predictions of all frames of a batch; it has no parameters.

    Example:
        >>> from tubelet.models.queries.criterion import CriterionConfig
        >>> from tubelet.models.videomt.criterion import ClipCriterion, ClipTarget
        >>> from tubelet.models.videomt.network import FrameOutput
        >>> prediction = FrameOutput(torch.zeros(1, 5, 4), torch.zeros(1, 5, 8), torch.zeros(1, 8, 4, 4))
        >>> masks = torch.ones(1, 2, 16, 16)
        >>> target = ClipTarget(labels=torch.tensor([2]), masks=masks, padding=torch.ones(2), no_object=3)
        >>> losses = ClipCriterion(CriterionConfig(points=4).build("ce"))
        >>> sorted(losses([[prediction], [prediction]], [target]))  # of two frames
        ['class_0', 'dice_0', 'mask_0']
    """

    def __init__(self, criterion: Criterion) -> None:
        self.criterion = criterion

    def __call__(self, frames: Sequence[Sequence[FrameOutput]], targets: Sequence[ClipTarget]) -> Losses:
        """Compute the losses class_n, mask_n and dice_n of the n-th prediction, means over frames.

        Draws points from torch's global generator.

        Args:
            frames: For each frame of the clips, the predictions before each query layer and the last.
            targets: The true objects of each clip.
        """
        features = frames[0][0].features
        with torch.autocast(features.device.type, enabled=False):
            by_frame = [[target.frame(t) for target in targets] for t in range(len(frames))]
            count = mean_over_processes(sum(_appearances(target) for target in targets), features.device)

            total: Losses = {}
            for number, predictions in enumerate(zip(*frames, strict=True)):
                of_layer = self.of_prediction(predictions, by_frame, targets, count)
                for name, loss in of_layer.items():
                    total[f"{name}_{number}"] = loss
            return total

    def of_prediction(
        self,
        frames: Sequence[FrameOutput],
        by_frame: Sequence[Sequence[Target]],
        targets: Sequence[ClipTarget],
        count: Tensor,
    ) -> Losses:
        """Compute the losses of the predictions that one layer made for T frames.

        Frames count like clips of one frame each; `count` is the number of objects in all of them.
        """
        clips = [frame.as_clips() for frame in frames]
        matches: list[list[Match]] = [[] for _ in frames]
        for b, target in enumerate(targets):
            for t, match in enumerate(self.match_clip(clips, b, target)):
                matches[t].append(match)

        joint = QueryPrediction(
            logits=torch.cat([prediction.logits for prediction, _ in clips]),
            kernels=torch.cat([prediction.kernels for prediction, _ in clips]),
        )
        features = torch.cat([features for _, features in clips])
        frame_targets = [target for row in by_frame for target in row]
        frame_matches = [match for row in matches for match in row]
        return self.criterion.of_matches(joint, features, frame_targets, frame_matches, count)

    def match_clip(self, frames: Sequence[tuple[QueryPrediction, Tensor]], b: int, target: ClipTarget) -> list[Match]:
        """Match the queries of clip `b` with its objects, frame by frame: an object keeps its first query.

        Args:
            frames: Predictions and features of each frame, as `FrameOutput.as_clips` gives them.
            b: Number of the clip.
            target: Its objects.

        Returns:
            For each frame the matched queries and their objects, [P] each.
        """
        present = target.present
        query_of = torch.full_like(target.labels, -1)  # [M]
        matches = []
        for t, (prediction, features) in enumerate(frames):
            new = (present[:, t] & (query_of < 0)).nonzero()[:, 0]
            if len(new):
                taken = torch.zeros_like(prediction.logits[b, :, 0], dtype=torch.bool)
                taken[query_of[query_of >= 0]] = True
                free = (~taken).nonzero()[:, 0]
                queries, objects = self._match_new(prediction, features[b], b, free, target.frame(t), new)
                query_of[objects] = queries
            known = (query_of >= 0).nonzero()[:, 0]
            matches.append((query_of[known], known))
        return matches

    def _match_new(
        self, prediction: QueryPrediction, features: Tensor, b: int, free: Tensor, target: Target, new: Tensor
    ) -> Match:
        """Match new objects with free queries, at the least cost."""
        of_free = QueryPrediction(prediction.logits[[b]][:, free], prediction.kernels[[b]][:, :, free])
        of_new = replace(target, labels=target.labels[new], masks=target.masks[new])
        queries, objects = self.criterion.match(of_free, 0, features, of_new)
        return free[queries], new[objects]


def _appearances(target: ClipTarget) -> int:
    """In how many frames objects are, counted from each object's first."""
    present = target.present
    appeared = present.cummax(1).values if len(present) else present
    return int(appeared.sum())
