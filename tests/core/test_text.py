"""Text from outside, made fit for files and for people."""

from __future__ import annotations

import doctest
import json
import os

import msgspec
import pytest

from tubelet.core import text
from tubelet.core.text import plain, printable, to_json


def test_the_examples_in_the_documentation_hold() -> None:
    assert doctest.testmod(text).failed == 0


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"old\xff.mp4", r"old\xff.mp4"),
        (b"\xc3\xbc.mp4", "ü.mp4"),
        (b"\xc3\xbc\xff.mp4", r"ü\xff.mp4"),
        (b"a\\xff", r"a\xff"),
    ],
)
def test_a_name_that_is_not_utf8_becomes_text_that_is(name: bytes, shown: str) -> None:
    for encoding in ("utf-8", "ascii"):  # ascii: what Python makes of names in a C locale
        assert plain(name.decode(encoding, "surrogateescape")) == shown


def test_every_string_becomes_one_that_utf8_holds() -> None:
    for code in (*range(0xD7F0, 0xE010), 0x10FFFF):
        plain(f"ä{chr(code)}b").encode()
        printable(f"ä{chr(code)}b").encode()


@pytest.mark.parametrize("unsafe", ["\0", "\n", "\t", "\x1b", "\x7f", "\x9b", "\u2028", "\u202e", "\u2066", "\ud800"])
def test_nothing_printable_acts_on_a_terminal(unsafe: str) -> None:
    shown = printable(f"a{unsafe}b")
    assert unsafe not in shown
    assert shown.isprintable()


def test_other_scripts_and_emoji_stay_as_they_are() -> None:
    for name in ("Hündchen", "小狗", "کلب", "👩‍🚀", "می‌خواهم"):
        assert printable(name) == plain(name) == name


def test_long_text_is_cut_in_the_middle_and_keeps_its_end() -> None:
    for long in ("x" * 100_000 + ": no such file", "\x1b" * 100_000 + ": no such file"):
        shown = printable(long, most=100)
        assert len(shown) == 100
        assert shown.endswith(": no such file")
        assert " ... " in shown
    assert printable("x" * 100, most=100) == "x" * 100


def test_json_with_any_name_is_read_by_strict_readers() -> None:
    name = os.fsdecode(b"\xff")
    written = to_json({name: [name, {"a": (name, 1.5, None, True)}]})
    assert json.loads(written) == {r"\xff": [r"\xff", {"a": [r"\xff", 1.5, None, True]}]}
    msgspec.json.decode(written.encode())
