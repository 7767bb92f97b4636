"""The YAML file of YOLO's layout: the names of the classes, and which images are of which split.

    path: ../datasets/pets          not needed: images are looked for beside the file
    train: images/train             a folder, a text file that lists images, or several of them
    val: images/val
    names: [dog, cat]               or {0: dog, 1: cat}, or a line "0: dog" for each

Only these fields are read, and only in these spellings.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tubelet.core.errors import FormatError, InputError
from tubelet.core.untrusted.files import decode_text
from tubelet.formats.files import Files, FormatWarning, open_files

SPLITS = ("train", "val", "valid", "test")
YAML = (".yaml", ".yml")
LEVELS = 3  # how far above a split's folder the YAML file may be


def settings_text(root: Path, files: Files, name: str | None = None) -> str:
    """Read the YAML file of this name; by default the one at the top, or above the folder of a split.

    Raises InputError if there is none.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.files import open_files
        >>> from tubelet.formats.yolo_settings import settings_text
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "data.yaml").write_text("names: [dog, cat]")
        ...     settings_text(Path(folder), open_files(folder))
        'names: [dog, cat]'
    """
    here = [file for file in files.names if "/" not in file and file.endswith(YAML)]
    if name or here:
        name = name or ("data.yaml" if "data.yaml" in here else here[0])
        return decode_text(files.read(name), files.where(name))

    for folder in list(root.absolute().parents)[:LEVELS]:
        path = folder / "data.yaml"
        if path.is_file():
            return decode_text(open_files(folder).read("data.yaml"), str(path))
    raise InputError(f"{files}: expected data.yaml with the class names, names: [dog, cat]")


def class_names(text: str, where: str) -> tuple[str, ...]:
    """The class names of a YAML file: `names` as a list or as numbered lines. Raises FormatError if there are none.

    Example:
        >>> from tubelet.formats.yolo_settings import class_names
        >>> class_names("nc: 2\\nnames: ['dog', cat]", "data.yaml")
        ('dog', 'cat')
        >>> class_names("names:\\n  0: dog\\n  1: cat\\ntrain: images/train", "data.yaml")
        ('dog', 'cat')
    """
    is_list = re.search(r"^names\s*:[ \t]*(?:[\[{#].*)?$", text, re.MULTILINE)
    names = _values(text, "names") if is_list else []
    if not names or "" in names:
        raise FormatError(f"{where}: expected class names, as names: [dog, cat]")
    return tuple(names)


def training_images(images: Sequence[str], files: Files, text: str) -> list[str]:
    """Return the images of `train` if there are several splits: as the YAML file names them, else by their usual names.

    A warning names the other splits.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.formats.files import Folder
        >>> from tubelet.formats.yolo_settings import training_images
        >>> images = ["images/spring/a.jpg", "images/autumn/b.jpg"]
        >>> training_images(images, Folder(Path("pets")), "train: images/spring")
        ['images/spring/a.jpg']
    """
    splits = {split: _images_of(split, images, files, text) for split in SPLITS}
    if not splits["train"]:
        splits = {split: [name for name in images if split in PurePosixPath(name).parts[:-1]] for split in SPLITS}

    training = set(splits["train"])
    others = [split for split, names in splits.items() if set(names) - training]
    if not training:
        return list(images)
    if others:
        what = f"of its splits, train is read; {', '.join(sorted(others))} by the path of its folder"
        warnings.warn(f"{files}: {what}", FormatWarning, stacklevel=3)
    return splits["train"]


def _images_of(split: str, images: Sequence[str], files: Files, text: str) -> list[str]:
    """The images of a split in the YAML file, which has folders, or text files that list images."""
    paths = [_below(value) for value in _values(text, split)]
    folders = tuple(f"{path}/" for path in paths)
    lists = [path for path in paths if path.endswith(".txt") and path in files.names]
    lines = [line for path in lists for line in decode_text(files.read(path), files.where(path)).split("\n")]
    listed = {_below(line) for line in lines}
    return [name for name in images if name.startswith(folders) or name in listed]


def _below(path: str) -> str:
    """A path without ./ and ../ before it: Roboflow writes ../train/images, and means train/images."""
    return re.sub(r"^(?:\.{0,2}/)+", "", path.strip().replace("\\", "/")).rstrip("/")


def _values(text: str, key: str) -> list[str]:
    """What a key of a YAML file has: one value, or those of a list or of numbered lines."""
    match = re.search(rf"^{key}\s*:[ \t]*(.*)$", text, re.MULTILINE)
    if match is None:
        return []

    inline = re.match(r"\[(.*?)\]|\{(.*?)\}", text[match.start(1) :], re.DOTALL)
    if inline is not None:
        values = [re.sub(r"^\s*\d+\s*:", "", value) for value in (inline[1] or inline[2] or "").split(",")]
    elif match[1] and not match[1].startswith("#"):
        values = [match[1]]
    else:
        block = re.match(r"(?:[ \t]*(?:-|\d+\s*:)[^\n]*\n|[ \t]*#[^\n]*\n|\s*\n)*", text[match.end() + 1 :] + "\n")
        values = re.findall(r"^[ \t]*(?:-|\d+\s*:)[ \t]*(.+?)[ \t]*$", block[0] if block else "", re.MULTILINE)
    return [re.sub(r"\s+#.*", "", value).strip().strip("'\"") for value in values]
