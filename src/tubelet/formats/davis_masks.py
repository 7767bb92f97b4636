"""Label maps of DAVIS folders for evaluation: one PNG per frame, read when its turn comes; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tubelet.core.errors import FormatError, InputError, nearest
from tubelet.core.untrusted.files import read_text
from tubelet.core.untrusted.images import decode, read_image_file
from tubelet.formats.ytvis.document import Faults

ANNOTATIONS = ("Annotations_unsupervised", "Annotations")
RESOLUTIONS = ("480p", "Full-Resolution", "1080p")
VOID = 255


@dataclass(frozen=True, slots=True)
class Maps:
    """The label maps of one sequence, uint8 [H, W], in the order of `files`; iterating reads them.

    A file that is not there is read as an empty map of the size of the one before it, or of `size`.
    """

    name: str
    files: tuple[Path | None, ...]
    binary: bool = False  # black and white: what is not black is object 1
    size: tuple[int, int] | None = None
    faults: Faults = field(default_factory=Faults)

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[np.ndarray]:
        size = self.size
        colours: dict[int, tuple[int, ...]] = {}
        for path in self.files:
            if path is None:
                assert size is not None, "a missing file is only taken where the size is known"
                yield np.zeros(size, np.uint8)
                continue
            labels, palette = _read(path)
            self._check_palette(path, labels, palette, colours)
            size = (labels.shape[0], labels.shape[1])
            yield (labels > 0).astype(np.uint8) if self.binary else labels

    def _check_palette(
        self, path: Path, labels: np.ndarray, palette: list[int] | None, colours: dict[int, tuple[int, ...]]
    ) -> None:
        """An index must keep its colour through the sequence: a program that sorts palettes anew loses identities."""
        if palette is None or self.binary:
            return
        for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist():
            colour = tuple(palette[3 * label : 3 * label + 3])
            before = colours.setdefault(label, colour)
            if colour != before:
                told = f"object {label} has the colour {colour}, but {before} in an earlier frame"
                self.faults.note("palette", f"{path}: {told}: the palettes were sorted anew and identities are lost")


def annotation_folder(root: Path | str) -> Path:
    """The folder of annotations: DAVIS's root leads to it, and it leads to itself. Raises InputError."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    for name in ANNOTATIONS:
        if (root / name).is_dir():
            root = root / name
            break
    for name in RESOLUTIONS:
        if (root / name).is_dir() and not any((root / name).glob("*.png")):
            return root / name
    return root


def sequences(folder: Path, root: Path, split: str | None = None) -> list[str]:
    """Names of the sequences in a folder of annotations, those of a split where one is named. Raises InputError."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and any(path.glob("*.png")))
    if not names:
        raise InputError(f"{folder}: expected folders of PNG label maps, one for each sequence")
    if split is None:
        return names
    lists = sorted((root / "ImageSets").glob(f"*/{split}.txt"), reverse=True)  # the latest year first
    if not lists:
        known = {path.stem for path in (root / "ImageSets").glob("*/*.txt")} or {"no lists"}
        raise InputError(f"{root}: no list of the split {split!r} in ImageSets; {nearest(split, known)}")
    wanted = [line.split()[0] for line in read_text(lists[0]).splitlines() if line.split()]
    for name in wanted:
        if name not in names:
            raise InputError(f"{folder}: no sequence {name!r}, which {lists[0]} names; {nearest(name, names)}")
    return wanted


def truth(folder: Path, name: str) -> Maps:
    """The truth of one sequence."""
    files = tuple(sorted((folder / name).glob("*.png")))
    return Maps(name, files, binary=_is_binary(files))


def answer(folder: Path, name: str, of: Maps, faults: Faults) -> Maps:
    """Proposals for the frames of a truth, by the names of its files.

    Raises FormatError for a missing sequence, a missing frame or one too many; with lenient `faults`, what is missing
    is empty, and what is too many is left out.
    """
    place = folder / name
    if not place.is_dir():
        faults.note("missing sequence", f"{folder}: no predictions for the sequence {name!r}")
    given = {path.name: path for path in sorted(place.glob("*.png"))} if place.is_dir() else {}
    wanted = [path.name for path in of.files if path is not None]
    if place.is_dir():
        for file in wanted:
            if file not in given:
                faults.note("missing frame", f"{place}: no prediction for frame {file}")
        for file in sorted(set(given) - set(wanted)):
            faults.note("extra frame", f"{place}: {file} has no truth")
    size = _read(next(path for path in of.files if path is not None))[0].shape
    files = tuple(given.get(file) for file in wanted)
    present = tuple(path for path in files if path is not None)
    return Maps(name, files, binary=bool(present) and _is_binary(present), size=(size[0], size[1]), faults=faults)


def _is_binary(files: Sequence[Path]) -> bool:
    """Black and white throughout, as in DAVIS 2016; told by the first map that shows anything, then by all."""
    for path in files:
        values = set(np.unique(_read(path)[0]).tolist()) - {0}
        if values and values != {VOID}:
            return False
    return True


def _read(path: Path) -> tuple[np.ndarray, list[int] | None]:
    """Label map uint8 [H, W] and palette; raises FormatError."""
    try:
        values, mode, palette = decode(read_image_file(path), str(path))
    except InputError as error:
        raise FormatError(str(error)) from None
    if mode not in ("1", "L", "P"):
        raise FormatError(f"{path}: expected a palette or grey PNG of object numbers, got mode {mode}")
    return values.astype(np.uint8), palette
