"""Make untrusted text, such as file names, ids and class names, safe to write and to print.

Python represents bytes of a file name that it cannot decode as lone surrogates, which UTF-8 cannot
encode. `plain` replaces them, for files. `printable` also escapes control characters and shortens
long text, for terminals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

MOST_OF_A_LINE = 1000  # characters of a line on stderr
MOST_OF_A_CELL = 200  # of a cell in a table
LEFT_OUT = " ... "

# control characters, line separators, lone surrogates, and marks that change the writing direction
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNDECODED = re.compile("[\udc80-\udcff]+")


def plain(text: str) -> str:
    r"""Replace lone surrogates, so that the text can be encoded in UTF-8.

    Undecoded bytes are decoded as UTF-8 if they are valid, else escaped as \xff.

    Example:
        >>> from tubelet.core.text import plain
        >>> plain("caf\udce9"), plain("caf\udcc3\udca9")
        ('caf\\xe9', 'café')
    """
    if text.isascii():
        return text
    text = _UNDECODED.sub(_decoded, text)
    return _SURROGATE.sub(_escaped, text)


def printable(text: str, most: int = MOST_OF_A_LINE) -> str:
    r"""Escape control characters, and shorten the text to `most` characters by cutting out its middle.

    Example:
        >>> from tubelet.core.text import printable
        >>> printable("\x1b[31mred\n")
        '\\x1b[31mred\\n'
        >>> printable("0123456789" * 10, most=20)
        '0123456789 ... 56789'
    """
    text = plain(_shortened(text, 4 * most))  # shortened first: the text may be very long
    return _shortened(_UNSAFE.sub(_escaped, text), most)


def plain_tree(value: Any) -> Any:
    r"""Apply `plain` to all text in a tree of mappings, lists, tuples and values; tuples become lists.

    Example:
        >>> from tubelet.core.text import plain_tree
        >>> plain_tree({"name": ("caf\udcc3\udca9", 1)})
        {'name': ['café', 1]}
    """
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain_tree(key): plain_tree(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_tree(entry) for entry in value]
    return value


def to_json(value: Any, *, indent: int | None = None) -> str:
    r"""Write a tree as JSON that can be encoded in UTF-8; other characters than ASCII stay as they are.

    Example:
        >>> from tubelet.core.text import to_json
        >>> to_json({"name": "caf\udcc3\udca9"})
        '{"name": "café"}'
    """
    return json.dumps(plain_tree(value), indent=indent, ensure_ascii=False)


def _decoded(match: re.Match[str]) -> str:
    return match[0].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text

    num_characters = most - len(LEFT_OUT)
    tail = num_characters // 3
    head = num_characters - tail
    return f"{text[:head]}{LEFT_OUT}{text[len(text) - tail :]}"
