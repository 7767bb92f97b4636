"""An object that has left must not rest on what looks a little like it, nor take over whoever comes by."""

from __future__ import annotations

from collections.abc import Callable

from tubelet.core.types import Clip
from tubelet.models.rcnn.model import MaskTrackRCNN

Follow = Callable[..., tuple[MaskTrackRCNN, Clip]]

PLACE = (10.0, 10.0, 40.0, 50.0)
PERSON = [(PLACE, 0, 0.9)]
SIGN = [(PLACE, 0, 0.05)]  # a weak detection where the person was
BIRTH = ("association.birth=0.3", "association.leash=0.4")


def last_ids(model: MaskTrackRCNN, clip: Clip) -> list[list[int]]:
    """Ids present in each frame."""
    _, tracks = model.step(model.start(), clip)
    present = tracks.present
    return [tracks.ids[present[:, t]].tolist() for t in range(len(clip))]


def test_weak_detections_alone_keep_an_object_for_a_while_only(follow: Follow) -> None:
    frames = [PERSON, *[SIGN] * 6]
    assert last_ids(*follow(*frames, overrides=BIRTH)) == [[1]] * 7
    patient = (*BIRTH, "association.weak_keep=3")
    assert last_ids(*follow(*frames, overrides=patient)) == [[1]] * 4 + [[]] * 3


def test_whoever_comes_by_later_is_somebody_else(follow: Follow) -> None:
    frames = [PERSON, *[SIGN] * 6, PERSON]
    assert last_ids(*follow(*frames, overrides=BIRTH))[-1] == [1]
    assert last_ids(*follow(*frames, overrides=(*BIRTH, "association.weak_keep=3")))[-1] == [2]


def test_a_sure_detection_starts_the_while_again(follow: Follow) -> None:
    frames = [PERSON, SIGN, SIGN, PERSON, SIGN, SIGN, SIGN]
    assert last_ids(*follow(*frames, overrides=(*BIRTH, "association.weak_keep=3"))) == [[1]] * 7
