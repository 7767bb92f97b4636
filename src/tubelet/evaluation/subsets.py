"""Parts of a data set reported by themselves: occlusion in OVIS, short and long videos in YouTube-VIS 2022."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from tubelet.core.errors import InputError, nearest
from tubelet.evaluation.pairing import Pair
from tubelet.evaluation.partners import Matches, Split
from tubelet.evaluation.ytvis import curves, numbers

# slightly, moderately and heavily occluded objects
OCCLUSION = {"SO": (-np.inf, 0.25), "MO": (0.25, 0.5), "HO": (0.5, np.inf)}
KEYS = ("AP", "AP50", "AP75", "AR1", "AR10")  # what the 2022 server reports


def occlusion_splits(occlusion: Mapping[tuple[str, int], float]) -> tuple[Split, ...]:
    """Make the splits of slightly, moderately and heavily occluded objects.

    As with area ranges, truths of other degrees are ignored; predictions without a match count in
    every split. This is our reading of the OVIS paper, whose evaluation server is closed.

    Args:
        occlusion: Degree of occlusion, 0 to 0.75, of each (video, track id).

    Example:
        >>> from tubelet.evaluation.subsets import occlusion_splits
        >>> splits = occlusion_splits({("v", 1): 0.1, ("v", 2): 0.7})
        >>> [(split.name, sorted(split.members)) for split in splits]
        [('SO', [('v', 1)]), ('MO', []), ('HO', [('v', 2)])]
    """
    splits = []
    for name, (low, high) in OCCLUSION.items():
        members = frozenset(key for key, degree in occlusion.items() if low < degree <= high)
        splits.append(Split(name, members=members))
    return tuple(splits)


def short_and_long(
    pairs: Collection[Pair],
    matches: Matches,
    long: Collection[str],
) -> dict[str, float]:
    """Measure short videos, long videos, and the mean of both, as YouTube-VIS 2022 ranks results.

    Args:
        pairs: The videos.
        matches: The matches of these videos.
        long: Ids of the long videos; the others are short.

    Returns:
        AP, AP50, AP75, AR1 and AR10, each with `_short`, `_long` and `_mean`; -1 where there is
        nothing to measure.

    Raises:
        InputError: if an id is unknown, or if all or none of the videos are long.

    Example:
        >>> from tubelet.evaluation import pairing, partners, subsets, ytvis
        >>> frames = [torch.zeros(3, 4, 4)]
        >>> videos = [tubelet.Video(id=name, size=(4, 4), frames=frames, tracks=()) for name in "ab"]
        >>> pairs = pairing.pair(videos, [])
        >>> result = subsets.short_and_long(pairs, partners.match(pairs, ytvis.AREAS), long=["b"])
        >>> {key: result[key] for key in ("AP_short", "AP_long", "AP_mean")}
        {'AP_short': -1.0, 'AP_long': -1.0, 'AP_mean': -1.0}
    """
    names = [pair.video for pair in pairs]
    for video in long:
        if video not in names:
            raise InputError(f"no video {video!r} among those to evaluate; {nearest(video, names)}")

    is_long = np.isin(names, list(long))
    if is_long.all() or not is_long.any():
        num_long = int(is_long.sum())
        raise InputError(f"expected short and long videos, got {num_long} long of {len(names)}")

    of_short = numbers(curves(of_videos(matches, ~is_long)))
    of_long = numbers(curves(of_videos(matches, is_long)))
    summary: dict[str, float] = {}
    for key in KEYS:
        values = (of_short[key], of_long[key])
        summary[f"{key}_short"] = of_short[key]
        summary[f"{key}_long"] = of_long[key]
        summary[f"{key}_mean"] = -1.0 if -1 in values else sum(values) / 2
    return summary


def of_videos(matches: Matches, chosen: np.ndarray) -> Matches:
    """Return the matches of some videos only; `chosen` is bool [V].

    Example:
        >>> from tubelet.evaluation.partners import Table, match_tables
        >>> from tubelet.evaluation.subsets import of_videos
        >>> label, score, crowd = np.array([0]), np.array([0.9]), np.array([False])
        >>> table = Table(label, score, label, crowd, np.array([[0.8]]))
        >>> of_videos(match_tables([table, table]), np.array([False, True])).truths.video
        array([1])
    """
    predictions = matches.predictions
    truths = matches.truths
    d = chosen[predictions.video]
    g = chosen[truths.video]
    new_index = np.append(np.cumsum(g) - 1, -1)  # the last entry: a partner of -1, which is none, stays -1

    return Matches(
        splits=matches.splits,
        truths=replace(
            truths,
            video=truths.video[g],
            track=truths.track[g],
            label=truths.label[g],
            ids=truths.ids[g],
            crowd=truths.crowd[g],
            outside=truths.outside[:, g],
        ),
        predictions=replace(
            predictions,
            video=predictions.video[d],
            track=predictions.track[d],
            label=predictions.label[d],
            rank=predictions.rank[d],
            score=predictions.score[d],
        ),
        partner=new_index[matches.partner[..., d]],
        matched=matches.matched[..., d],
        ignored=matches.ignored[..., d],
    )
