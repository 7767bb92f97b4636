"""Damage a valid file so that its reader comes far: the form of the file is respected, and a part of it changed."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

Random = random.Random
Mutation = Callable[[bytes, Random], bytes]

STRANGE = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**12, 10**30, -(2**63), 1e300, 1e-320, 2.5, float("nan"), float("inf"), "",
    "x", "0", "-1", "1e999", "../../up", "/etc/passwd", "a\0b", "é", "\ud800", "x" * 5000, [], {}, [[]], [None], [{}],
    {"size": [1, 1]}, {"size": [2**20, 2**20], "counts": "0"}, [0] * 300,
)  # fmt: skip
WORDS = ("", "-1", "0", "1", "4294967295", "9" * 25, "1e999", "nan", "0.5", "../../up", "é", "\x00", "x" * 3000)
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)

BROKEN = (  # what a mutation raises where an earlier one has broken the form
    *(ValueError, TypeError, AttributeError, LookupError),
    RuntimeError,  # of zipfile, for encrypted members and other versions of the form
    *(struct.error, zlib.error, zipfile.BadZipFile, ElementTree.ParseError),
)


def mutated(name: str, data: bytes, source: Random) -> bytes:
    """The file with one to three parts changed; a fifth of the files is damaged without regard to their form."""
    for _ in range(source.randint(1, 3)):
        suffix = name.rpartition(".")[2].lower()
        mutate = bytes_changed if source.randrange(5) == 0 else BY_SUFFIX.get(suffix, bytes_changed)
        try:
            data = mutate(data, source)
        except BROKEN:
            data = bytes_changed(data, source)
    return data


def bytes_changed(data: bytes, source: Random) -> bytes:
    """Overwrite, remove, repeat or insert a few bytes anywhere, or cut the file short."""
    start = source.randrange(len(data) + 1)
    length = source.choice((1, 1, 2, 4, 16, 200))
    end = min(start + length, len(data))
    return source.choice(
        (
            lambda: data[:start] + bytes(source.randrange(256) for _ in range(min(end - start, 8))) + data[end:],
            lambda: data[:start] + struct.pack(">I", source.choice(NUMBERS)) + data[start + 4 :],
            lambda: data[:start] + struct.pack("<I", source.choice(NUMBERS)) + data[start + 4 :],
            lambda: data[:start] + data[end:],
            lambda: data[:end] + data[start:],
            lambda: data[:start] + bytes(length) + data[start:],
            lambda: data[:start],
        )
    )()


def json_changed(data: bytes, source: Random) -> bytes:
    """Replace, remove, repeat or move a value in a JSON tree."""
    return json.dumps(tree_changed(json.loads(data), source)).encode()


def tree_changed(tree: Any, source: Random) -> Any:
    """A tree of lists and dicts with one value changed."""
    tree = copy.deepcopy(tree)
    places = _places(tree)
    if not places:
        return source.choice(STRANGE)

    parent, key = source.choice(places)
    other, other_key = source.choice(places)
    action = source.randrange(6)
    if action == 0:
        del parent[key]
    elif action == 1 and isinstance(parent, list):
        parent[key:key] = [parent[key]] * source.choice((1, 2, 50))
    elif action == 2:
        parent[key] = copy.deepcopy(other[other_key])
    elif action == 3 and isinstance(parent[key], int | float):
        parent[key] += source.choice((-1, 1, 0.5, 1000))
    elif action == 4 and isinstance(parent[key], str):
        parent[key] = _text_changed(parent[key], source)
    else:
        parent[key] = source.choice(STRANGE)
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every value in a tree, as the container it lies in and its key there."""
    places: list[tuple[Any, Any]] = []
    todo = [tree]
    while todo:
        node = todo.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        places += [(node, key) for key in keys]
        todo += [node[key] for key in keys]
    return places


def _text_changed(text: str, source: Random) -> str:
    start = source.randrange(len(text) + 1)
    return (
        text[:start] + source.choice((*WORDS, chr(source.randrange(32, 0x300)))) + text[start + source.randrange(3) :]
    )


def lines_changed(data: bytes, source: Random) -> bytes:
    """Change one line: a value in it, its order, or that it is there once."""
    lines = data.split(b"\n")
    number = source.randrange(len(lines))
    line = lines[number]
    action = source.randrange(5)
    if action == 0:
        del lines[number]
    elif action == 1:
        lines.insert(source.randrange(len(lines)), line)
    elif action == 2:
        lines[number] = bytes_changed(line, source)
    elif line.startswith((b"{", b"[")):
        lines[number] = json_changed(line, source)
    else:
        words = line.decode("latin-1").split(" ")
        words[source.randrange(len(words))] = source.choice(WORDS)
        lines[number] = " ".join(words).encode("utf-8", "replace")
    return b"\n".join(lines)


def xml_changed(data: bytes, source: Random) -> bytes:
    """Change an attribute or a text, or remove, repeat or move an element."""
    root = ElementTree.fromstring(data)
    parents = [(parent, child) for parent in root.iter() for child in parent]
    parent, child = source.choice(parents)
    action = source.randrange(5)
    if action == 0:
        parent.remove(child)
    elif action == 1:
        parent.extend([child] * source.choice((1, 2, 40)))
    elif action == 2:
        source.choice(parents)[1].append(copy.deepcopy(child))
    elif action == 3 and child.attrib:
        name = source.choice(sorted(child.attrib))
        child.attrib[name] = source.choice((_text_changed(child.attrib[name], source), *WORDS)).replace("\x00", "")
    else:
        child.text = source.choice(WORDS).replace("\x00", "")
    return ElementTree.tostring(root)


def zip_changed(data: bytes, source: Random) -> bytes:
    """Change what a member holds, its name, or whether it is there, and write the archive anew."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    number = source.randrange(len(members))
    name, content = members[number]
    members[number : number + 1] = source.choice(
        (
            lambda: [(name, mutated(name, content, source))],
            lambda: [(name, mutated(name, content, source))],
            lambda: [(source.choice(("../up", "/up", "a\\b", "", "x/", name.upper(), name + "/" + name)), content)],
            lambda: [(name, content), (name, content[:-1])],
            list,
        )
    )()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", source.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def png_changed(data: bytes, source: Random) -> bytes:
    """Change a chunk of a PNG and correct its checksum, or remove, repeat or move one."""
    chunks = []
    start = 8
    while start < len(data):
        (length,) = struct.unpack_from(">I", data, start)
        chunks.append((data[start + 4 : start + 8], data[start + 8 : start + 8 + length]))
        start += 12 + length

    number = source.randrange(len(chunks))
    kind, content = chunks[number]
    unpacked = kind == b"IDAT" and source.randrange(2) == 0
    changed = zlib.compress(bytes_changed(zlib.decompress(content), source)) if unpacked else None
    chunks[number : number + 1] = source.choice(
        (
            lambda: [(kind, changed or bytes_changed(content, source))],
            lambda: [(kind, changed or bytes_changed(content, source))],
            lambda: [(source.choice((b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"IEND", b"acTL", b"fdAT")), content)],
            lambda: [(kind, content)] * 2,
            list,
        )
    )()
    return data[:8] + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def safetensors_changed(data: bytes, source: Random) -> bytes:
    """Change the header of a safetensors file, and state its new length; also the JSON within its metadata."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    documents = [key for key, value in header.get("__metadata__", {}).items() if value.startswith(("{", "["))]
    if documents and source.randrange(2):
        key = source.choice(documents)
        header["__metadata__"][key] = json.dumps(tree_changed(json.loads(header["__metadata__"][key]), source))
    else:
        header = tree_changed(header, source)
    changed = json.dumps(header).encode()
    return struct.pack("<Q", len(changed)) + changed + data[8 + length :]


def boxes_changed(data: bytes, source: Random) -> bytes:
    """Change a field of a box of an MP4, or its name, or remove or repeat it."""
    boxes = _boxes(data, 0, len(data))
    start, end = source.choice(boxes)
    whole = data[start:end]
    field = start + 8 + 4 * source.randrange(max((end - start - 8) // 4, 1))
    return source.choice(
        (
            lambda: data[:field] + struct.pack(">I", source.choice(NUMBERS)) + data[field + 4 :],
            lambda: data[:field] + struct.pack(">I", source.choice(NUMBERS)) + data[field + 4 :],
            lambda: data[:field] + bytes([source.randrange(256)]) + data[field + 1 :],
            lambda: data[: start + 4] + source.choice((b"free", b"moov", b"trak", b"stts")) + data[start + 8 :],
            lambda: data[:start] + struct.pack(">I", source.choice(NUMBERS)) + data[start + 4 :],
            lambda: data[:end] + whole + data[end:],
            lambda: data[:start] + data[end:],
        )
    )()


def _boxes(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Where boxes lie, those within others too."""
    boxes = []
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, start)
        if length < 8 or start + length > end:
            break
        boxes.append((start, start + length))
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf"):
            boxes += _boxes(data, start + 8, start + length)
        start += length
    return boxes


BY_SUFFIX: dict[str, Mutation] = {
    "json": json_changed,
    "jsonl": lines_changed,
    "txt": lines_changed,
    "yaml": lines_changed,
    "xml": xml_changed,
    "zip": zip_changed,
    "png": png_changed,
    "safetensors": safetensors_changed,
    "mp4": boxes_changed,
    "mov": boxes_changed,
}
