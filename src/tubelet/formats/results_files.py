"""The file of results in a folder: predictions.json, or predictions.jsonl for long videos."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tubelet.core.arguments import short
from tubelet.core.atomic import discard
from tubelet.core.errors import ConfigError
from tubelet.core.untrusted.files import exists

ResultsForm = Literal["auto", "json", "jsonl"]  # auto: by the length of the video

PREDICTIONS = "predictions.json"  # YouTube-VIS
FRAME_LINES = "predictions.jsonl"  # `formats.frame_lines`
LONG_VIDEO = 10_000  # frames; YouTube-VIS has an entry for every frame of every track, present or not


def results_name(form: ResultsForm, length: int) -> str:
    """The name of the file of results of a video of so many frames. Raises ConfigError for an unknown form.

    Example:
        >>> from tubelet.formats.results_files import results_name
        >>> results_name("auto", length=300), results_name("auto", length=100_000)
        ('predictions.json', 'predictions.jsonl')
    """
    names = {"json": PREDICTIONS, "jsonl": FRAME_LINES, "auto": FRAME_LINES if length > LONG_VIDEO else PREDICTIONS}
    if form not in names:
        raise ConfigError(f"results: expected one of {', '.join(names)}, got {short(form)}")
    return names[form]


def results_in(folder: Path) -> Path:
    """The file of results in a folder; of both, the one that was written last: a run that was cut off has left them.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.results_files import results_in
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results_in(Path(folder)).name
        'predictions.json'
    """
    present = [path for path in (folder / PREDICTIONS, folder / FRAME_LINES) if exists(path)]
    return max(present, key=lambda path: path.stat().st_mtime_ns, default=folder / PREDICTIONS)


def discard_other_results(folder: Path, name: str) -> None:
    """Remove what an earlier run has left under the other name, so that nobody takes it for these results.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.results_files import FRAME_LINES, PREDICTIONS, discard_other_results
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, PREDICTIONS).touch()
        ...     discard_other_results(Path(folder), FRAME_LINES)
        ...     list(Path(folder).iterdir())
        []
    """
    discard(folder / (PREDICTIONS if name == FRAME_LINES else FRAME_LINES))
