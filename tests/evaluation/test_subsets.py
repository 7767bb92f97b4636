from __future__ import annotations

import numpy as np
import pytest
from rectangles import scene, track

from tubelet.core.errors import InputError
from tubelet.core.types import Prediction, Video
from tubelet.evaluation import ytvis
from tubelet.evaluation.pairing import pair
from tubelet.evaluation.partners import match
from tubelet.evaluation.subsets import occlusion_splits, of_videos, short_and_long

A, B, C = (5, 5, 12, 12), (30, 5, 12, 12), (55, 40, 12, 12)


def two_videos() -> tuple[list[Video], list[Prediction]]:
    """In the first both objects are found, in the second one of two, after a false one."""
    one = scene([track(1, [A]), track(2, [B])], [track(1, [A]), track(2, [B])], "short")
    other = scene([track(3, [A]), track(4, [B])], [track(1, [A], score=0.8), track(2, [C], score=0.95)], "long")
    return one[0] + other[0], one[1] + other[1]


def test_short_and_long_videos_are_measured_by_themselves_and_averaged() -> None:
    videos, guesses = two_videos()
    pairs = pair(videos, guesses)
    found = short_and_long(pairs, match(pairs, ytvis.AREAS), {"long"})
    for n, name in enumerate(("short", "long")):
        alone = ytvis.evaluate(videos[n : n + 1], guesses[n : n + 1])
        for key in ("AP", "AP50", "AP75", "AR1", "AR10"):
            assert found[f"{key}_{name}"] == alone[key]
    assert found["AP_mean"] == pytest.approx((found["AP_short"] + found["AP_long"]) / 2)
    assert found["AP_long"] < found["AP_short"]


@pytest.mark.parametrize(
    ("long", "message"),
    [({"other"}, "no video 'other'"), ({"long", "short"}, "got 2 long of 2"), (set(), "got 0 long")],
)
def test_lists_of_long_videos_that_do_not_fit_are_errors(long: set[str], message: str) -> None:
    pairs = pair(*two_videos())
    with pytest.raises(InputError, match=message):
        short_and_long(pairs, match(pairs, ytvis.AREAS), long)


def test_leaving_no_video_out_changes_nothing() -> None:
    pairs = pair(*two_videos())
    matches = match(pairs, ytvis.AREAS)
    again = of_videos(matches, np.ones(2, bool))
    assert ytvis.numbers(ytvis.curves(again)) == ytvis.numbers(ytvis.curves(matches))
    assert (again.partner == matches.partner).all()


def test_occlusion_splits_count_only_their_objects() -> None:
    videos, guesses = two_videos()
    pairs = pair(videos, guesses)
    occlusion = {("short", 1): 0.0, ("short", 2): 0.25, ("long", 3): 0.3, ("long", 4): 0.75}
    splits = (ytvis.AREAS[0], *occlusion_splits(occlusion))
    numbers = ytvis.numbers(ytvis.curves(match(pairs, splits)))
    # the false track counts everywhere; predictions matched to objects of another degree do not
    assert numbers["AR_SO"] == pytest.approx(1)
    assert numbers["AP_SO"] == pytest.approx(2 / 3)
    assert numbers["AR_MO"] == pytest.approx(1)
    assert numbers["AP_MO"] == pytest.approx(0.5)
    assert numbers["AP_HO"] == 0
