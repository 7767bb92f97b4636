"""Read the label maps of DAVIS folders for evaluation, one PNG at a time, without torch."""

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
    """The label maps of one sequence, uint8 [H, W] each, read while iterating.

    A missing file (None) gives an empty map of the previous map's size, or of `size` if it is the first.

    Example:
        >>> from tubelet.formats.davis_masks import Maps
        >>> [labels.tolist() for labels in Maps("dog", files=(None,), size=(1, 2))]
        [[[0, 0]]]
    """

    name: str
    files: tuple[Path | None, ...]
    binary: bool = False  # black and white: every pixel that is not black is object 1
    size: tuple[int, int] | None = None  # height, width
    faults: Faults = field(default_factory=Faults)  # collects issues, or raises at the first

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
        """Note an issue if a label's colour changes: programs that re-sort palettes mix up the objects."""
        if palette is None or self.binary:
            return

        for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist():
            colour = tuple(palette[3 * label : 3 * label + 3])
            first_colour = colours.setdefault(label, colour)
            if colour != first_colour:
                change = f"object {label} has the colour {colour}, but {first_colour} in an earlier frame"
                self.faults.note("palette", f"{path}: {change}: the palettes were sorted anew and identities are lost")


def annotation_folder(root: Path | str) -> Path:
    """Find the folder of annotations, given DAVIS's root or that folder itself.

    Raises InputError if `root` is not a folder.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.davis_masks import annotation_folder
        >>> with tempfile.TemporaryDirectory() as root:
        ...     Path(root, "Annotations", "480p").mkdir(parents=True)
        ...     annotation_folder(root).relative_to(root).as_posix()
        'Annotations/480p'
    """
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
    """List the sequences in a folder of annotations, or those of a split.

    Args:
        folder: The folder of annotations.
        root: DAVIS's root, with ImageSets.
        split: Name of a list in ImageSets/<year>; the latest year counts.

    Raises:
        InputError: if there are no label maps, no such list, or a listed sequence is missing.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.davis_masks import sequences
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "dog").mkdir()
        ...     Path(folder, "dog", "00000.png").touch()
        ...     sequences(Path(folder), root=Path(folder))
        ['dog']
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and any(path.glob("*.png")))
    if not names:
        raise InputError(f"{folder}: expected folders of PNG label maps, one for each sequence")
    if split is None:
        return names

    lists = sorted((root / "ImageSets").glob(f"*/{split}.txt"), reverse=True)  # the latest year first
    if not lists:
        known = {path.stem for path in (root / "ImageSets").glob("*/*.txt")} or {"no lists"}
        raise InputError(f"{root}: no list of the split {split!r} in ImageSets; {nearest(split, known)}")

    listed = [line.split()[0] for line in read_text(lists[0]).splitlines() if line.split()]
    for name in listed:
        if name not in names:
            raise InputError(f"{folder}: no sequence {name!r}, which {lists[0]} names; {nearest(name, names)}")
    return listed


def truth(folder: Path, name: str) -> Maps:
    """Open the ground truth of one sequence.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats import davis_masks, label_maps
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "dog").mkdir()
        ...     data = label_maps.encode_map(np.array([[0, 3]]))
        ...     _ = Path(folder, "dog", "00000.png").write_bytes(data)
        ...     [labels.tolist() for labels in davis_masks.truth(Path(folder), "dog")]
        [[[0, 3]]]
    """
    files = tuple(sorted((folder / name).glob("*.png")))
    return Maps(name, files, binary=_is_binary(files))


def answer(folder: Path, name: str, of: Maps, faults: Faults) -> Maps:
    """Open the predictions of one sequence, for the frames of its ground truth; files match by name.

    Args:
        folder: Holds one folder per sequence.
        name: The sequence.
        of: Its ground truth.
        faults: If lenient, a missing sequence or frame counts as empty and an extra frame is skipped.

    Raises:
        FormatError: for a missing sequence, a missing frame or an extra frame, unless lenient.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats import davis_masks, label_maps
        >>> from tubelet.formats.ytvis.document import Faults
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "dog").mkdir()
        ...     data = label_maps.encode_map(np.array([[0, 3]]))
        ...     _ = Path(folder, "dog", "00000.png").write_bytes(data)
        ...     truth = davis_masks.truth(Path(folder), "dog")
        ...     len(davis_masks.answer(Path(folder), "dog", truth, Faults()))
        1
    """
    predictions = folder / name
    paths: dict[str, Path] = {}
    frames = [path.name for path in of.files if path is not None]

    if predictions.is_dir():
        paths = {path.name: path for path in sorted(predictions.glob("*.png"))}
        for frame in frames:
            if frame not in paths:
                faults.note("missing frame", f"{predictions}: no prediction for frame {frame}")
        for frame in sorted(set(paths) - set(frames)):
            faults.note("extra frame", f"{predictions}: {frame} has no truth")
    else:
        faults.note("missing sequence", f"{folder}: no predictions for the sequence {name!r}")

    size = _read(next(path for path in of.files if path is not None))[0].shape
    files = tuple(paths.get(frame) for frame in frames)
    present = tuple(path for path in files if path is not None)
    return Maps(name, files, binary=bool(present) and _is_binary(present), size=(size[0], size[1]), faults=faults)


def _is_binary(files: Sequence[Path]) -> bool:
    """Whether all maps have no other values than 0 and 255, as in DAVIS 2016."""
    for path in files:
        values = set(np.unique(_read(path)[0]).tolist()) - {0}
        if values and values != {VOID}:
            return False
    return True


def _read(path: Path) -> tuple[np.ndarray, list[int] | None]:
    """Label map uint8 [H, W], and its palette (R, G, B, R, ...) if it has one."""
    try:
        values, mode, palette = decode(read_image_file(path), str(path))
    except InputError as error:
        raise FormatError(str(error)) from None
    if mode not in ("1", "L", "P"):
        raise FormatError(f"{path}: expected a palette or grey PNG of object numbers, got mode {mode}")
    return values.astype(np.uint8), palette
