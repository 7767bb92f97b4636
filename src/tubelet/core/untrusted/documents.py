"""JSON and XML, parsed strictly; whatever is wrong with them is one FormatError.

JSON must be UTF-8, with numbers that a float or an integer holds (no NaN), whole characters and bounded nesting.
XML may have any encoding, but no document type and so no entities, and bounded numbers of elements.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import msgspec

from tubelet.core.errors import FormatError
from tubelet.core.untrusted.files import LARGEST, Buffer, mapped

Element = xml.Element
OTHER_FORM = "not of the expected form"

DEEPEST = 100  # lists and objects within each other, elements within each other
MOST_ELEMENTS = 5_000_000
LARGEST_XML = 1 << 28  # bytes of a document
LARGEST_REWRITTEN = 1 << 30  # bytes of JSON that is given a second chance
_UTF8_MARK = b"\xef\xbb\xbf"


def read_json(path: str | Path, *, largest: int = LARGEST) -> Any:
    """The tree of a JSON file; raises InputError where it cannot be read, FormatError where it is no JSON."""
    return decode_json(mapped(path, largest=largest), str(path))


def decode_json(data: Buffer | msgspec.Raw | str, where: str) -> Any:
    """The tree of a JSON text; raises FormatError, which names `where`.

    >>> decode_json(b'{"size": [2, 3]}', "a file")
    {'size': [2, 3]}
    """
    tree = decode_json_as(Any, data, where)
    _check_depth(tree, where)
    return tree


def decode_json_as(
    form: Any, data: Buffer | msgspec.Raw | str, where: str, *, complaint: str = "not of the expected form"
) -> Any:
    """A JSON text as a type that msgspec knows; raises FormatError, which begins with `complaint` where it is JSON."""
    try:
        return _decoder(form).decode(_without_mark(data))
    except msgspec.ValidationError as error:
        raise FormatError(f"{where}: {complaint}, {error}") from None
    except RecursionError:
        raise FormatError(f"{where}: expected JSON, found lists or objects that are nested too deep") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise FormatError(f"{where}: expected JSON{_encoding(data)}, {error}") from None


def spell_out_nan(data: Buffer, where: str) -> bytes:
    """JSON in which NaN and Infinity became the strings "NaN" and "Infinity"; raises FormatError for any other fault.

    Python writes them as if they were numbers. Spelt out, a reader can name the field that holds one.
    """
    return _loosely(data, where, str)[1]


def read_figures(path: str | Path) -> Any:
    """The tree of a JSON file of figures, any of which may be NaN or Infinity; raises as `read_json` does."""
    return decode_figures(mapped(path), str(path))


def decode_figures(data: Buffer | str, where: str) -> Any:
    """The tree of a JSON text of figures, any of which may be NaN or Infinity; raises FormatError as `decode_json`.

    >>> decode_figures('{"AP": NaN}', "a file")
    {'AP': nan}
    """
    tree, _ = _loosely(data.encode(errors="surrogatepass") if isinstance(data, str) else data, where, float)
    _check_depth(tree, where)
    return tree


def _loosely(data: Buffer, where: str, constant: Callable[[str], str | float]) -> tuple[Any, bytes]:
    """A tree in which NaN and Infinity are what `constant` makes of their names, and the same as strict JSON."""
    if len(data) > LARGEST_REWRITTEN:
        raise FormatError(f"{where}: expected JSON with numbers that are finite")
    try:
        tree = json.loads(bytes(_without_mark(data)).decode(), parse_constant=constant, parse_float=_finite)
        return tree, msgspec.json.encode(tree)  # which fails for half of a surrogate pair
    except RecursionError:
        raise FormatError(f"{where}: expected JSON, found lists or objects that are nested too deep") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise FormatError(f"{where}: expected JSON{_encoding(data)}, {error}") from None


def parse_xml(data: bytes, where: str) -> Element:
    """The root of an XML document; raises FormatError, which names `where`, for document types and broken XML."""
    if len(data) > LARGEST_XML:
        raise FormatError(f"{where}: expected XML of at most {LARGEST_XML} bytes, found {len(data)}")
    parser = xml.XMLParser(target=_Bounded(where))
    try:
        parser.feed(data)
        root: Element = parser.close()
    except FormatError:
        raise
    except (xml.ParseError, LookupError, ValueError) as error:  # the latter two for an encoding that is none
        raise FormatError(f"{where}: expected XML, {error}") from None
    return root


class _Bounded(xml.TreeBuilder):
    """Builds a tree, but stops at a document type, whatever the encoding, and at too many elements."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.depth = 0
        self.elements = 0

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise FormatError(f"{self.where}: document types and entities are not read")

    def start(self, tag: str, attributes: dict[str, str], /) -> Element:
        self.depth += 1
        self.elements += 1
        if self.depth > DEEPEST or self.elements > MOST_ELEMENTS:
            raise FormatError(f"{self.where}: XML with too many elements, or nested too deep")
        return super().start(tag, attributes)

    def end(self, tag: str, /) -> Element:
        self.depth -= 1
        return super().end(tag)


@lru_cache(maxsize=64)
def _decoder(form: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(form)


def _without_mark(data: Any) -> Any:
    """The text without UTF-8's byte order mark, which some editors write; nothing is copied."""
    if isinstance(data, msgspec.Raw | str) or data[:3] != _UTF8_MARK:
        return data
    return memoryview(data)[3:]


def _encoding(data: Any) -> str:
    """What to add where the text is not in UTF-8."""
    if isinstance(data, msgspec.Raw | str):
        return ""
    return " in UTF-8, found UTF-16 or UTF-32" if bytes(data[:2]) in (b"\xff\xfe", b"\xfe\xff") else ""


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is out of range")
    return number


def _check_depth(tree: Any, where: str) -> None:
    """Raise FormatError for a tree that recursive code, such as `repr`, might not manage."""
    level = [tree]
    for _ in range(DEEPEST):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise FormatError(f"{where}: expected JSON, found lists or objects that are nested too deep")


def _children(node: Any) -> list[Any]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [child for child in inner if isinstance(child, dict | list)]
