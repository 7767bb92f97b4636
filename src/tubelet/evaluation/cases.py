"""Each video as numbers: shared pixels per frame, and which track follows which object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tubelet.core.masks.overlaps import frame_intersections
from tubelet.core.masks.packed import Tube
from tubelet.core.masks.run_codec import AREA
from tubelet.evaluation.pairing import Pair
from tubelet.evaluation.parallel import each
from tubelet.evaluation.partners import Table

TAKES = 0.5  # overlap in a frame from which a track starts to follow an object
KEEPS = 0.25  # overlap in a frame from which it goes on following it
CONFIDENT = 0.3  # score from which tracks take part in identities


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One video as numbers, made by `cases`.

    T frames, G objects (truths without crowds) and P predicted tracks; g numbers the objects, p the
    tracks.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation.cases import cases
        >>> from tubelet.evaluation.pairing import pair
        >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> (case,) = cases(pair([video], []))
        >>> case.shared.shape, case.truth_area.tolist(), case.owner.tolist()
        ((2, 1, 0), [[16.0], [16.0]], [[-1], [-1]])
    """

    pair: Pair
    objects: tuple[int, ...]  # [G], indices of the objects among the pair's truths
    shared: np.ndarray  # float [T, G, P], pixels in common
    truth_area: np.ndarray  # float [T, G]
    area: np.ndarray  # float [T, P]
    truth_labels: np.ndarray  # int [G]
    labels: np.ndarray  # int [P]
    scores: np.ndarray  # float [P]
    confident: np.ndarray  # bool [P], True for tracks that take part in identities
    owner: np.ndarray  # int [T, G], the track that follows each object in each frame, -1 for none
    main_track: dict[int, int]  # object that is followed -> its main track; no track is main twice

    @property
    def frame_overlap(self) -> np.ndarray:
        """Intersection over union in each frame, float [T, G, P]."""
        union = self.truth_area[:, :, None] + self.area[:, None] - self.shared
        return np.asarray(self.shared / np.maximum(union, 1))

    def table(self) -> Table:
        """Return labels, scores and overlaps of whole tracks, from which AP is computed."""
        overlap = overlap_of(self.shared, self.truth_area, self.area)
        crowd = np.zeros(len(self.truth_labels), bool)
        return Table(self.labels, self.scores, self.truth_labels, crowd, overlap)


def overlap_of(shared: np.ndarray, truth_area: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Compute the overlap of whole tracks: summed intersections over summed unions.

    Args:
        shared: Pixels in common, float [T, G, P].
        truth_area: Pixels of the objects, float [T, G].
        area: Pixels of the predictions, float [T, P].

    Returns:
        Float [P, G]; 0 where both are empty.

    Example:
        >>> from tubelet.evaluation.cases import overlap_of
        >>> overlap_of(np.array([[[3.0]], [[1.0]]]), np.array([[4.0], [2.0]]), np.array([[3.0], [3.0]]))
        array([[0.5]])
    """
    intersection = shared.sum(0).T
    union = area.sum(0)[:, None] + truth_area.sum(0)[None] - intersection
    zeros = np.zeros_like(intersection)
    return np.asarray(np.divide(intersection, union, out=zeros, where=union > 0))


def cases(pairs: Sequence[Pair], *, confident: float = CONFIDENT, jobs: int = 1) -> list[Case]:
    """Turn videos into numbers, in `jobs` processes.

    Tracks with a score below `confident` do not start to follow objects.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation.cases import cases
        >>> from tubelet.evaluation.pairing import pair
        >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> prediction = tubelet.Prediction(video="v", size=(4, 4), length=2, tracks=(track,))
        >>> cases(pair([video], [prediction]))[0].owner.tolist()
        [[0], [0]]
    """
    return each(partial(_case, confident=confident), pairs, jobs)


def span(case: Case, g: int, p: int) -> np.ndarray:
    """Return the frames in which track p is responsible for object g, bool [T].

    These are the frames in which it follows the object, and those before anything follows the
    object or in which the object is absent, unless the track follows another object there. All
    frames, if it never follows the object.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation.cases import cases, span
        >>> from tubelet.evaluation.pairing import pair
        >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=(*encode(np.ones((1, 4, 4))), None))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> prediction = tubelet.Prediction(video="v", size=(4, 4), length=2, tracks=(track,))
        >>> span(*cases(pair([video], [prediction])), g=0, p=0)
        array([ True,  True])
    """
    owner = case.owner[:, g]
    present = case.truth_area[:, g] > 0
    follows = owner == p
    if not follows.any():
        return np.ones(len(owner), bool)

    follows_another = (case.owner == p).any(1) & ~follows
    first_followed = np.flatnonzero(owner >= 0)[0]
    before = np.arange(len(owner)) < first_followed
    return np.asarray(follows | ((~present | before) & ~follows_another))


def _case(pair: Pair, confident: float) -> Case:
    objects = tuple(n for n, track in enumerate(pair.truths) if not track.ignore)
    truths = [pair.truth_tubes[n] for n in objects]
    truth_labels = np.array([pair.truths[n].label for n in objects], np.int64)
    labels = np.array([track.label for track in pair.predictions], np.int64)
    scores = np.array([track.score for track in pair.predictions], np.float64)

    shared = np.zeros((pair.length, len(truths), len(pair.guess_tubes)))
    if truths and pair.guess_tubes:
        shared[:] = frame_intersections(truths, pair.guess_tubes)
    truth_area = _areas(truths, pair.length)
    area = _areas(pair.guess_tubes, pair.length)

    frame_overlap = shared / np.maximum(truth_area[:, :, None] + area[:, None] - shared, 1)
    track_overlap = overlap_of(shared, truth_area, area).T
    owner = _owners(frame_overlap, track_overlap, truth_area > 0, scores >= confident)

    return Case(
        pair=pair,
        objects=objects,
        shared=shared,
        truth_area=truth_area,
        area=area,
        truth_labels=truth_labels,
        labels=labels,
        scores=scores,
        confident=scores >= confident,
        owner=owner,
        main_track=_main_tracks(owner, truth_labels[:, None] == labels),
    )


def _areas(tubes: Sequence[Tube], length: int) -> np.ndarray:
    """Pixels of each tube in each frame, float [T, N]."""
    if not tubes:
        return np.zeros((length, 0))
    return np.stack([tube.facts[:, AREA] for tube in tubes], 1).astype(float)


def _owners(
    frame_overlap: np.ndarray,
    track_overlap: np.ndarray,
    present: np.ndarray,
    confident: np.ndarray,
) -> np.ndarray:
    """Find the track that follows each object in each frame, int [T, G]; -1 for none.

    A track goes on following an object while they overlap by KEEPS. An object that nothing follows
    is taken up by a free track that overlaps it by TAKES: of several, the one that overlaps it most
    as a whole, so that a duplicate that passes by does not take over.

    Shapes: `frame_overlap` [T, G, P], `track_overlap` [G, P], `present` [T, G], `confident` [P].
    """
    owner = np.full(present.shape, -1, np.int64)
    last: dict[int, int] = {}  # object -> the track that followed it last
    for t, overlap in enumerate(frame_overlap):
        busy: set[int] = set()
        for g, p in last.items():
            if present[t, g] and overlap[g, p] >= KEEPS and p not in busy:
                owner[t, g] = p
                busy.add(p)

        unfollowed = (owner[t] < 0)[:, None]
        objects, tracks = np.nonzero((overlap >= TAKES) & confident & unfollowed)
        best_first = np.argsort(-track_overlap[objects, tracks], kind="stable")
        for n in best_first.tolist():
            g = int(objects[n])
            p = int(tracks[n])
            if owner[t, g] < 0 and p not in busy:
                owner[t, g] = p
                last[g] = p
                busy.add(p)
    return owner


def _main_tracks(owner: np.ndarray, same_class: np.ndarray) -> dict[int, int]:
    """Choose the main track of each followed object.

    One of its class if possible; of several, the one that follows it longest. No track is chosen
    for two objects. Shapes: `owner` [T, G], `same_class` bool [G, P].
    """
    options = []
    for g, column in enumerate(owner.T):
        for p in np.unique(column[column >= 0]):
            num_frames = int((column == p).sum())
            options.append((not same_class[g, p], -num_frames, g, int(p)))

    main: dict[int, int] = {}
    for _, _, g, p in sorted(options):
        if g not in main and p not in main.values():
            main[g] = p
    return main
