"""The first part of each step in a thread: the same tracks, the same errors, and only where it is of use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from toy import Seen, Toy, moving_patches
from tubelet.core.errors import InputError
from tubelet.core.protocol import Window
from tubelet.core.types import Clip, Tracks
from tubelet.inference.predict import predict

MAIN = threading.main_thread().name


class StagedToy(Toy):
    """Looks at a clip's colours first, and notes where each of its steps was computed, and with how many threads."""

    def __init__(self) -> None:
        super().__init__(shrink=1)
        self.worth_preparing = True
        self.prepared_by: list[tuple[str, int]] = []
        self.whole_steps = 0

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        self.whole_steps += 1
        return super().step(state, clip)

    def prepare(self, clip: Clip) -> Clip:
        assert torch.is_inference_mode_enabled()
        self.prepared_by.append((threading.current_thread().name, torch.get_num_threads()))
        return clip

    def finish(self, state: Seen, clip: Clip, prepared: Clip) -> tuple[Seen, Tracks]:
        assert threading.current_thread().name == MAIN
        assert torch.equal(prepared.index, clip.index)
        return super().step(state, prepared)


@pytest.fixture(params=[2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_steps_are_prepared_by_another_thread_and_give_the_same_tracks(threads: int) -> None:
    video = moving_patches(11)
    model = StagedToy().eval()
    ahead = predict(model, video)
    whole = predict(Toy(shrink=1).eval(), video)
    assert ahead.to_ytvis() == whole.to_ytvis()
    assert model.prepared_by == [("read ahead", 1)] * len(model.steps)
    assert model.whole_steps == 0
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_with_one_thread_nothing_runs_beside(threads: int) -> None:
    model = StagedToy().eval()
    predict(model, moving_patches(3))
    assert (model.prepared_by, model.whole_steps) == ([], 3)


def test_a_model_that_gains_nothing_by_it_is_not_prepared_ahead(threads: int) -> None:
    model = StagedToy().eval()
    model.worth_preparing = False
    predict(model, moving_patches(3))
    assert (model.prepared_by, model.whole_steps) == ([], 3)


class Wrapper(Toy):
    """Does its own step, and hands on what it lacks to another model."""

    def __init__(self, wrapped: StagedToy) -> None:
        super().__init__(shrink=1)
        self.wrapped = [wrapped]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "wrapped" not in self.__dict__:
                raise
            return getattr(self.wrapped[0], name)


def test_a_model_that_hands_on_to_a_staged_one_is_not_prepared_ahead(threads: int) -> None:
    wrapped = StagedToy().eval()
    wrapper = Wrapper(wrapped).eval()
    assert callable(wrapper.prepare)
    assert len(predict(wrapper, moving_patches(3)).tracks) == 2
    assert wrapped.prepared_by == []


class OwnStep(StagedToy):
    """Replaces the step alone."""

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        return super().step(state, clip)


def test_a_subclass_that_replaces_the_step_alone_is_asked_for_its_step(threads: int) -> None:
    model = OwnStep().eval()
    predict(model, moving_patches(3))
    assert (model.prepared_by, model.whole_steps) == ([], 3)


def test_windows_that_may_overlap_are_not_prepared_ahead(threads: int) -> None:
    model = StagedToy().eval()
    predict(model, moving_patches(5), window=Window(length=3, stride=2))
    assert (model.prepared_by, model.whole_steps) == ([], 2)


def test_a_model_in_training_is_not_prepared_ahead(threads: int) -> None:
    model = StagedToy().train()  # a thread would need it in evaluation mode while its user's has it in training mode
    predict(model, moving_patches(3))
    assert (model.prepared_by, model.whole_steps) == ([], 3)


def test_an_error_of_the_preparation_is_the_prediction_s(threads: int) -> None:
    class Broken(StagedToy):
        def prepare(self, clip: Clip) -> Clip:
            if int(clip.index[0]) == 2:
                raise InputError("frame 2 is too dark")
            return super().prepare(clip)

    with pytest.raises(InputError, match="frame 2 is too dark"):
        predict(Broken().eval(), moving_patches(5))


def test_an_error_of_the_last_part_ends_the_thread(threads: int) -> None:
    class Broken(StagedToy):
        def finish(self, state: Seen, clip: Clip, prepared: Clip) -> tuple[Seen, Tracks]:
            raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        predict(Broken().eval(), np.zeros((500, 8, 8, 3), np.uint8))
    assert [thread for thread in threading.enumerate() if thread.name == "read ahead"] == []
