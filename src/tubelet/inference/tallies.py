"""The memory of a whole video: run-length codes, and the class scores of each identity by frame and by window.

`Traits.vote` of the model decides how a track gets its class and score.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from itertools import count as count_from

import numpy as np

from tubelet.core.masks import RLE, encode
from tubelet.core.protocol import Vote
from tubelet.core.types import Track, Tracks
from tubelet.inference.stitch import Finished


@dataclass(slots=True)
class Tally:
    """Class scores of one identity so far, summed over frames and over windows.

    >>> tally = Tally()
    >>> tally.add(np.array([0.2, 0.8]))
    >>> tally.add(np.array([0.3, 0.6]))
    >>> tally.label("majority"), round(tally.score, 3)
    (1, 0.7)
    """

    frames: int = 0
    total: float = 0.0  # sum of the best score of each frame
    votes: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    sums: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    windows: int = 0
    window_sum: np.ndarray | None = None  # sum of the windows' class probabilities, float64 [K]

    def add_window(self, scores: np.ndarray) -> None:
        """Add one window's class probabilities [K]."""
        self.windows += 1
        self.window_sum = scores.astype(np.float64) if self.window_sum is None else self.window_sum + scores

    @property
    def probabilities(self) -> np.ndarray:
        """Mean class probabilities [K] over the windows that contain the identity."""
        assert self.window_sum is not None, "no window was added"
        return self.window_sum / self.windows

    def verdict(self, vote: Vote) -> tuple[int, float]:
        """The class and score of the track, by the rule `vote`."""
        if vote != "mean":
            return self.label(vote), self.score
        best = int(self.probabilities.argmax())
        return best, float(self.probabilities[best])

    def add(self, scores: np.ndarray) -> None:
        """Add one frame's class probabilities [K]."""
        label = int(scores.argmax())
        confidence = float(scores[label])
        self.frames += 1
        self.total += confidence
        self.votes[label] += 1
        self.sums[label] += confidence

    @property
    def score(self) -> float:
        """Mean of the best class score over the frames in which the identity appears."""
        return self.total / self.frames

    def label(self, vote: Vote) -> int:
        """The class of most frames ("majority") or of the largest summed score; the smaller index of equal ones."""
        weights: Mapping[int, float] = self.votes if vote == "majority" else self.sums
        return min(weights, key=lambda label: (-weights[label], label))


class Tallies(defaultdict[int, Tally]):
    """A tally for each identity.

    >>> Tallies()[7].frames
    0
    """

    def __init__(self) -> None:
        super().__init__(Tally)

    def add_window(self, tracks: Tracks) -> None:
        """Add one window's class probabilities."""
        rows = tracks.scores.detach().cpu().double().numpy()  # [N, K]
        for identity, scores in zip(tracks.ids.tolist(), rows, strict=True):
            self[identity].add_window(scores)

    def add(self, frame: Finished) -> None:
        """Add one finished frame's class probabilities."""
        for identity, scores in zip(frame.ids.tolist(), frame.scores, strict=True):
            self[identity].add(scores)


class Ledger:
    """The tracks of a video so far, as run-length codes and tallies, without pixels.

    >>> ledger = Ledger()
    >>> ledger.tracks(length=3)
    ()
    """

    def __init__(self) -> None:
        self._rles: dict[int, dict[int, RLE]] = defaultdict(dict)
        self._tallies = Tallies()

    def add_window(self, tracks: Tracks) -> None:
        """Add one window's class probabilities."""
        self._tallies.add_window(tracks)

    def add(self, frame: Finished) -> None:
        """Add one finished frame's masks and class probabilities."""
        self._tallies.add(frame)
        for identity, rle in zip(frame.ids.tolist(), encode(frame.masks), strict=True):
            self._rles[identity][frame.index] = rle

    def tracks(self, length: int, *, vote: Vote = "majority", min_frames: int = 1) -> tuple[Track, ...]:
        """Tracks with pixels in at least `min_frames` of the video's `length` frames, ids ascending."""
        seen = self._seen(min_frames)
        return tuple(self._track(identity, *tally.verdict(vote), length) for identity, tally in seen)

    def pairs(
        self, length: int, count: int, *, min_frames: int = 1, labels: Collection[int] | None = None
    ) -> tuple[Track, ...]:
        """The `count` best (identity, class) pairs by probability, best first, as benchmarks expect.

        One identity may appear several times, each time with the same masks, another class and an id of
        its own: its best pair has the identity's id, the others have ids above all identities.
        `labels` are the classes to choose from; None: all.
        """
        seen = self._seen(min_frames)
        pairs = []
        for identity, tally in seen:
            for label, probability in enumerate(tally.probabilities.tolist()):
                if labels is None or label in labels:
                    pairs.append((-probability, identity, label))
        best = nsmallest(count, pairs)

        new_ids = count_from(max((identity for identity, _ in seen), default=0) + 1)
        tracks: list[Track] = []
        used: set[int] = set()
        for negative, identity, label in best:
            track = self._track(identity, label, -negative, length)
            tracks.append(replace(track, id=next(new_ids)) if identity in used else track)
            used.add(identity)
        return tuple(tracks)

    def _seen(self, min_frames: int) -> list[tuple[int, Tally]]:
        """Identities with pixels in at least `min_frames` frames, ascending."""
        return [(i, tally) for i, tally in sorted(self._tallies.items()) if tally.frames >= max(min_frames, 1)]

    def _track(self, identity: int, label: int, score: float, length: int) -> Track:
        rles = self._rles[identity]
        return Track(id=identity, label=label, score=score, rles=tuple(rles.get(t) for t in range(length)))
