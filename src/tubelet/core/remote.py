"""Files in an object store or on another machine, by fsspec: s3://bucket/films, gs://bucket/films, sftp://host/films.

The packages that speak to them are not ours: the extra `s3` brings the one for S3, fsspec's documentation names the
others. Where they find keys and servers is theirs to say, too.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tubelet.core.errors import InputError, TubeletError, WriteError
from tubelet.core.untrusted.addresses import is_address, is_web_address

_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated", "created")


def is_remote(text: str) -> bool:
    """Whether this is an address for fsspec, and neither a path nor of the web.

    Example:
        >>> from tubelet.core.remote import is_remote
        >>> is_remote("s3://bucket/films"), is_remote("films"), is_remote("https://example.org/dog.mp4")
        (True, False, False)
    """
    return is_address(text) and not is_web_address(text)


def is_pattern(text: str) -> bool:
    """Whether an address names several files by *, ? or [.

    Example:
        >>> from tubelet.core.remote import is_pattern
        >>> is_pattern("s3://bucket/films/*.mp4")
        True
    """
    return re.search(r"[*?[]", text) is not None


def shown(address: str) -> str:
    """An address without a user's name and password, for people.

    Example:
        >>> from tubelet.core.remote import shown
        >>> shown("sftp://me:secret@host/films")
        'sftp://host/films'
    """
    return re.sub(r"://[^/@]*@", "://", address)


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """A folder at an address; names in it are relative, with slashes.

    A file appears whole in object stores, but other systems show it while it is being sent. All methods raise
    InputError for an address that leads nowhere, WriteError for a system that does not let us write.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.remote import RemoteFolder
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = RemoteFolder(f"file://{name}/results")
        ...     source = Path(name, "dog.txt")
        ...     _ = source.write_text("dog")
        ...     folder.put(source, "a/dog.txt")
        ...     folder.names("a"), folder.read(["a/dog.txt", "a/cat.txt"])
        (['dog.txt'], {'a/dog.txt': b'dog'})
    """

    address: str

    def check(self) -> None:
        """Raise InputError or WriteError if files cannot be written and removed there."""
        system, root = _system(self.address)
        trial = f"{root}/.partial-{uuid.uuid4().hex}"
        with _explained(self.address, "written"):
            _make_folder(system, root)
            system.pipe_file(trial, b"")
            system.rm_file(trial)

    def put(self, source: Path, name: str) -> None:
        """Send a file, replacing the one of that name."""
        system, root = _system(self.address)
        target = f"{root}/{name}"
        with _explained(f"{self.address}/{name}", "written"):
            _make_folder(system, target.rpartition("/")[0])
            system.put_file(str(source), target)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        system, root = _system(self.address)
        with _explained(f"{self.address}/{name}", "removed"):
            try:
                system.rm_file(f"{root}/{name}")
            except FileNotFoundError:
                return

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder; none if there is no such folder."""
        system, root = _system(self.address)
        with _explained(f"{self.address}/{folder}", "read"):
            system.invalidate_cache()
            try:
                paths = system.ls(f"{root}/{folder}", detail=False)
            except FileNotFoundError:
                return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """Contents of the files that are there, by name; many at a time where the system can."""
        system, root = _system(self.address)
        if not names:
            return {}
        with _explained(self.address, "read"):
            answers = system.cat([f"{root}/{name}" for name in names], on_error="return")
            for answer in answers.values():
                if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
                    raise answer
        found = {path.removeprefix(f"{root}/"): data for path, data in answers.items() if isinstance(data, bytes)}
        return {name: found[name] for name in names if name in found}


def find(address: str) -> list[str]:
    """Addresses of what a pattern matches, of all files in a folder, or of one file. InputError if there is none.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.remote import find
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "dog.mp4").touch()
        ...     [found.removeprefix(f"file://{folder}") for found in find(f"file://{folder}/*.mp4")]
        ['/dog.mp4']
    """
    system, path = _system(address)
    with _explained(address, "read"):
        found = system.glob(path) if is_pattern(path) else system.find(path)
    if not found:
        raise InputError(f"{shown(address)}: no such file or folder")
    first, chain, rest = address.rstrip("/").partition("::")
    if first.endswith(path):  # what stands before the path may name a host
        before = first.removesuffix(path)
        return sorted(f"{before}{name}{chain}{rest}" for name in found)
    return sorted(f"{system.unstrip_protocol(name)}{chain}{rest}" for name in found)


def fetch(address: str, target: Path, *, largest: int) -> None:
    """Write the file at an address to `target`. Raises InputError if it cannot be read or is larger."""
    system, path = _system(address)
    with _explained(address, "read"):
        size = system.info(path).get("size")
        if isinstance(size, int) and size > largest:
            raise InputError(f"{shown(address)}: expected a file of at most {largest} bytes, found {size}")
        system.get_file(path, str(target))


def version_of(address: str) -> list[str]:
    """What changes when the file at an address is replaced: its size, and what its system says of it.

    Raises InputError if there is no such file.
    """
    system, path = _system(address)
    with _explained(address, "read"):
        info = system.info(path)
    return [str(info[key]) for key in ("size", *_VERSIONS) if info.get(key) is not None]


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(address.rstrip("/"))
    except ImportError as error:
        install = ", pip install 'tubelet[s3]'" if address.startswith("s3:") else ""
        raise InputError(f"{shown(address)}: {error}{install}") from None
    except Exception as error:  # each system has errors of its own
        raise InputError(f"{shown(address)}: {_reason(error)}") from None
    return system, path.rstrip("/")


def _make_folder(system: Any, path: str) -> None:
    """Make a folder where folders exist; a bucket is never made: its name may be a typing error."""
    parent = path.rpartition("/")[0]
    if not parent or system.isdir(path):
        return
    _make_folder(system, parent)
    try:
        system.mkdir(path, create_parents=False)
    except FileExistsError:
        return  # by another process, in the meantime


@contextmanager
def _explained(address: str, what: str) -> Iterator[None]:
    """Turn the errors of a file system into one line: each has errors of its own."""
    try:
        yield
    except TubeletError:
        raise
    except Exception as error:
        kind = InputError if what == "read" else WriteError
        raise kind(f"{shown(address)}: cannot be {what} ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shown(" ".join(text.split())[:200]) or type(error).__name__
