"""What is kept of a whole video: run-length codes, and what frames and windows said of each identity's class.

How a track gets its class and score is the model's choice, `Traits.vote`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nsmallest

import numpy as np

from tubelet.core.masks import RLE, encode
from tubelet.core.protocol import Vote
from tubelet.core.types import Track, Tracks
from tubelet.inference.stitch import Finished


@dataclass(slots=True)
class Tally:
    """One identity so far: its frames, the sum of their scores, what each says of the class; and what windows say."""

    frames: int = 0
    total: float = 0.0
    votes: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    sums: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    windows: int = 0
    heard: np.ndarray | None = None  # sum of the windows' class probabilities, float64 [K]

    def hear(self, scores: np.ndarray) -> None:
        """Count one more window with class probabilities [K]."""
        self.windows += 1
        self.heard = scores.astype(np.float64) if self.heard is None else self.heard + scores

    @property
    def probabilities(self) -> np.ndarray:
        """Class probabilities [K]: the mean over the windows that hold the identity."""
        assert self.heard is not None, "no window was heard"
        return self.heard / self.windows

    def verdict(self, vote: Vote) -> tuple[int, float]:
        """Class and score."""
        if vote != "mean":
            return self.label(vote), self.score
        best = int(self.probabilities.argmax())
        return best, float(self.probabilities[best])

    def add(self, scores: np.ndarray) -> None:
        """Count one more frame with class probabilities [K]."""
        label = int(scores.argmax())
        confidence = float(scores[label])
        self.frames += 1
        self.total += confidence
        self.votes[label] += 1
        self.sums[label] += confidence

    @property
    def score(self) -> float:
        """The arithmetic mean over the frames in which the identity appears."""
        return self.total / self.frames

    def label(self, vote: Vote) -> int:
        """The class that most frames say ("majority") or the one of the largest summed score; a tie: the smaller."""
        weights: Mapping[int, float] = self.votes if vote == "majority" else self.sums
        return min(weights, key=lambda label: (-weights[label], label))


class Tallies(defaultdict[int, Tally]):
    """A tally for each identity."""

    def __init__(self) -> None:
        super().__init__(Tally)

    def hear(self, tracks: Tracks) -> None:
        """Count one window's class probabilities."""
        for identity, scores in zip(tracks.ids.tolist(), tracks.scores.detach().cpu().double().numpy(), strict=True):
            self[identity].hear(scores)

    def add(self, frame: Finished) -> None:
        """Count one finished frame's class probabilities."""
        for identity, scores in zip(frame.ids.tolist(), frame.scores, strict=True):
            self[identity].add(scores)


class Ledger:
    """What is kept of a whole video: run-length codes and tallies, no pixels."""

    def __init__(self) -> None:
        self._rles: dict[int, dict[int, RLE]] = defaultdict(dict)
        self._tallies = Tallies()

    def hear(self, tracks: Tracks) -> None:
        """Write down what a window says of the classes."""
        self._tallies.hear(tracks)

    def add(self, frame: Finished) -> None:
        """Write down one finished frame."""
        self._tallies.add(frame)
        for identity, rle in zip(frame.ids.tolist(), encode(frame.masks), strict=True):
            self._rles[identity][frame.index] = rle

    def tracks(self, length: int, *, vote: Vote = "majority", min_frames: int = 1) -> tuple[Track, ...]:
        """Every identity seen in at least `min_frames` of the video's `length` frames, ids ascending."""
        seen = self._seen(min_frames)
        return tuple(self._track(identity, *tally.verdict(vote), length) for identity, tally in seen)

    def pairs(self, length: int, count: int, *, min_frames: int = 1) -> tuple[Track, ...]:
        """The `count` best (identity, class) pairs by probability, the best first: what benchmarks take.

        One identity may come several times, each time with the same masks and another class.
        """
        every = [
            (-probability, identity, label)
            for identity, tally in self._seen(min_frames)
            for label, probability in enumerate(tally.probabilities.tolist())
        ]
        best = nsmallest(count, every)
        return tuple(self._track(identity, label, -negative, length) for negative, identity, label in best)

    def _seen(self, min_frames: int) -> list[tuple[int, Tally]]:
        """Identities that have pixels in so many frames."""
        return [(i, tally) for i, tally in sorted(self._tallies.items()) if tally.frames >= max(min_frames, 1)]

    def _track(self, identity: int, label: int, score: float, length: int) -> Track:
        rles = self._rles[identity]
        return Track(id=identity, label=label, score=score, rles=tuple(rles.get(t) for t in range(length)))
