"""A short text that changes when a data set's annotations change: what a resumed evaluation compares."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tubelet.core.errors import InputError
from tubelet.core.untrusted.archives import open_archive
from tubelet.core.untrusted.files import opened

DOCUMENTS = {".json", ".xml", ".txt"}
LENGTH = 16  # hexadecimal digits of a digest


def digest(path: Path) -> str:
    """Hash a data set: the bytes of its annotation files.

    Of a folder without JSON, XML or text it is names and sizes of all files, of a zip archive names and checksums
    of its members. A JSON file and the folder that has it as its one annotation file are equal.

    Raises InputError if it cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.contents import digest
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "val.json").write_text("[]")
        ...     len(digest(Path(folder) / "val.json"))
        16
    """
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name[0] != "."]
        documents = [file for file in files if file.suffix.lower() in DOCUMENTS]
        facts: list[list[str | int]] = [_content(file) for file in documents]
        facts = facts or [[str(file.relative_to(path)), _size(file)] for file in files]
    elif path.suffix.lower() in DOCUMENTS:
        facts = [_content(path)]
    else:
        with open_archive(path) as archive:
            facts = [[info.filename, info.file_size, info.CRC] for info in archive.infolist()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:LENGTH]


def _content(path: Path) -> list[str | int]:
    with opened(path) as file:
        return [hashlib.file_digest(file, "sha256").hexdigest()]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
