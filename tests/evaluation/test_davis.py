from __future__ import annotations

import davis_oracle as oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.errors import FormatError
from tubelet.evaluation import davis
from tubelet.evaluation.davis import LabelledSequence


def maps(rng: np.random.Generator, length: int, size: tuple[int, int], most: int) -> np.ndarray:
    """Label maps of overlapping moving blocks, uint8 [T, H, W]."""
    stack = np.zeros((length, *size), np.uint8)
    for label in rng.permutation(np.arange(1, most + 1)):
        corner, extent, speed = rng.integers(-10, size, 2), rng.integers(1, 40, 2), rng.integers(-4, 5, 2)
        for t, frame in enumerate(stack):
            top, left = corner + t * speed
            frame[max(top, 0) : max(top + extent[0], 0), max(left, 0) : max(left + extent[1], 0)] = label
    return stack


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    size, length = (int(rng.integers(30, 70)), int(rng.integers(30, 90))), int(rng.integers(3, 9))
    objects, proposals = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    truth = maps(rng, length, size, objects)
    truth[0, 0, 0] = objects  # the first frame says how many there are
    answer = np.where(rng.random() < 0.7, np.roll(truth, 2, 2), maps(rng, length, size, proposals)).astype(np.uint8)
    if rng.random() < 0.5:
        truth[:, 5:12, 5:20] = 255
    return truth, answer


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_unsupervised_numbers_equal_the_plain_restatement(seed: int) -> None:
    truth, answer = scene(seed)
    found = davis.evaluate([LabelledSequence("s", truth, answer)])
    assert found == pytest.approx(oracle.summary(oracle.evaluate(truth, answer)), abs=1e-9)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_semi_supervised_numbers_equal_the_plain_restatement(seed: int) -> None:
    truth, answer = scene(seed)
    objects = truth[0][truth[0] != 255].max()
    answer = np.minimum(answer, objects)
    found = davis.evaluate([LabelledSequence("s", truth, answer)], semi_supervised=True)
    assert found == pytest.approx(oracle.summary(oracle.evaluate(truth, answer, semi_supervised=True)), abs=1e-9)


def test_the_tolerance_at_480p_is_eight_pixels() -> None:
    truth, answer = (np.zeros((480, 854), np.uint8) for _ in range(2))
    truth[100:200, 100:200] = 1
    for shift, expected in ((8, 1.0), (9, None)):
        answer[:] = 0
        answer[100:200, 100 + shift : 200 + shift] = 1
        contour = davis.score_frame(truth, answer, 1, 1)[1, 0, 1]
        assert (contour == 1.0) == (expected == 1.0)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_relabelling_proposals_changes_nothing(seed: int) -> None:
    truth, answer = scene(seed)
    order = np.concatenate([[0], 1 + np.random.default_rng(seed).permutation(answer.max())]).astype(np.uint8)
    one, other = (davis.evaluate([LabelledSequence("s", truth, a)]) for a in (answer, order[answer]))
    assert one["J&F"] == pytest.approx(other["J&F"])


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_reversing_time_changes_only_the_sign_of_decay(seed: int) -> None:
    truth, answer = scene(seed)
    truth[-1, 0, 0] = truth[0, 0, 0]
    truth[truth > truth[0, 0, 0]] = 0
    forward = davis.evaluate([LabelledSequence("s", truth, answer)])
    backward = davis.evaluate([LabelledSequence("s", truth[::-1], answer[::-1])])
    for key, value in forward.items():
        if "decay" not in key:
            assert backward[key] == pytest.approx(value)


def test_truth_as_answer_is_perfect_and_objects_are_named_by_the_truth() -> None:
    truth = maps(np.random.default_rng(4), 6, (60, 80), 3)
    truth[0, -1, -3:] = (1, 2, 3)
    order = np.array([0, 3, 1, 2], np.uint8)
    scores = davis.score([LabelledSequence("bear", truth, order[truth])])
    assert davis.numbers(scores)["J&F"] == 1
    assert [(one.sequence, one.object, one.proposal) for one in scores] == [
        ("bear", 1, 3),
        ("bear", 2, 1),
        ("bear", 3, 2),
    ]


def test_an_object_without_a_proposal_scores_where_it_is_absent() -> None:
    truth = np.zeros((4, 20, 20), np.uint8)
    truth[:2, 5:9, 5:9] = 1
    scores = davis.score([LabelledSequence("s", truth, np.zeros_like(truth))])
    assert scores[0].proposal == 0
    assert scores[0].values.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_means_are_over_objects_of_all_sequences_at_once() -> None:
    truth = np.zeros((2, 20, 20), np.uint8)
    truth[:, 2:6, 2:6], truth[:, 12:16, 12:16] = 1, 2
    right, wrong = LabelledSequence("a", truth, truth), LabelledSequence("b", np.minimum(truth, 1), truth * 0)
    assert davis.evaluate([right, wrong])["J"] == pytest.approx(2 / 3)


def test_more_than_twenty_proposals_are_an_error_that_names_the_sequence() -> None:
    truth = np.ones((2, 8, 8), np.uint8)
    answer = truth.copy()
    answer[1, 0, 0] = 21
    with pytest.raises(FormatError, match="sequence bear, frame 1: proposal 21, more than 20"):
        davis.evaluate([LabelledSequence("bear", truth, answer)])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.ones((2, 8, 9), np.uint8), "frame 0: expected an answer of 8x8, got 9x8"),
        (np.ones((1, 8, 8), np.uint8), "different numbers of frames"),
        (np.ones((2, 8, 8), np.uint8), "sequence s: has no frame that counts"),
        (np.full((2, 8, 8), 2, np.uint8), "proposal 2, but the truth has 1 objects"),
    ],
)
def test_what_does_not_fit_is_an_error(answer: np.ndarray, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        davis.evaluate([LabelledSequence("s", np.ones((2, 8, 8), np.uint8), answer)], semi_supervised=True)
