from __future__ import annotations

import os
import signal
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_training import ToyClips

from tubelet.core.errors import InputError
from tubelet.core.types import Clip
from tubelet.training.distributed import Processes
from tubelet.training.loading import numbers, read


def world(rank: int = 0, size: int = 1) -> Processes:
    return Processes(rank=rank, size=size, device=torch.device("cpu"))


@given(
    first=st.integers(0, 1000),
    size=st.integers(1, 4),
    batch_size=st.integers(1, 4),
    accumulate=st.integers(1, 3),
    steps=st.integers(0, 5),
)
def test_each_step_takes_the_next_clips_once_however_they_are_shared(first, size, batch_size, accumulate, steps):
    shares = [numbers(first, steps * accumulate, batch_size, world(rank, size)) for rank in range(size)]
    per_step = batch_size * accumulate * size
    for step in range(steps):
        batches = [batch for share in shares for batch in share[step * accumulate : (step + 1) * accumulate]]
        begin = first + step * per_step
        assert sorted(n for batch in batches for n in batch) == list(range(begin, begin + per_step))


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_come_in_order_and_beyond_the_end_of_an_epoch(workers: int):
    clips = ToyClips()
    batches = list(read(clips, [[3, 41], [0], [1000, 2]], workers))
    assert [len(batch) for batch in batches] == [2, 1, 2]
    for clip, n in zip([clip for batch in batches for clip in batch], [3, 41, 0, 1000, 2], strict=True):
        assert torch.equal(clip.frames, clips[n].frames)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_of_the_data_is_the_readers_own_line(workers: int):
    class Broken(ToyClips):
        def __getitem__(self, n: int) -> Clip:
            if n == 5:
                raise InputError("frame 3 of dog.mp4 cannot be read")
            return super().__getitem__(n)

    batches = read(Broken(), [[4], [5]], workers)
    assert len(next(batches)) == 1
    with pytest.raises(InputError, match=r"^frame 3 of dog.mp4 cannot be read$"):
        next(batches)


def test_a_machine_with_fewer_cores_than_workers_is_no_reason_to_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(read(ToyClips(), [[0], [1]], workers=4))) == 2


def test_readers_outlive_a_ctrl_c_that_reaches_all():
    class Interrupted(ToyClips):
        def __getitem__(self, n: int) -> Clip:
            os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(n)

    assert len(list(read(Interrupted(), [[0], [1], [2]], workers=1))) == 3
