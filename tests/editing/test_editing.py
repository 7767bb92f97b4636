"""Editing a result by hand: every verb, undo and redo, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core import masks
from tubelet.core.errors import ConfigError, FormatError
from tubelet.core.records import Prediction, Track
from tubelet.editing import edits
from tubelet.editing.session import Editing
from tubelet.formats.ytvis import write_predictions

SIZE = (8, 10)
LENGTH = 6


def square(x: int, y: int = 0, side: int = 3) -> masks.RLE:
    mask = np.zeros((1, *SIZE), bool)
    mask[0, y : y + side, x : x + side] = True
    return masks.encode(mask)[0]


def track(id: int, frames: range, label: int = 0, x: int = 0) -> Track:
    rles = tuple(square(x) if t in frames else None for t in range(LENGTH))
    return Track(id=id, label=label, score=0.5 + id / 100, rles=rles)


def result(*tracks: Track) -> Prediction:
    return Prediction(video="pets", size=SIZE, length=LENGTH, tracks=tracks, classes=("dog", "cat"))


def frames_of(editing: Editing[Prediction], id: int) -> list[int]:
    return editing.result[id].frames.tolist()


# verbs


def test_a_deleted_track_is_gone_and_the_original_is_as_it_was() -> None:
    original = result(track(1, range(6)), track(2, range(6)))
    editing = Editing(original)
    editing.delete(1)
    assert editing.result.ids == (2,)
    assert original.ids == (1, 2)


def test_a_span_of_a_track_is_deleted_with_both_ends() -> None:
    editing = Editing(result(track(1, range(6))))
    editing.delete(1, first=2, last=3)
    assert frames_of(editing, 1) == [0, 1, 4, 5]


def test_a_track_without_masks_left_is_gone() -> None:
    editing = Editing(result(track(1, range(2, 4))))
    editing.delete(1, first=2)
    assert editing.result.ids == ()


def test_wrong_tracks_at_one_place_are_deleted_together() -> None:
    sign = [track(1, range(2), x=0), track(6, range(3, 6), x=0)]
    others = [track(2, range(6), x=6), track(3, range(6), label=1, x=0)]
    editing = Editing(result(*sign, *others))
    editing.delete_alike(1)
    assert editing.result.ids == (2, 3)


def test_two_parts_of_one_object_become_one_track() -> None:
    editing = Editing(result(track(1, range(2)), track(2, range(4, 6), label=1)))
    editing.merge(1, 2)
    (merged,) = editing.result.tracks
    assert (merged.id, merged.label, merged.frames.tolist()) == (1, 0, [0, 1, 4, 5])


@pytest.mark.parametrize(("prefer", "x"), [(1, 0), (2, 6)])
def test_the_preferred_track_keeps_its_masks_where_both_are_present(prefer: int, x: int) -> None:
    editing = Editing(result(track(1, range(4), x=0), track(2, range(3, 6), x=6)))
    editing.merge(1, 2, prefer=prefer)
    assert editing.result[1].rles[3] == square(x)
    assert frames_of(editing, 1) == list(range(6))


def test_a_merge_of_tracks_that_overlap_asks_which_wins() -> None:
    editing = Editing(result(track(1, range(4)), track(2, range(3, 6))))
    with pytest.raises(ConfigError, match=r"both present in 1 frames \(from 3\); .* prefer=1 or prefer=2"):
        editing.merge(1, 2)
    assert editing.edits == ()


def test_a_split_gives_the_second_part_a_new_id() -> None:
    editing = Editing(result(track(1, range(6)), track(5, range(6))))
    new = editing.split(1, at=2)
    assert new == 6
    assert frames_of(editing, 1) == [0, 1]
    assert frames_of(editing, 6) == [2, 3, 4, 5]
    assert editing.result[6].score == editing.result[1].score


def test_an_id_is_never_used_twice_even_after_undo() -> None:
    editing = Editing(result(track(1, range(6))))
    first = editing.split(1, at=2)
    editing.undo()
    assert editing.split(1, at=3) != first


def test_identities_are_swapped_from_a_frame_on() -> None:
    editing = Editing(result(track(1, range(6), x=0), track(2, range(6), x=6)))
    editing.swap(1, 2, first=3)
    assert editing.result[1].rles == (square(0),) * 3 + (square(6),) * 3
    assert editing.result[2].rles == (square(6),) * 3 + (square(0),) * 3


def test_a_new_class_name_joins_the_classes() -> None:
    editing = Editing(result(track(1, range(6))))
    editing.rename(1, "goat")
    assert editing.result.classes == ("dog", "cat", "goat")
    assert editing.result[1].label == 2
    assert editing.original.classes == ("dog", "cat")


def test_an_outline_is_drawn_as_a_polygon_a_mask_or_an_rle() -> None:
    editing = Editing(result(track(1, range(6))))
    mask = np.zeros(SIZE, bool)
    mask[2:5, 2:6] = True
    editing.redraw(1, 0, mask)
    editing.redraw(1, 1, [(2, 2), (6, 2), (6, 5), (2, 5)])
    editing.redraw(1, 2, masks.encode(mask[None])[0])
    assert all(np.array_equal(editing.result[1].mask(t), mask) for t in range(3))


def test_an_added_object_has_a_score_of_one() -> None:
    editing = Editing(result(track(1, range(6))))
    id = editing.add("cat", 4, [(2, 2), (6, 2), (6, 5)])
    added = editing.result[id]
    assert (added.label, added.score, added.frames.tolist()) == (1, 1.0, [4])


def test_what_a_model_found_does_not_replace_what_a_person_drew() -> None:
    editing = Editing(result(track(1, range(6), x=0)))
    editing.redraw(1, 4, [(2, 2), (6, 2), (6, 5)])
    drawn = editing.result[1].rles[4]
    found = {2: square(5), 4: square(6)}
    editing.do(edits.Fill(track=1, first=1, last=5, found=found))
    assert editing.result[1].rles == (square(0), None, square(5), None, drawn, None)


# undo and redo


def test_undo_gives_back_and_redo_does_again() -> None:
    editing = Editing(result(track(1, range(6)), track(2, range(6))))
    editing.delete(1)
    editing.rename(2, "cat")
    after = editing.result
    assert editing.undo() == edits.Rename(track=2, name="cat")
    editing.undo()
    assert editing.result is editing.original
    assert editing.undo() is None
    editing.redo()
    editing.redo()
    assert editing.redo() is None
    assert editing.result == after


def test_a_new_edit_ends_what_could_be_redone() -> None:
    editing = Editing(result(track(1, range(6))))
    editing.delete(1)
    editing.undo()
    editing.rename(1, "cat")
    assert editing.redo() is None


verb = st.one_of(
    st.builds(edits.Delete, track=st.integers(1, 6), first=st.integers(0, 7), last=st.none() | st.integers(7, 9)),
    st.builds(edits.Delete, track=st.integers(1, 6), first=st.integers(0, 2), last=st.integers(2, 5)),
    st.builds(edits.DeleteAlike, track=st.integers(1, 6)),
    st.builds(edits.Merge, track=st.integers(1, 6), other=st.integers(1, 6), prefer=st.none() | st.integers(1, 6)),
    st.builds(edits.SplitTrack, track=st.integers(1, 6), at=st.integers(0, 7), new=st.integers(4, 7)),
    st.builds(edits.Swap, track=st.integers(1, 6), other=st.integers(1, 6), first=st.integers(0, 6)),
    st.builds(edits.Rename, track=st.integers(1, 6), name=st.sampled_from(["dog", "cat", "goat"])),
    st.builds(edits.Redraw, track=st.integers(1, 6), frame=st.integers(0, 6), mask=st.just(square(4))),
    st.builds(edits.Add, new=st.integers(3, 8), name=st.just("cow"), frame=st.integers(0, 6), mask=st.just(square(2))),
    st.builds(
        edits.Fill,
        track=st.integers(1, 6),
        first=st.integers(0, 3),
        last=st.integers(3, 5),
        found=st.dictionaries(st.integers(0, 5), st.just(square(5)), max_size=4),
    ),
)


def written(folder: Path, prediction: Prediction) -> bytes:
    write_predictions(folder / "p.json", [prediction])
    return (folder / "p.json").read_bytes()


@settings(deadline=None, max_examples=60)
@given(done=st.lists(verb, max_size=12))
def test_any_edits_undone_give_the_bytes_of_the_original(
    tmp_path_factory: pytest.TempPathFactory, done: list[edits.Edit]
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    original = result(track(1, range(6)), track(2, range(2, 5), label=1, x=5), track(3, range(1)))
    before = written(folder, original)
    editing = Editing(original)
    for edit in done:
        try:
            editing.do(edit)
        except ConfigError:
            continue

    after = written(folder, editing.result)
    editing.save(folder / "edits.json")
    again = Editing(original)
    again.load(folder / "edits.json")
    assert written(folder, again.result) == after

    while editing.undo() is not None:
        pass
    assert written(folder, editing.result) == before
    while editing.redo() is not None:
        pass
    assert written(folder, editing.result) == after


@settings(deadline=None, max_examples=60)
@given(done=st.lists(verb, max_size=12))
def test_no_mask_is_lost_but_by_a_verb_that_says_so(done: list[edits.Edit]) -> None:
    """Splits, swaps, renames, additions and merges of tracks apart in time leave every mask in its frame."""
    keeping = (edits.SplitTrack, edits.Swap, edits.Rename, edits.Add, edits.Merge)
    editing = Editing(result(track(1, range(6)), track(2, range(2, 5), label=1, x=5), track(3, range(1))))
    for edit in done:
        before = [sum(t.rles[k] is not None for t in editing.result) for k in range(LENGTH)]
        try:
            editing.do(edit)
        except ConfigError:
            continue
        after = [sum(t.rles[k] is not None for t in editing.result) for k in range(LENGTH)]
        if isinstance(edit, keeping) and not (isinstance(edit, edits.Merge) and edit.prefer is not None):
            extra = [int(isinstance(edit, edits.Add) and edit.frame == k) for k in range(LENGTH)]
            assert after == [n + more for n, more in zip(before, extra, strict=True)]


# files


def test_edits_are_stored_and_done_again(tmp_path: Path) -> None:
    original = result(track(1, range(6)), track(2, range(6)))
    editing = Editing(original)
    editing.split(1, at=3)
    editing.redraw(2, 0, square(4))
    editing.see([0, 3])
    editing.save(tmp_path / "edits.json")

    again = Editing(original)
    again.load(tmp_path / "edits.json")
    assert again.result == editing.result
    assert again.seen == {0, 3}
    assert again.split(2, at=2) == 4  # 3 is taken


def test_edits_of_another_result_are_refused(tmp_path: Path) -> None:
    Editing(result(track(1, range(6)))).save(tmp_path / "edits.json")
    with pytest.raises(FormatError, match="the edits of another result than pets"):
        Editing(result(track(1, range(5)))).load(tmp_path / "edits.json")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"kind": "fly"}, "unknown kind 'fly'"),
        ({"kind": "delete", "track": "x"}, "track"),
        ({"kind": "redraw", "track": 1, "frame": 0, "mask": {"size": [8, 10], "counts": "0"}}, "mask"),
        ({"kind": "redraw", "track": 1, "frame": 0, "mask": {"size": [10**9, 10**9], "counts": []}}, "mask"),
        ({"kind": "redraw", "track": 1, "frame": 0, "mask": [[1, 2, 3, 4, 5, 6]]}, "mask"),
        ({"kind": "redraw", "track": 1, "frame": 0, "mask": {"size": [8], "counts": "0"}}, "mask"),
        ({"kind": "redraw", "track": 1, "frame": 0, "mask": {"size": [8, 10], "polygon": [[1, 1], [5, 5]]}}, "three"),
        ({"kind": "redraw", "track": 1, "frame": 0, "mask": {"size": [8, 10], "polygon": "all"}}, "list of points"),
    ],
)
def test_a_file_of_other_content_is_refused(tmp_path: Path, edit: object, message: str) -> None:
    path = tmp_path / "edits.json"
    Editing(result(track(1, range(6)))).save(path)
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "edits": [edit]}))
    with pytest.raises(FormatError, match=message):
        Editing(result(track(1, range(6)))).load(path)


def test_a_polygon_in_a_file_is_the_mask_that_a_script_draws() -> None:
    corners = [(2.0, 2.0), (6.0, 2.0), (6.0, 5.0)]
    script = Editing(result(track(1, range(6))))
    script.redraw(1, 0, corners)
    mask = {"size": list(SIZE), "polygon": [list(corner) for corner in corners]}
    read = edits.Edit.read({"kind": "redraw", "track": 1, "frame": 0, "mask": mask})
    assert (read,) == script.edits


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (edits.Delete(track=3), "delete 3"),
        (edits.Delete(track=3, first=5), "delete 3 from frame 5"),
        (edits.Delete(track=3, first=5, last=5), "delete 3 in frame 5"),
        (edits.DeleteAlike(track=3), "delete 3 and all alike"),
        (edits.Merge(track=3, other=7), "merge 3 and 7"),
        (edits.SplitTrack(track=3, at=5, new=8), "split 3 at frame 5"),
        (edits.Swap(track=3, other=7, first=5, last=9), "swap 3 and 7 in frames 5 to 9"),
        (edits.Rename(track=3, name="goat"), "rename 3 to goat"),
        (edits.Redraw(track=3, frame=5, mask=square(0)), "redraw 3 in frame 5"),
        (edits.Add(new=8, name="cow", frame=5, mask=square(0)), "add cow 8 in frame 5"),
        (edits.Fill(track=3, first=5, last=9, found={}), "follow 3 in frames 5 to 9"),
    ],
)
def test_an_edit_says_what_it_does_and_is_read_again(edit: edits.Edit, words: str) -> None:
    assert str(edit) == words
    assert edits.Edit.read(edit.model_dump(mode="json")) == edit


def test_a_draft_knows_what_an_edit_changed() -> None:
    editing = Editing(result(track(1, range(6)), track(2, range(6)), track(3, range(6))))
    before = editing.draft
    editing.swap(1, 3, first=2)
    editing.delete(2)
    assert editing.draft.changed(before) == [1, 3]
    assert before.changed(editing.draft) == [1, 2, 3]
    editing.undo()
    editing.undo()
    assert editing.draft.changed(editing.unedited) == []


# what does not fit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edits.Delete(track=9), r"no track with the id 9; ids: \[1, 2\]"),
        (edits.Delete(track=1, first=6), "a frame"),
        (edits.Merge(track=1, other=1), "two tracks to merge"),
        (edits.Merge(track=1, other=2, prefer=5), "expected 1 or 2, got 5"),
        (edits.SplitTrack(track=1, at=0, new=3), "nothing to split"),
        (edits.SplitTrack(track=1, at=3, new=2), "id 2 is taken"),
        (edits.Swap(track=1, other=1), "two tracks to swap"),
        (edits.Redraw(track=1, frame=6, mask=square(0)), "a frame"),
        (edits.Redraw(track=1, frame=0, mask=masks.encode(np.ones((1, 4, 4), bool))[0]), r"size \[8, 10\]"),
        (edits.Redraw(track=1, frame=0, mask=masks.encode(np.zeros((1, *SIZE), bool))[0]), "an empty one"),
        (edits.Add(new=2, name="dog", frame=0, mask=square(0)), "id 2 is taken"),
        (edits.Fill(track=1, first=2, last=3, found={4: square(0)}), "outside the span"),
    ],
)
def test_an_edit_that_does_not_fit_changes_nothing(edit: edits.Edit, message: str) -> None:
    editing = Editing(result(track(1, range(6)), track(2, range(6))))
    with pytest.raises(ConfigError, match=message):
        editing.do(edits.Rename(track=1, name="cat"), edit)
    assert editing.result is editing.original
    assert editing.edits == ()


def test_an_outline_of_two_points_or_outside_the_frame_is_refused() -> None:
    editing = Editing(result(track(1, range(6))))
    with pytest.raises(ConfigError, match="three points"):
        editing.redraw(1, 0, [(0, 0), (5, 5)])
    with pytest.raises(FormatError, match="near the frame"):
        editing.redraw(1, 0, [(100, 100), (110, 100), (110, 120)])
    with pytest.raises(ConfigError, match="an empty one"):
        editing.redraw(1, 0, [(20, 20), (25, 20), (25, 25)])
    with pytest.raises(ConfigError, match=r"got \[4, 4\]"):
        editing.redraw(1, 0, np.ones((4, 4), bool))


def test_a_result_with_one_id_twice_is_not_edited() -> None:
    with pytest.raises(ConfigError, match="two tracks have one id"):
        Editing(result(track(1, range(6)), track(1, range(6))))
