"""Text from outside on its way out: file names, ids and classes may hold anything, and what shows them may not.

Python keeps the bytes of a file name that it cannot decode as lone surrogates, which no file in UTF-8 can hold. `plain`
makes text of them, for files; `printable` also escapes what would act on a terminal and cuts what is too long, for
people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

MOST_OF_A_LINE = 1000  # characters of a line on stderr
MOST_OF_A_CELL = 200  # of a cell in a table
LEFT_OUT = " ... "

# control characters, separators of lines, lone surrogates, and the marks that turn the direction of writing
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNDECODED = re.compile("[\udc80-\udcff]+")


def plain(text: str) -> str:
    r"""Text that UTF-8 can hold: undecoded bytes are read as UTF-8 where they are that, else written as \xff.

    >>> plain("caf\udce9"), plain("caf\udcc3\udca9")
    ('caf\\xe9', 'café')
    """
    if text.isascii():
        return text
    text = _UNDECODED.sub(_decoded, text)
    return _SURROGATE.sub(_escaped, text)


def printable(text: str, most: int = MOST_OF_A_LINE) -> str:
    r"""One line of at most `most` characters without any effect on a terminal; the middle of a longer one is left out.

    >>> printable("\x1b[31mred\n")
    '\\x1b[31mred\\n'
    >>> printable("0123456789" * 10, most=20)
    '0123456789 ... 56789'
    """
    text = plain(_shortened(text, 4 * most))  # before anything is done to a million characters
    return _shortened(_UNSAFE.sub(_escaped, text), most)


def plain_tree(value: Any) -> Any:
    """A tree of mappings, lists and values with all its text made `plain`."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain_tree(key): plain_tree(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_tree(entry) for entry in value]
    return value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that any reader takes, whatever names it holds."""
    return json.dumps(plain_tree(value), indent=indent, ensure_ascii=False)


def _decoded(found: re.Match[str]) -> str:
    return found[0].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    room = most - len(LEFT_OUT)
    tail = room // 3
    return f"{text[: room - tail]}{LEFT_OUT}{text[len(text) - tail :]}"
