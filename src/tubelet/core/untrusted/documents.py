"""Parse JSON and XML strictly; everything that is invalid is a FormatError.

JSON must be UTF-8, with finite numbers, no lone surrogates and limited nesting. XML can have any
encoding, but no document type, so no entities, and a limited number of elements.
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
DEEPEST = 100  # levels of nesting, in JSON and in XML
MOST_ELEMENTS = 5_000_000
LARGEST_XML = 1 << 28  # bytes of a document
LARGEST_REWRITTEN = 1 << 30  # bytes of JSON that may contain NaN
_UTF8_MARK = b"\xef\xbb\xbf"


def read_json(path: str | Path, *, largest: int = LARGEST) -> Any:
    """Read a JSON file. Raises InputError if it cannot be read, FormatError if it is not valid JSON.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.documents import read_json
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "size.json")
        ...     _ = path.write_text('{"size": [2, 3]}')
        ...     read_json(path)
        {'size': [2, 3]}
    """
    return decode_json(mapped(path, largest=largest), str(path))


def decode_json(data: Buffer | msgspec.Raw | str, where: str) -> Any:
    """Parse JSON. Raises FormatError, with `where`, if it is not valid.

    Example:
        >>> from tubelet.core.untrusted.documents import decode_json
        >>> decode_json(b'{"size": [2, 3]}', "a file")
        {'size': [2, 3]}
    """
    tree = decode_json_as(Any, data, where)
    _check_depth(tree, where)
    return tree


def decode_json_as(
    form: Any, data: Buffer | msgspec.Raw | str, where: str, *, complaint: str = "not of the expected form"
) -> Any:
    """Parse JSON into a type that msgspec supports.

    Raises FormatError if it is not valid JSON, or, with `complaint`, if it is not of that type.

    Example:
        >>> from tubelet.core.untrusted.documents import decode_json_as
        >>> decode_json_as(tuple[int, int], b"[2, 3]", "a file")
        (2, 3)
    """
    try:
        return _decoder(form).decode(_without_mark(data))
    except msgspec.ValidationError as error:
        raise FormatError(f"{where}: {complaint}, {error}") from None
    except RecursionError:
        raise FormatError(f"{where}: expected JSON, found lists or objects that are nested too deep") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise FormatError(f"{where}: expected JSON{_encoding(data)}, {error}") from None


def spell_out_nan(data: Buffer, where: str) -> bytes:
    """Rewrite JSON so that NaN and Infinity, which Python writes as numbers, are strings.

    A strict reader can then name the field that contains one. Raises FormatError for any other
    error in the JSON.

    Example:
        >>> from tubelet.core.untrusted.documents import spell_out_nan
        >>> spell_out_nan(b'{"score": NaN}', "a file")
        b'{"score":"NaN"}'
    """
    _, strict = _decode_with_nan(data, where, str)
    return strict


def read_figures(path: str | Path) -> Any:
    """Read a JSON file whose numbers may be NaN or Infinity. Raises the errors of `read_json`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.untrusted.documents import read_figures
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "metrics.json")
        ...     _ = path.write_text('{"AP": NaN}')
        ...     read_figures(path)
        {'AP': nan}
    """
    return decode_figures(mapped(path), str(path))


def decode_figures(data: Buffer | str, where: str) -> Any:
    """Parse JSON whose numbers may be NaN or Infinity. Raises FormatError if it is not valid otherwise.

    Example:
        >>> from tubelet.core.untrusted.documents import decode_figures
        >>> decode_figures('{"AP": NaN}', "a file")
        {'AP': nan}
    """
    if isinstance(data, str):
        data = data.encode(errors="surrogatepass")
    tree, _ = _decode_with_nan(data, where, float)
    _check_depth(tree, where)
    return tree


def _decode_with_nan(data: Buffer, where: str, constant: Callable[[str], str | float]) -> tuple[Any, bytes]:
    """The tree, with NaN and Infinity converted from their names by `constant`, and that tree as strict JSON."""
    if len(data) > LARGEST_REWRITTEN:
        raise FormatError(f"{where}: expected JSON with numbers that are finite")
    try:
        tree = json.loads(bytes(_without_mark(data)).decode(), parse_constant=constant, parse_float=_finite)
        return tree, msgspec.json.encode(tree)  # which fails for lone surrogates
    except RecursionError:
        raise FormatError(f"{where}: expected JSON, found lists or objects that are nested too deep") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise FormatError(f"{where}: expected JSON{_encoding(data)}, {error}") from None


def parse_xml(data: bytes, where: str) -> Element:
    """Parse XML and return the root element.

    Raises FormatError, with `where`, if it is not valid or has a document type.

    Example:
        >>> from tubelet.core.untrusted.documents import parse_xml
        >>> parse_xml(b"<track id='3'/>", "a file").attrib
        {'id': '3'}
    """
    if len(data) > LARGEST_XML:
        raise FormatError(f"{where}: expected XML of at most {LARGEST_XML} bytes, found {len(data)}")

    parser = xml.XMLParser(target=_Bounded(where))
    try:
        parser.feed(data)
        root: Element = parser.close()
    except FormatError:
        raise
    except (xml.ParseError, LookupError, ValueError) as error:  # the last two for an unknown encoding
        raise FormatError(f"{where}: expected XML, {error}") from None
    return root


class _Bounded(xml.TreeBuilder):
    """A tree builder that refuses document types and too many or too deeply nested elements."""

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
    """The text without UTF-8's byte order mark, which some editors write; no copy is made."""
    if isinstance(data, msgspec.Raw | str) or data[:3] != _UTF8_MARK:
        return data
    return memoryview(data)[3:]


def _encoding(data: Any) -> str:
    """An addition to the error message, if the text is in UTF-16 or UTF-32."""
    if isinstance(data, msgspec.Raw | str):
        return ""

    has_other_mark = bytes(data[:2]) in (b"\xff\xfe", b"\xfe\xff")
    return " in UTF-8, found UTF-16 or UTF-32" if has_other_mark else ""


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is out of range")
    return number


def _check_depth(tree: Any, where: str) -> None:
    """Raise FormatError if the tree is too deep for recursive code such as `repr`."""
    level = _children([tree])
    for _ in range(DEEPEST):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise FormatError(f"{where}: expected JSON, found lists or objects that are nested too deep")


def _children(node: Any) -> list[Any]:
    """The lists and objects that are entries of this one."""
    entries = node.values() if isinstance(node, dict) else node
    return [entry for entry in entries if isinstance(entry, dict | list)]
