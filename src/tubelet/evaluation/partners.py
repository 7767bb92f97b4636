"""Match predictions to truths.

By falling score, each prediction takes the truth of its class that it overlaps most. The rules are
those of the YouTube-VIS evaluation; `evaluation.ytvis` computes AP and AR from the matches.

Letters: V videos, G truths, P predictions of one video, D predictions of all videos, A splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tubelet.core.masks.overlaps import TrackPairs, intersections, shared_at_most
from tubelet.core.masks.packed import Tube
from tubelet.evaluation.first_come import PARTS, can_be_table, compare_in_turn
from tubelet.evaluation.pairing import Pair
from tubelet.evaluation.parallel import each

# the ninth is 0.8999999999999999, as in the official evaluation
THRESHOLDS = np.linspace(0.5, 0.95, 10)
LIMITS = np.minimum(THRESHOLDS, 1 - 1e-10)  # what an overlap must reach, as in the official evaluation
MOST = (1, 10, 100)  # predictions per video and class that AR1, AR10 and AR100 count
CHUNK = 2048  # pairs of tracks that one process takes at a time


class Split(NamedTuple):
    """Which truths count, by area and by name.

    The other truths are ignored: neither finding nor missing them changes the result. So are
    predictions matched to them, and unmatched predictions whose own area is out of range.

    Example:
        >>> from tubelet.evaluation.partners import Split
        >>> Split("small", high=128**2)
        Split(name='small', low=0.0, high=16384, members=None)
    """

    name: str
    low: float = 0.0  # mean pixels over the frames in which the object is present
    high: float = 1e10
    # (video, track id) of the truths that count; None for all
    members: frozenset[tuple[str, int]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Truths:
    """The G truths of all videos, as columns.

    Example:
        >>> from tubelet.evaluation.partners import Table, match_tables
        >>> label, score, crowd = np.array([0]), np.array([0.9]), np.array([True])
        >>> table = Table(label, score, label, crowd, overlap=np.array([[0.8]]))
        >>> match_tables([table]).truths.outside  # a crowd counts in no split
        array([[ True]])
    """

    video: np.ndarray  # int [G], index of the video
    track: np.ndarray  # int [G], index within the video
    label: np.ndarray  # int [G]
    ids: np.ndarray  # int [G]
    crowd: np.ndarray  # bool [G]
    outside: np.ndarray  # bool [A, G], True where a truth does not count in a split


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRows:
    """The D predictions of all videos, as columns, sorted by video, class and falling score.

    They include at most 100 per video and class, and only classes that have a truth in some video.

    Example:
        >>> from tubelet.evaluation.partners import Table, match_tables
        >>> labels, scores = np.array([0, 0]), np.array([0.2, 0.9])
        >>> table = Table(labels, scores, np.array([0]), np.array([False]), np.array([[0.8], [0.6]]))
        >>> match_tables([table]).predictions.track
        array([1, 0])
    """

    video: np.ndarray  # int [D], index of the video
    track: np.ndarray  # int [D], index within the video
    label: np.ndarray  # int [D]
    rank: np.ndarray  # int [D], from 0 within video and class
    score: np.ndarray  # float [D]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The matches of D predictions to G truths, at ten overlap thresholds, in A splits.

    Example:
        >>> from tubelet.evaluation.partners import Table, match_tables
        >>> label, score, crowd = np.array([0]), np.array([0.9]), np.array([False])
        >>> table = Table(label, score, label, crowd, overlap=np.array([[0.8]]))
        >>> matches = match_tables([table])
        >>> matches.matched.shape, matches.partner[0, :, 0]
        ((1, 10, 1), array([ 0,  0,  0,  0,  0,  0,  0, -1, -1, -1]))
    """

    splits: tuple[str, ...]
    truths: Truths
    predictions: PredictionRows
    partner: np.ndarray  # int [A, 10, D], index of the matched truth, -1 for none
    matched: np.ndarray  # bool [A, 10, D], True where a prediction is matched
    ignored: np.ndarray  # bool [A, 10, D], True where it counts neither as right nor as wrong


class Table(NamedTuple):
    """One video as numbers: the labels, scores and overlaps of P predictions and G truths.

    Example:
        >>> from tubelet.evaluation.partners import Table
        >>> labels, scores, crowd = np.array([0, 1]), np.array([0.9, 0.8]), np.array([False])
        >>> Table(labels, scores, np.array([0]), crowd, np.array([[0.7], [0.1]])).overlap.shape
        (2, 1)
    """

    labels: np.ndarray  # int [P]
    scores: np.ndarray  # float [P]
    truth_labels: np.ndarray  # int [G]
    crowd: np.ndarray  # bool [G]
    overlap: np.ndarray  # float [P, G], intersection over union of whole tracks


def match(
    pairs: Sequence[Pair],
    splits: Sequence[Split],
    *,
    agnostic: bool = False,
    official_ids: bool = False,
    jobs: int = 1,
) -> Matches:
    """Match predictions to truths at every threshold, in every split.

    `ytvis.evaluate` explains `agnostic` and `official_ids`.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.evaluation import pairing, partners
        >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=encode(np.ones((2, 4, 4))))
        >>> frames = [torch.zeros(3, 4, 4)] * 2
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=frames, tracks=(track,))
        >>> prediction = tubelet.Prediction(video="v", size=(4, 4), length=2, tracks=(track,))
        >>> pairs = pairing.pair([video], [prediction])
        >>> partners.match(pairs, [partners.Split("all")]).matched.tolist()
        [[[True], [True], [True], [True], [True], [True], [True], [True], [True], [True]]]
    """
    truths = _truths(pairs, splits, agnostic)
    predictions = _predictions(pairs, agnostic, set(truths.label.tolist()))
    candidates = _candidates(pairs, predictions, truths, jobs)
    partner = _partners(predictions, truths, *candidates)

    matched = partner >= 0
    if official_ids and len(truths.ids):
        matched &= truths.ids[partner] != 0  # the official code takes id 0 for "no match"

    tubes = [
        pairs[video].guess_tubes[track]
        for video, track in zip(predictions.video.tolist(), predictions.track.tolist(), strict=True)
    ]
    area = mean_areas(tubes)
    out_of_range = np.stack([(area < split.low) | (area > split.high) for split in splits])  # [A, D]
    ignored = _with_ignored_truth(partner, truths) | (~matched & out_of_range[:, None])

    return Matches(
        splits=tuple(split.name for split in splits),
        truths=truths,
        predictions=predictions,
        partner=partner,
        matched=matched,
        ignored=ignored,
    )


def match_tables(tables: Sequence[Table]) -> Matches:
    """Match from known overlaps, one table per video, in a single split "all" that ignores crowds.

    Example:
        >>> from tubelet.evaluation.partners import Table, match_tables
        >>> label, score, crowd = np.array([0]), np.array([0.9]), np.array([False])
        >>> table = Table(label, score, label, crowd, overlap=np.array([[0.6]]))
        >>> match_tables([table]).matched[0, :, 0].tolist()  # at thresholds 0.5, 0.55, ...
        [True, True, True, False, False, False, False, False, False, False]
    """
    truths = _table_truths(tables)
    predictions = _table_predictions(tables)
    candidates = _table_candidates(tables, predictions)
    partner = _partners(predictions, truths, *candidates)

    return Matches(
        splits=("all",),
        truths=truths,
        predictions=predictions,
        partner=partner,
        matched=partner >= 0,
        ignored=_with_ignored_truth(partner, truths),
    )


def mean_areas(tubes: Sequence[Tube]) -> np.ndarray:
    """Return each tube's mean pixels over the frames with any, float [N]; 0 if empty.

    Example:
        >>> from tubelet.core.masks import encode
        >>> from tubelet.core.masks.packed import pack
        >>> from tubelet.evaluation.partners import mean_areas
        >>> (mask,) = encode(np.ones((1, 4, 4)))
        >>> mean_areas(pack([[mask, None, mask], [None, None, None]], size=(4, 4)))
        array([16.,  0.])
    """
    return np.array([tube.pixels / tube.held if tube.held else 0.0 for tube in tubes])


# the columns


def _truths(pairs: Sequence[Pair], splits: Sequence[Split], agnostic: bool) -> Truths:
    rows = [(v, n, track) for v, pair in enumerate(pairs) for n, track in enumerate(pair.truths)]
    if agnostic:
        rows.sort(key=lambda row: (row[0], row[2].label))  # the official order where all classes are one

    measured = mean_areas([pairs[v].truth_tubes[n] for v, n, _ in rows])
    stated = [track.area for _, _, track in rows]
    area = np.array([m if s is None else s for m, s in zip(measured, stated, strict=True)])
    crowd = np.array([track.ignore for _, _, track in rows], bool)
    names = [(pairs[v].video, track.id) for v, _, track in rows]

    outside = np.zeros((len(splits), len(rows)), bool)
    for a, split in enumerate(splits):
        members = split.members
        excluded = np.array([members is not None and name not in members for name in names], bool)
        outside[a] = crowd | (area < split.low) | (area > split.high) | excluded

    return Truths(
        video=np.array([v for v, _, _ in rows], np.int64),
        track=np.array([n for _, n, _ in rows], np.int64),
        label=np.array([0 if agnostic else track.label for _, _, track in rows], np.int64),
        ids=np.array([track.id for _, _, track in rows], np.int64),
        crowd=crowd,
        outside=outside,
    )


def _predictions(pairs: Sequence[Pair], agnostic: bool, labels: set[int]) -> PredictionRows:
    rows = [
        (v, n, track)
        for v, pair in enumerate(pairs)
        for n, track in enumerate(pair.predictions)
        if agnostic or track.label in labels
    ]
    if agnostic:
        rows.sort(key=lambda row: (row[0], row[2].label))

    return _ranked(
        video=np.array([v for v, _, _ in rows], np.int64),
        track=np.array([n for _, n, _ in rows], np.int64),
        label=np.array([0 if agnostic else track.label for _, _, track in rows], np.int64),
        score=np.array([track.score for _, _, track in rows], np.float64),
    )


def _table_truths(tables: Sequence[Table]) -> Truths:
    sizes = [len(table.truth_labels) for table in tables]
    crowd = np.concatenate([np.zeros(0, bool), *(table.crowd for table in tables)])
    return Truths(
        video=np.repeat(np.arange(len(tables)), sizes),
        track=np.concatenate([np.zeros(0, np.int64), *(np.arange(size) for size in sizes)]),
        label=np.concatenate([np.zeros(0, np.int64), *(table.truth_labels for table in tables)]),
        ids=np.arange(1, len(crowd) + 1),
        crowd=crowd,
        outside=crowd[None].copy(),
    )


def _table_predictions(tables: Sequence[Table]) -> PredictionRows:
    counts = [len(table.labels) for table in tables]
    return _ranked(
        video=np.repeat(np.arange(len(tables)), counts),
        track=np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in counts)]),
        label=np.concatenate([np.zeros(0, np.int64), *(table.labels for table in tables)]),
        score=np.concatenate([np.zeros(0), *(table.scores for table in tables)]),
    )


def _ranked(
    *,
    video: np.ndarray,
    track: np.ndarray,
    label: np.ndarray,
    score: np.ndarray,
) -> PredictionRows:
    """Sort by video, class and falling score, in a stable way; drop what is beyond rank 100."""
    order = np.lexsort((-score, label, video))
    rank = order
    if len(order):
        new_video = np.diff(video[order], prepend=-1) != 0
        new_label = np.diff(label[order], prepend=-1) != 0
        new_group = new_video | new_label
        group_starts = np.flatnonzero(new_group)
        rank = np.arange(len(order)) - group_starts[np.cumsum(new_group) - 1]

    in_limit = rank < MOST[-1]
    order = order[in_limit]
    rank = rank[in_limit]
    return PredictionRows(video=video[order], track=track[order], label=label[order], rank=rank, score=score[order])


# the candidates: pairs of a prediction and a truth that may be matched


def _candidates(
    pairs: Sequence[Pair],
    predictions: PredictionRows,
    truths: Truths,
    jobs: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find predictions and truths of one video and class that overlap enough to match.

    Returns the indices of the predictions, those of the truths, and the overlaps, [N] each.
    """
    num_labels = int(max(predictions.label.max(initial=0), truths.label.max(initial=0))) + 1
    prediction_group = predictions.video * num_labels + predictions.label  # rises
    truth_group = truths.video * num_labels + truths.label

    # every truth with all predictions of its group
    starts = np.searchsorted(prediction_group, truth_group, side="left")
    stops = np.searchsorted(prediction_group, truth_group, side="right")
    counts = stops - starts
    truth = np.repeat(np.arange(len(truth_group)), counts)
    prediction = np.arange(len(truth)) + np.repeat(starts - np.cumsum(counts) + counts, counts)
    group = truth_group[truth]
    crowd = truths.crowd[truth]

    columns = (predictions.video[prediction], predictions.track[prediction], truths.track[truth])
    tubes = [
        (pairs[video].guess_tubes[n], pairs[video].truth_tubes[m])
        for video, n, m in zip(*(column.tolist() for column in columns), strict=True)
    ]
    chunks = [
        _Chunk(tubes[begin:end], prediction[begin:end], truth[begin:end], group[begin:end], crowd[begin:end])
        for begin, end in pairwise(_video_borders(predictions.video[prediction]))
    ]
    overlap = np.concatenate([np.zeros(0), *each(_overlaps, chunks, jobs)])

    enough = np.flatnonzero(overlap >= THRESHOLDS[0])
    return prediction[enough], truth[enough], overlap[enough]


class _Chunk(NamedTuple):
    """The N pairs of some videos."""

    tubes: TrackPairs
    prediction: np.ndarray  # int [N]
    truth: np.ndarray  # int [N]
    group: np.ndarray  # int [N], video and class
    crowd: np.ndarray  # bool [N], whether the truth is one


def _video_borders(videos: np.ndarray) -> list[int]:
    """Where chunks of whole videos begin, of CHUNK pairs or a little more, and the end; videos rise."""
    begins = np.flatnonzero(np.diff(videos, prepend=-1))
    numbers = np.searchsorted(begins, np.arange(0, len(videos), CHUNK))
    return [*sorted(set(begins[numbers[numbers < len(begins)]].tolist())), len(videos)]


def _table_candidates(
    tables: Sequence[Table],
    predictions: PredictionRows,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same as `_candidates`, from overlaps that are known."""
    first_truth = np.cumsum([0, *(len(table.truth_labels) for table in tables)])
    prediction: list[int] = []
    truth: list[int] = []
    overlap: list[float] = []

    columns = (predictions.video, predictions.track, predictions.label)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for n, (video, track, label) in enumerate(rows):
        table = tables[video]
        enough = table.overlap[track] >= THRESHOLDS[0]
        matching = np.flatnonzero(enough & (table.truth_labels == label))
        prediction += [n] * len(matching)
        truth += (matching + first_truth[video]).tolist()
        overlap += table.overlap[track, matching].tolist()

    return np.array(prediction, np.int64), np.array(truth, np.int64), np.array(overlap)


def _overlaps(chunk: _Chunk) -> np.ndarray:
    """Overlap of each pair where it may decide about a match, else 0; float [N]."""
    tubes = chunk.tubes
    both = np.array([first.pixels + second.pixels for first, second in tubes], np.int64)
    at_most = shared_at_most(tubes, PARTS)
    bound = at_most.sum(1)
    is_possible = bound / np.maximum(both - bound, 1) >= THRESHOLDS[0]
    is_in_turn = is_possible & _have_no_choice(chunk, is_possible)

    shared = np.zeros(len(tubes), np.int64)
    in_full = np.flatnonzero(is_possible & ~is_in_turn)
    shared[in_full] = intersections([tubes[n] for n in in_full.tolist()])

    in_turn = sorted(np.flatnonzero(is_in_turn).tolist(), key=lambda n: tubes[n][1].size)
    chosen = [tubes[n] for n in in_turn]
    shared[in_turn] = compare_in_turn(chosen, chunk.truth[in_turn], at_most[in_turn], LIMITS)
    return np.asarray(shared / np.maximum(both - shared, 1))


def _have_no_choice(chunk: _Chunk, is_possible: np.ndarray) -> np.ndarray:
    """Pairs of groups in which each prediction has one truth at most, and takes it from later ones, bool [N]."""
    num_options = np.bincount(chunk.prediction[is_possible], minlength=1 + chunk.prediction.max(initial=0))
    can_choose = num_options[chunk.prediction] > 1
    choosing_groups = set(chunk.group[can_choose].tolist())  # not np.isin, which imports all of numpy.ma

    no_choice = np.array([group not in choosing_groups for group in chunk.group.tolist()], bool)
    is_short = np.array([can_be_table(truth) for _, truth in chunk.tubes], bool)
    return no_choice & is_short & ~chunk.crowd


# the matching


def _with_ignored_truth(partner: np.ndarray, truths: Truths) -> np.ndarray:
    """Mark predictions that are matched to a truth that does not count, bool [A, 10, D]."""
    if not len(truths.ids):
        return np.zeros_like(partner, bool)
    split = np.arange(len(partner))[:, None, None]
    return (partner >= 0) & truths.outside[split, partner]


def _partners(
    predictions: PredictionRows,
    truths: Truths,
    prediction: np.ndarray,
    truth: np.ndarray,
    overlap: np.ndarray,
) -> np.ndarray:
    """Match candidates, int [A, 10, D]: the truth of each prediction, -1 for none.

    Most predictions have a single candidate. They are matched all at once: of those that share a
    truth, the first one that reaches the threshold. The official loop runs only for the groups
    (video and class) in which a prediction can choose.
    """
    partner = np.full((len(truths.outside), len(THRESHOLDS), len(predictions.video)), -1, np.int64)

    can_choose = np.bincount(prediction, minlength=len(predictions.video))[prediction] > 1
    num_labels = int(predictions.label.max(initial=0)) + 1
    group = predictions.video[prediction] * num_labels + predictions.label[prediction]
    choosing_groups = set(group[can_choose].tolist())  # not np.unique, which imports all of numpy.ma

    simple = np.array([each_group not in choosing_groups for each_group in group.tolist()], bool)
    partner[:, :, prediction[simple]] = _first_come(
        prediction[simple], truth[simple], overlap[simple], truths.crowd, LIMITS
    )

    for each_group in sorted(choosing_groups):
        rows = np.flatnonzero(group == each_group)
        _compete(partner, prediction[rows], truth[rows], overlap[rows], truths, LIMITS)
    return partner


def _first_come(
    prediction: np.ndarray,
    truth: np.ndarray,
    overlap: np.ndarray,
    crowd: np.ndarray,
    limits: np.ndarray,
) -> np.ndarray:
    """Match predictions that have a single candidate each: the truth of each, int [10, N], -1 for none.

    The first prediction that reaches a threshold takes the truth; a crowd is taken by all that reach it.
    """
    order = np.lexsort((prediction, truth))
    sorted_truth = truth[order]
    reaches = overlap[order] >= limits[:, None]  # [10, N]

    number = np.cumsum(reaches, axis=1)  # counts those that reach it, over all truths
    begins = np.searchsorted(sorted_truth, sorted_truth)
    earlier = np.concatenate([np.zeros((len(limits), 1), number.dtype), number], axis=1)[:, begins]
    matched = reaches & ((number - earlier == 1) | crowd[sorted_truth])

    partner = np.empty(matched.shape, np.int64)
    partner[:, order] = np.where(matched, sorted_truth, -1)
    return partner


def _compete(
    partner: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray,
    overlap: np.ndarray,
    truths: Truths,
    limits: np.ndarray,
) -> None:
    """Match the candidates of one video and class; writes into `partner` [A, 10, D]."""
    crowd = dict(zip(truth.tolist(), truths.crowd[truth].tolist(), strict=True))
    computed: dict[tuple[bool, ...], int] = {}  # the first split with these truths outside

    for a, outside in enumerate(truths.outside[:, truth]):
        key = tuple(outside.tolist())
        if key in computed:
            partner[a][:, prediction] = partner[computed[key]][:, prediction]
            continue
        computed[key] = a

        # for each prediction: truths that count before those that do not, each in file order
        is_outside = dict(zip(truth.tolist(), key, strict=True))
        options: dict[int, list[tuple[int, float]]] = {}
        for n in np.lexsort((truth, outside, prediction)):
            option = (int(truth[n]), float(overlap[n]))
            options.setdefault(int(prediction[n]), []).append(option)

        for t, limit in enumerate(limits.tolist()):
            matches = _greedy(options, is_outside, crowd, limit)
            for matched_prediction, matched_truth in matches.items():
                partner[a, t, matched_prediction] = matched_truth


def _greedy(
    options: dict[int, list[tuple[int, float]]],
    is_outside: dict[int, bool],
    crowd: dict[int, bool],
    limit: float,
) -> dict[int, int]:
    """The official matching loop at one threshold: prediction -> truth.

    `options` lists (truth, overlap) for each prediction, in the order in which predictions choose.
    """
    matches: dict[int, int] = {}
    taken: set[int] = set()
    for prediction, candidates in options.items():
        best_overlap = limit
        best_truth = -1
        for truth, overlap in candidates:
            if truth in taken and not crowd[truth]:
                continue
            if best_truth >= 0 and not is_outside[best_truth] and is_outside[truth]:
                break  # a truth that counts is preferred to any that does not
            if overlap >= best_overlap:  # of equal overlaps the later truth is taken
                best_overlap = overlap
                best_truth = truth
        if best_truth >= 0:
            taken.add(best_truth)
            matches[prediction] = best_truth
    return matches
