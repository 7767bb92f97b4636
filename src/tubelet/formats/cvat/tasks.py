"""The tasks of a CVAT export: an XML document each, beside its images."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tubelet.core.errors import FormatError, InputError
from tubelet.core.untrusted.documents import Element, parse_xml
from tubelet.formats.files import Archive, Files, Folder, open_files

DOCUMENT = "annotations.xml"


class CvatTask(NamedTuple):
    """One XML document.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.formats.cvat.tasks import CvatTask
        >>> from tubelet.formats.files import Folder
        >>> CvatTask("street", Folder(Path("exports")), "street/annotations.xml").folder
        'street'
    """

    name: str
    files: Files
    document: str  # path of the XML in `files`

    @property
    def folder(self) -> str:
        """The folder of the XML; empty if it is the top one."""
        parent = str(PurePosixPath(self.document).parent)
        return "" if parent == "." else parent

    @property
    def where(self) -> str:
        """What error messages call the document."""
        return self.files.where(self.document)

    def parse(self) -> Element:
        """Parse the document; raises FormatError if it is not XML or not CVAT's."""
        tree = parse_xml(self.files.read(self.document), self.where)
        if tree.tag != "annotations":
            raise FormatError(f"{self.where}: expected CVAT's XML 1.1, got a document called {tree.tag}")
        return tree


def tasks_of(path: Path) -> list[CvatTask]:
    """Return all tasks of a folder, or of one XML file or zip archive.

    Raises InputError if there is none.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.cvat.tasks import tasks_of
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "annotations.xml").write_text("<annotations/>")
        ...     [task.document for task in tasks_of(Path(folder))]
        ['annotations.xml']
    """
    if path.suffix.lower() == ".xml":
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        return [CvatTask(path.stem, Folder(path.parent), path.name)]

    files = open_files(path)
    documents = [name for name in files.names if PurePosixPath(name).name == DOCUMENT]
    tasks = [CvatTask(PurePosixPath(name).parent.name or path.stem, files, name) for name in documents]
    if isinstance(files, Folder):
        archives = [Archive(path / name) for name in files.names if name.lower().endswith(".zip")]
        exports = [archive for archive in archives if DOCUMENT in archive.names]
        tasks += [CvatTask(archive.path.stem, archive, DOCUMENT) for archive in exports]

    if not tasks:
        raise InputError(f"{path}: expected {DOCUMENT} of CVAT 1.1")
    return tasks
