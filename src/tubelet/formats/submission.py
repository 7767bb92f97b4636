"""Write the zip that evaluation servers take: one results.json, checked before the zip is in place."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tubelet.core.atomic import replacing
from tubelet.core.errors import FormatError
from tubelet.core.records import Prediction, VideoSet
from tubelet.formats import ytvis

MEMBER = "results.json"  # the name that the servers look for
FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can have
UNIX = 3  # the system whose file permissions follow


def write(path: Path | str, predictions: Sequence[Prediction], truth: VideoSet) -> None:
    """Write a submission: compressed masks, null where absent, unrounded scores, and the ids of the truth.

    The results are read again, as a server would, before the zip is in place.

    Args:
        path: The zip.
        predictions: At least one track in all.
        truth: The set that the predictions are for.

    Raises:
        FormatError: if there is no track, which servers refuse, or a class or video that the truth
            does not have.

    Example:
        >>> import tempfile, zipfile
        >>> from pathlib import Path
        >>> from tubelet.core import masks
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import submission
        >>> truth = VideoSet(videos=[tubelet.Video(id="7", size=(4, 6), frames=[None])], classes=("dog",))
        >>> (rle,) = masks.encode(np.ones((1, 4, 6), bool))
        >>> track = tubelet.Track(id=1, label=0, score=0.5, rles=(rle,))
        >>> prediction = tubelet.Prediction(video="7", size=(4, 6), length=1, tracks=(track,), classes=("dog",))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     submission.write(Path(folder, "results.zip"), [prediction], truth)
        ...     zipfile.ZipFile(Path(folder, "results.zip")).namelist()
        ['results.json']
    """
    path = Path(path)
    num_tracks = sum(len(prediction.tracks) for prediction in predictions)
    if num_tracks == 0:
        raise FormatError("a submission needs at least one prediction: servers refuse an empty list")

    with replacing(path) as archive:
        member = archive.with_name(f"{archive.name}.json")
        try:
            ytvis.write_results(member, predictions, truth)
            read_back = ytvis.read_predictions(member, truth)
            assert sum(len(prediction.tracks) for prediction in read_back) == num_tracks, "every track is written once"
            _pack(member, archive)
        finally:
            member.unlink(missing_ok=True)


def _pack(member: Path, archive: Path) -> None:
    """Write a zip without date and permissions, so that equal results are equal bytes."""
    info = zipfile.ZipInfo(MEMBER, FIRST_DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = UNIX
    info.external_attr = 0o644 << 16
    info.file_size = member.stat().st_size  # more than 2 GiB need the ZIP64 format
    with zipfile.ZipFile(archive, "w") as file, member.open("rb") as source, file.open(info, "w") as target:
        shutil.copyfileobj(source, target, 1 << 20)
