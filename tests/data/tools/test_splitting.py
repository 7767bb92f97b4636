from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.core.errors import ConfigError
from tubelet.data.tools.splitting import split, stratify, subset
from tubelet.formats import ytvis
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import generate, write

SMALL = Synthetic(height=32, width=48, frames=2, objects=(1, 2), size=(0.6, 0.9), classes=("fish", "car", "cat"))


def test_no_video_is_on_both_sides_and_none_is_lost():
    videos = generate(SMALL, 0, 12)
    training, validation = split(videos, 4)
    names = [video.id for video in videos.videos]
    assert len(validation.videos) == 4
    assert sorted([v.id for v in training.videos] + [v.id for v in validation.videos]) == names
    assert [v.id for v in training.videos] == [n for n in names if n in {v.id for v in training.videos}]


def test_every_class_keeps_its_share():
    rng = np.random.default_rng(1)
    frequency = np.array([0.5, 0.3, 0.1, 0.05, 0.02])
    labels = [frozenset(np.flatnonzero(rng.random(5) < frequency).tolist()) for _ in range(2000)]
    held = stratify(labels, 400, seed=0)
    for label in range(5):
        count = sum(label in group for group in labels)
        assert abs(sum(label in labels[n] for n in held) - count / 5) <= 3
    empty = sum(not group for group in labels)
    assert abs(sum(not labels[n] for n in held) - empty / 5) <= 1.5


@given(number=st.integers(1, 29), seed=st.integers(0, 100))
def test_a_split_has_the_size_asked_for_and_repeats_with_its_seed(number, seed):
    labels = [frozenset({n % 3, n % 4}) for n in range(30)]
    held = stratify(labels, number, seed)
    assert len(set(held)) == number
    assert held == sorted(held) == stratify(labels, number, seed)


def test_splits_that_leave_a_side_empty_are_refused():
    videos = generate(SMALL, 0, 3)
    for number in (0, 3, 9):
        with pytest.raises(ConfigError, match="expected to hold out 1 to 2 videos"):
            split(videos, number)


def test_a_split_of_a_file_keeps_names_and_ids(tmp_path):
    write(tmp_path / "set", SMALL, 0, 5)
    videos = ytvis.read(tmp_path / "set" / "instances.json")
    part = subset(videos, [4, 1])
    assert part.names == (videos.names[4], videos.names[1])
    assert part.category_ids == videos.category_ids
    ytvis.write_set(tmp_path / "set" / "val.json", part)
    again = ytvis.read(tmp_path / "set" / "val.json")
    assert {v.id for v in again.videos} == {videos.videos[4].id, videos.videos[1].id}
    assert again.videos[0].frames[0].shape == (3, 32, 48)
