"""What is kept of a whole video: run-length codes, and the class scores of each identity by frame and by window.

`Traits.vote` of the model decides how a track gets its class and score.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from itertools import count as count_from
from typing import Protocol

import numpy as np

from tubelet.core.masks import RLE, encode
from tubelet.core.masks.sparse import FRAME, SparseMasks
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
    # of each class that was best in a frame: in how many frames, and the sum of its scores there
    best: dict[int, tuple[int, float]] = field(default_factory=dict)
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
        votes, total = self.best.get(label, (0, 0.0))
        self.best[label] = (votes + 1, total + confidence)

    @property
    def score(self) -> float:
        """Mean of the best class score over the frames in which the identity appears."""
        return self.total / self.frames

    def label(self, vote: Vote) -> int:
        """The class of most frames ("majority") or of the largest summed score; the smaller index of equal ones."""
        by = 0 if vote == "majority" else 1
        return min(self.best, key=lambda label: (-self.best[label][by], label))


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


class MaskStore(Protocol):
    """Where the masks of finished frames are kept: in memory, or in a file (`formats.frame_lines.FrameRecord`)."""

    def add(
        self, t: int, ids: Sequence[int], labels: Sequence[int], scores: Sequence[float], rles: Sequence[RLE]
    ) -> None:
        """Add a frame, later than those before, with its n objects: class and score are those up to this frame."""
        ...

    def masks(self, id: int, length: int) -> SparseMasks:
        """The masks of an identity, in a video of `length` frames."""
        ...


class MasksInMemory:
    """Keeps masks in memory.

    >>> from tubelet.core.masks import RLE
    >>> from tubelet.inference.tallies import MasksInMemory
    >>> store = MasksInMemory()
    >>> store.add(1, ids=[7], labels=[0], scores=[0.5], rles=[RLE((4, 6), b"0h0")])
    >>> store.masks(7, length=3)
    SparseMasks(frames=1 of 3)
    """

    def __init__(self) -> None:
        self._frames: dict[int, array[int]] = defaultdict(lambda: array("i"))
        self._rles: dict[int, list[RLE]] = defaultdict(list)

    def add(
        self, t: int, ids: Sequence[int], labels: Sequence[int], scores: Sequence[float], rles: Sequence[RLE]
    ) -> None:
        """Add a frame, later than those before, with its n objects."""
        for identity, rle in zip(ids, rles, strict=True):
            self._frames[identity].append(t)
            self._rles[identity].append(rle)

    def masks(self, id: int, length: int) -> SparseMasks:
        """The masks of an identity, in a video of `length` frames."""
        return SparseMasks(length, np.array(self._frames[id], FRAME), tuple(self._rles[id]))


class Ledger:
    """The tracks of a video so far, as run-length codes and tallies, without pixels.

    Args:
        store: Where masks are kept; None: in memory.
        vote: How the store is told the class and score that each object has so far.

    >>> ledger = Ledger()
    >>> ledger.tracks(length=3)
    ()
    """

    def __init__(self, store: MaskStore | None = None, vote: Vote = "majority") -> None:
        self.objects: dict[int, int] = {}  # the identity of each track that was given out, by the track's id
        self._store = store or MasksInMemory()
        self._vote = vote
        self._tallies = Tallies()

    def add_window(self, tracks: Tracks) -> None:
        """Add one window's class probabilities."""
        self._tallies.add_window(tracks)

    def add(self, frame: Finished) -> None:
        """Add one finished frame's masks and class probabilities."""
        self._tallies.add(frame)
        ids = frame.ids.tolist()
        verdicts = [self._tallies[identity].verdict(self._vote) for identity in ids]
        labels = [label for label, _ in verdicts]
        scores = [score for _, score in verdicts]
        self._store.add(frame.index, ids, labels, scores, encode(frame.masks))

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
        first: dict[int, Track] = {}  # of each identity
        tracks: list[Track] = []
        for negative, identity, label in best:
            if identity not in first:
                first[identity] = track = self._track(identity, label, -negative, length)
            else:
                track = replace(first[identity], id=next(new_ids), label=label, score=-negative)
                self.objects[track.id] = identity
            tracks.append(track)
        return tuple(tracks)

    def _seen(self, min_frames: int) -> list[tuple[int, Tally]]:
        """Identities with pixels in at least `min_frames` frames, ascending."""
        return [(i, tally) for i, tally in sorted(self._tallies.items()) if tally.frames >= max(min_frames, 1)]

    def _track(self, identity: int, label: int, score: float, length: int) -> Track:
        self.objects[identity] = identity
        return Track(id=identity, label=label, score=score, rles=self._store.masks(identity, length))
