"""Following an object from a mask that is given, forwards and backwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import tubelet
from tubelet.core import masks
from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Traits, Window
from tubelet.core.records import Prediction
from tubelet.core.types import Clip, Tracks
from tubelet.editing.draft import Draft, reach
from tubelet.editing.session import Editing
from tubelet.inference.following import filled, follow
from tubelet.inference.results import VideoPrediction

SIZE = (24, 40)
LENGTH = 8


def image(t: int) -> np.ndarray:
    """A bright square, 8 pixels wide, that moves to the right by 3 pixels a frame; a second one rests below."""
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[2:10, 3 * t : 3 * t + 8] = 200
    picture[14:22, 10:18] = 200
    return picture


class Nearest:
    """Follows every given object to the bright square nearest to it; its state is the objects' centres."""

    window = Window()
    classes = ("square", "ball")
    traits = Traits(guided=True)
    precision = torch.float32

    def __init__(self) -> None:
        self.given: Tracks | None = None

    def forward(self, clips: list[Clip]) -> dict[str, Tensor]:
        return {}

    def start(self) -> list[tuple[float, float]]:
        return []

    def introduce(self, state: object, clip: Clip, objects: Tracks) -> list[tuple[float, float]]:
        self.given = objects
        return [centre(mask[0]) for mask in objects.masks]

    def step(self, state: list[tuple[float, float]], clip: Clip) -> tuple[list[tuple[float, float]], Tracks]:
        bright = clip.frames[0, 0] > 100
        squares = [bright & half for half in halves()]
        chosen = [min(squares, key=lambda square: distance(centre(square), at)) for at in state]
        tracks = Tracks(
            ids=torch.arange(1, len(state) + 1),
            scores=torch.ones(len(state), 2),
            masks=torch.stack(chosen)[:, None].float(),
            index=clip.index,
        )
        return [centre(mask) for mask in chosen], tracks


def halves() -> tuple[Tensor, Tensor]:
    upper = torch.zeros(SIZE, dtype=torch.bool)
    upper[:12] = True
    return upper, ~upper


def centre(mask: Tensor) -> tuple[float, float]:
    y, x = mask.nonzero().float().mean(0).tolist()
    return x, y


def distance(first: tuple[float, float], second: tuple[float, float]) -> float:
    return float(np.hypot(first[0] - second[0], first[1] - second[1]))


@pytest.fixture
def editing() -> Editing[VideoPrediction]:
    video = tubelet.open_video(np.stack([image(t) for t in range(LENGTH)]))
    return VideoPrediction(
        video="squares", size=SIZE, length=LENGTH, tracks=(), classes=("square", "thing"), source=video
    ).edit()


def drawn(t: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[2:10, 3 * t : 3 * t + 8] = True
    return mask


def test_an_object_is_followed_forwards_and_backwards(editing: Editing[VideoPrediction]) -> None:
    id = editing.add("square", 3, drawn(3))
    for end in (7, 0):
        editing.do(filled(Nearest(), editing.result, id, 3, end))
    followed = editing.result[id]
    assert followed.frames.tolist() == list(range(LENGTH))
    assert all(np.array_equal(followed.mask(t), drawn(t)) for t in range(LENGTH))


def test_the_other_objects_of_the_frame_are_given_too_after_the_followed_one(
    editing: Editing[VideoPrediction],
) -> None:
    editing.add("thing", 2, np.pad(np.ones((8, 8), bool), ((14, 2), (10, 22))))
    id = editing.add("square", 2, drawn(2))
    model = Nearest()
    assert [frame for frame, _ in follow(model, editing.result, id, 2, 4)] == [3, 4]
    assert model.given is not None
    assert np.array_equal(model.given.masks[0, 0].numpy(), drawn(2))
    assert model.given.scores.tolist() == [[1, 0], [0, 0]]  # the model knows no "thing"


def test_progress_counts_the_frames(editing: Editing[VideoPrediction]) -> None:
    id = editing.add("square", 5, drawn(5))
    seen: list[tuple[int, int]] = []
    filled(Nearest(), editing.result, id, 5, 3, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_following_ends_at_cuts_and_before_what_was_drawn(editing: Editing[VideoPrediction]) -> None:
    id = editing.add("square", 3, drawn(3))
    assert reach(editing.draft, (), id, 3) == (0, 7)
    assert reach(editing.draft, (0, 2, 6), id, 3) == (2, 5)
    editing.redraw(id, 5, drawn(5))
    assert reach(editing.draft, (0, 2), id, 3) == (2, 4)
    assert reach(editing.draft, (0, 2), id, 5) == (4, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((9, 3, 5), "no track with the id 9"),
        ((1, 8, 5), "no frame 8; the video has frames 0 to 7"),
        ((1, 3, -1), "no frame -1"),
        ((1, 4, 5), "track 1 has no mask in frame 4"),
    ],
)
def test_what_cannot_be_followed_is_told(
    editing: Editing[VideoPrediction], arguments: tuple[int, int, int], message: str
) -> None:
    editing.add("square", 3, drawn(3))
    with pytest.raises(ConfigError, match=message):
        follow(Nearest(), editing.result, *arguments)


def test_a_model_without_a_memory_is_refused(editing: Editing[VideoPrediction]) -> None:
    id = editing.add("square", 3, drawn(3))
    model = Nearest()
    model.traits = Traits()
    with pytest.raises(ConfigError, match="cannot follow an object that is given"):
        follow(model, editing.result, id, 3, 5)


def test_the_draft_says_what_a_person_drew() -> None:
    mask = masks.encode(drawn(0)[None])[0]
    track = tubelet.Track(id=1, label=0, score=1.0, rles=(mask,) * LENGTH)
    prediction = Prediction(video="v", size=SIZE, length=LENGTH, tracks=(track,), classes=("square",))
    assert not any(entry.drawn for entry in Draft.of(prediction).row(1).entries.values())
