"""Two answers of one video: an object with its best class for people, pairs of object and class for benchmarks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from toy import Seen, Toy, moving_patches
from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Traits, Window
from tubelet.core.types import Clip, Tracks
from tubelet.inference.predict import predict, stream
from tubelet.inference.stitch import Stitcher
from tubelet.inference.tallies import Ledger, Tally


def window(scores: list[list[float]], ids: list[int], start: int = 0, length: int = 1) -> Tracks:
    masks = torch.ones(len(ids), length, 2, 2)
    index = torch.arange(start, start + length)
    return Tracks(ids=torch.tensor(ids), scores=torch.tensor(scores), masks=masks, index=index)


def written(*windows: Tracks, length: int) -> Ledger:
    ledger, stitcher = Ledger(), Stitcher((2, 2))
    for one in windows:
        ledger.add_window(one)
        stitcher.add(one)
    for frame in stitcher.release(length):
        ledger.add(frame)
    return ledger


def test_the_best_pairs_come_in_falling_order_and_one_object_may_come_twice() -> None:
    ledger = written(window([[0.9, 0.6, 0.1], [0.2, 0.7, 0.3]], [4, 8]), length=1)
    found = [(track.id, track.label, round(track.score, 6)) for track in ledger.pairs(1, 4)]
    assert found == [(4, 0, 0.9), (8, 1, 0.7), (9, 1, 0.6), (10, 2, 0.3)]


def test_there_are_no_more_pairs_than_objects_times_classes() -> None:
    assert len(written(window([[0.9, 0.6]], [0]), length=1).pairs(1, 10)) == 2


def test_equal_pairs_come_in_the_order_of_id_and_class() -> None:
    ledger = written(window([[0.5, 0.5], [0.5, 0.5]], [3, 1]), length=1)
    assert [(track.id, track.label) for track in ledger.pairs(1, 3)] == [(1, 0), (4, 1), (3, 0)]


def test_probabilities_are_means_over_the_windows_that_hold_the_object() -> None:
    long, short = window([[0.9, 0.0]], [0], length=3), window([[0.1, 0.4], [0.3, 0.2]], [0, 1], start=3)
    ledger = written(long, short, length=4)
    found = {(track.id, track.label): track.score for track in ledger.pairs(4, 10)}
    assert found == pytest.approx({(0, 0): 0.5, (2, 1): 0.2, (1, 0): 0.3, (3, 1): 0.2}, abs=1e-6)
    (first, second) = ledger.tracks(4, vote="mean")
    assert (first.label, second.label) == (0, 0)
    assert (first.score, second.score) == pytest.approx((0.5, 0.3), abs=1e-6)
    assert ledger.tracks(4)[0].score == pytest.approx((3 * 0.9 + 0.4) / 4, abs=1e-6)  # the other rule: over frames


def test_the_best_mean_may_be_a_class_that_no_window_says() -> None:
    tally = Tally()
    for scores in ([0.5, 0.0, 0.45], [0.0, 0.5, 0.45]):
        tally.add_window(np.array(scores))
        tally.add(np.array(scores))
    assert tally.verdict("mean") == (2, 0.45)
    assert tally.verdict("majority") == (0, 0.5)


def test_an_object_without_pixels_is_in_neither_answer() -> None:
    empty = window([[0.9, 0.1]], [0])
    empty.masks.zero_()
    ledger = written(empty, length=1)
    assert ledger.tracks(1, vote="mean") == ledger.pairs(1, 10) == ()


# through predict


def test_predict_gives_pairs_where_asked_whatever_the_threshold() -> None:
    video = moving_patches(3)
    pairs = predict(Toy(confidence=0.7), video, top=5, threshold=0.99)
    assert len(pairs.tracks) == 5
    assert [track.score for track in pairs.tracks] == pytest.approx([0.7, 0.7, 0.1, 0.1, 0.1])
    assert {track.id for track in pairs.tracks[:2]} == {0, 1}
    best = {track.id: track for track in predict(Toy(confidence=0.7), video).tracks}
    assert all(track.rles == best[track.id].rles for track in pairs.tracks[:2])
    assert all(track.rles in [other.rles for other in best.values()] for track in pairs.tracks)


def test_no_two_tracks_of_a_prediction_share_an_id() -> None:
    pairs = predict(Toy(confidence=0.7), moving_patches(3), top=20)
    ids = [track.id for track in pairs.tracks]
    assert len(set(ids)) == len(ids) > 2
    for t in range(3):
        assert len(pairs.at(t).ids.unique()) == len(pairs.at(t).ids)


@pytest.mark.parametrize("top", [0, -3])
def test_a_top_that_asks_for_nothing_is_refused(top: int) -> None:
    with pytest.raises(ConfigError, match="top: expected a whole number of at least 1"):
        predict(Toy(), moving_patches(1), top=top)


class Learns(Toy):
    """Less sure in its second window than in the first."""

    traits = Traits(vote="mean")

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        state, tracks = super().step(state, clip)
        return state, replace(tracks, scores=tracks.scores / (1 + int(clip.index[0] > 0)))


def test_a_stream_shows_the_mean_over_the_windows_so_far() -> None:
    model = Learns(Window(length=2, stride=2), confidence=0.8)
    frames = list(stream(model, moving_patches(4, colours=("red",)), threshold=0))
    assert [frame.scores.tolist() for frame in frames] == [pytest.approx([s]) for s in (0.8, 0.8, 0.6, 0.6)]
    assert predict(model, moving_patches(4, colours=("red",))).tracks[0].score == pytest.approx(0.6)


# the rule for overlapping windows


def stitched(average: str, *rows: list[float], size: tuple[int, int] = (1, 3)) -> Tensor:
    stitcher = Stitcher(size, average)  # type: ignore[arg-type]
    for row in rows:
        mask = torch.tensor(row).reshape(1, 1, 1, -1)
        stitcher.add(Tracks(ids=torch.tensor([0]), scores=torch.ones(1, 2), masks=mask, index=torch.tensor([0])))
    (frame,) = stitcher.release(1)
    return torch.from_numpy(frame.masks[0, 0]) if len(frame.ids) else torch.zeros(size[1], dtype=torch.bool)


@pytest.mark.parametrize(
    ("windows", "probabilities", "logits"),
    [
        ((0.45, 0.45, 0.9), True, True),
        ((0.3, 0.3, 0.8), False, False),
        ((0.3, 0.3, 0.95), True, True),
        ((0.99, 0.2, 0.2), False, True),  # logits 4.6, -1.4, -1.4: one that is sure outvotes two that doubt
        ((0.01, 0.8, 0.75), True, False),
    ],
)
def test_a_model_chooses_whether_probabilities_or_logits_are_averaged(
    windows: tuple[float, ...], probabilities: bool, logits: bool
) -> None:
    rows = [[value] for value in windows]
    assert stitched("probabilities", *rows, size=(1, 1)).tolist() == [probabilities]
    assert stitched("logits", *rows, size=(1, 1)).tolist() == [logits]


def test_a_model_s_own_rule_is_the_one_that_predict_follows() -> None:
    class Sure(Toy):
        """The object's masks have a probability of 0.99 in the first window that holds a frame and of 0.2 after it."""

        def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
            state, tracks = super().step(state, clip)
            first = clip.index == (clip.index[-1] if int(clip.index[0]) else -1)
            level = torch.where(first | (clip.index[0] == 0), 0.99, 0.2)[None, :, None, None]
            return state, replace(tracks, masks=tracks.masks * level)

    model = Sure(Window(length=3), shrink=1)
    video = moving_patches(5, colours=("red",))
    assert predict(model, video).tracks[0].rles.count(None) == 1  # frame 2, of which one window in three is sure
    model.traits = Traits(average="logits")
    assert predict(model, video).tracks[0].rles.count(None) == 0


def test_logits_are_what_is_resized() -> None:
    """Between a sure cell and a doubtful one, the sure one reaches farther in logits than in probabilities."""
    row = [0.98, 0.98, 0.3, 0.3]  # logits 3.9 and -0.8
    between = torch.nn.functional.interpolate(torch.logit(torch.tensor([[row]])), 64, mode="linear")[0, 0] > 0
    assert torch.equal(stitched("logits", row, size=(1, 64)), between)
    assert int(stitched("probabilities", row, size=(1, 64)).sum()) < int(between.sum())


def test_saturated_masks_stay_finite() -> None:
    assert stitched("logits", [1.0, 0.0, 1.0], [1.0, 0.0, 0.0]).tolist() == [True, False, False]
    assert stitched("logits", [float("nan"), 1.0, 0.0]).tolist() == [False, True, False]


def test_binary_masks_may_be_averaged_as_logits() -> None:
    stitcher = Stitcher((1, 2), "logits")
    for value in (True, True, False):
        mask = torch.tensor([True, value]).reshape(1, 1, 1, 2)
        stitcher.add(Tracks(ids=torch.tensor([0]), scores=torch.ones(1, 2), masks=mask, index=torch.tensor([0])))
    (frame,) = stitcher.release(1)
    assert frame.masks[0, 0].tolist() == [True, True]


def test_an_object_that_one_spread_neighbour_lacks_fades_halfway_in_logits_too() -> None:
    here = Tracks(
        ids=torch.tensor([7]), scores=torch.ones(1, 2), masks=torch.full((1, 1, 2, 2), 0.8), index=torch.tensor([0])
    )
    stitcher = Stitcher((2, 2), "logits")
    stitcher.add(here)
    stitcher.add(Tracks.empty(torch.tensor([4]), 2, (2, 2)))
    assert [frame.ids.tolist() for frame in stitcher.release(5)] == [[7], [7], [], [], []]
