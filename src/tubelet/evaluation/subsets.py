"""Parts of a data set that are reported by themselves: occlusion in OVIS, short and long videos in YouTube-VIS 2022."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from tubelet.core.errors import InputError, nearest
from tubelet.evaluation.pairing import Pair
from tubelet.evaluation.partners import Matches, Split
from tubelet.evaluation.ytvis import curves, numbers

OCCLUSION = {"SO": (-np.inf, 0.25), "MO": (0.25, 0.5), "HO": (0.5, np.inf)}  # slightly, moderately, heavily occluded
KEYS = ("AP", "AP50", "AP75", "AR1", "AR10")  # what the 2022 server reports


def occlusion_splits(occlusion: Mapping[tuple[str, int], float]) -> tuple[Split, ...]:
    """The truths of each degree of occlusion, from the degrees (0 to 0.75) of (video, track).

    The others are ignored, as those of another area are; predictions that match no truth count in every split. Our
    reading of the OVIS paper, whose evaluation server is closed.
    """
    return tuple(
        Split(name, members=frozenset(key for key, degree in occlusion.items() if low < degree <= high))
        for name, (low, high) in OCCLUSION.items()
    )


def short_and_long(pairs: Collection[Pair], matches: Matches, long: Collection[str]) -> dict[str, float]:
    """Numbers of short and of long videos by themselves, and their mean, as YouTube-VIS 2022 ranks them.

    `long` holds ids of videos. Raises InputError for one that is not there, and where all or none are long.
    """
    names = [one.video for one in pairs]
    for video in long:
        if video not in names:
            raise InputError(f"no video {video!r} among those to evaluate; {nearest(video, names)}")
    is_long = np.isin(names, list(long))
    if is_long.all() or not is_long.any():
        raise InputError(f"expected short and long videos, got {int(is_long.sum())} long of {len(names)}")
    summary: dict[str, float] = {}
    parts = {
        "short": numbers(curves(of_videos(matches, ~is_long))),
        "long": numbers(curves(of_videos(matches, is_long))),
    }
    for key in KEYS:
        values = [part[key] for part in parts.values()]
        summary |= {f"{key}_{name}": part[key] for name, part in parts.items()}
        summary[f"{key}_mean"] = -1.0 if -1 in values else sum(values) / 2
    return summary


def of_videos(matches: Matches, kept: np.ndarray) -> Matches:
    """Only the videos that are `kept`, bool [V]."""
    guesses, truths = matches.guesses, matches.truths
    d, g = kept[guesses.video], kept[truths.video]
    number = np.append(np.cumsum(g) - 1, -1)  # no partner stays none
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
        guesses=replace(
            guesses,
            video=guesses.video[d],
            track=guesses.track[d],
            label=guesses.label[d],
            rank=guesses.rank[d],
            score=guesses.score[d],
        ),
        partner=number[matches.partner[..., d]],
        found=matches.found[..., d],
        ignored=matches.ignored[..., d],
    )
