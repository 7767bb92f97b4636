"""A few seconds of `make fuzz`, and that it would notice a careless reader."""

from __future__ import annotations

import io
import os
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.mutations import mutated
from fuzz.search import prepare, search, search_apart
from fuzz.targets import TARGETS, Target
from tubelet.core.errors import FormatError

LEFT_OUT = (  # slow, or near enough to others
    *("weights", "metrics", "settings", "yolo-seg", "labelme", "davis, zipped", "mots-png", "sbd"),
    *("mkv", "ts", "mpg", "flv", "webp", "mp4 of fragments"),
)
QUICK = [target for target in TARGETS if target.name not in LEFT_OUT]


@pytest.mark.parametrize("target", QUICK, ids=lambda target: target.name)
def test_whatever_is_damaged_is_read_or_refused(target: Target, tmp_path: Path) -> None:
    folder = prepare(target, tmp_path / "data")
    ends = search(target, folder, number=0, examples=4 if target.name == "page" else 12)
    assert ends.total() >= 4


def test_a_file_that_was_damaged_before_is_damaged_again() -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a.txt", "dog")
    data = bytearray(whole.getvalue())
    data[data.index(b"PK\1\2") + 6] = 127  # the version that is needed to read it
    for seed in range(20):
        assert mutated("a.zip", bytes(data), random.Random(seed)) != whole.getvalue()


def write_number(folder: Path) -> None:
    (folder / "number.json").write_text("[1, 2, 3]")


def careless(read: Callable[[Path], object]) -> Target:
    """A reader that does something only if the file is damaged."""

    def read_damaged(folder: Path) -> None:
        if (folder / "number.json").read_bytes() != b"[1, 2, 3]":
            read(folder)

    return Target("careless", write_number, read_damaged)


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda folder: [][0], "IndexError"),
        (lambda folder: bytearray(1 << 40), "MemoryError"),
        (lambda folder: os.abort(), "crashed: SIGABRT"),
        (lambda folder: time.sleep(60), "took too long"),
        (lambda folder: any(iter(int, 1)), "took too long"),  # never ends
    ],
)
def test_a_careless_reader_is_noticed(
    read: Callable[[Path], object], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzz.search.SECONDS", 1)
    monkeypatch.setattr("fuzz.search.PATIENCE", 2)
    folder = prepare(careless(read), tmp_path / "data")
    ends, wrong = search_apart(careless(read), folder, number=0, examples=5)
    assert not ends
    assert expected in wrong
    assert (folder / "number.json").read_bytes() != b"[1, 2, 3]", "what was wrong lies there"


def test_a_reader_that_reads_or_refuses_is_counted(tmp_path: Path) -> None:
    def read(folder: Path) -> None:
        if b"1" not in (folder / "number.json").read_bytes():
            raise FormatError("no 1 in it")

    target = Target("careful", write_number, read)
    ends, wrong = search_apart(target, prepare(target, tmp_path / "data"), number=0, examples=30)
    assert not wrong
    assert ends.total() >= 30
    assert ends["read"] > 0
    assert ends["refused"] > 0
