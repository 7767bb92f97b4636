from __future__ import annotations

import os

import pytest

from tubelet.evaluation.parallel import each


def with_process(n: int) -> tuple[int, int]:
    return n * n, os.getpid()


def fail(n: int) -> int:
    raise ValueError(f"item {n}")


@pytest.mark.parametrize("jobs", [1, 2])
def test_answers_come_in_the_order_of_the_items(jobs: int) -> None:
    answers = each(with_process, range(20), jobs)
    assert [square for square, _ in answers] == [n * n for n in range(20)]
    assert (os.getpid() in {process for _, process in answers}) == (jobs == 1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_errors_reach_the_caller(jobs: int) -> None:
    with pytest.raises(ValueError, match="item"):
        each(fail, range(4), jobs)


def test_nothing_to_do_gives_nothing() -> None:
    assert each(with_process, [], 4) == []
