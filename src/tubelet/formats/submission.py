"""The zip that evaluation servers take: one results.json, checked before the file appears."""

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
FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # that a zip can hold
UNIX = 3  # whose permissions are told


def write(path: Path | str, predictions: Sequence[Prediction], truth: VideoSet) -> None:
    """Write a submission. Masks are compressed, absent ones null, scores in full, ids as the truth has them.

    The written list is read again as the servers would, before the zip takes its place. Raises FormatError for an empty
    one, which servers refuse, and for a class or video that the truth does not have.
    """
    path = Path(path)
    tracks = sum(len(prediction.tracks) for prediction in predictions)
    if tracks == 0:
        raise FormatError("a submission needs at least one prediction: servers refuse an empty list")
    with replacing(path) as archive:
        member = archive.with_name(f"{archive.name}.json")
        try:
            ytvis.write_results(member, predictions, truth)
            again = ytvis.read_predictions(member, truth)
            assert sum(len(prediction.tracks) for prediction in again) == tracks, "every track is written once"
            _pack(member, archive)
        finally:
            member.unlink(missing_ok=True)


def _pack(member: Path, archive: Path) -> None:
    """A zip without the clock and the user's permissions in it: equal results are equal bytes."""
    about = zipfile.ZipInfo(MEMBER, FIRST_DATE)
    about.compress_type = zipfile.ZIP_DEFLATED
    about.create_system = UNIX
    about.external_attr = 0o644 << 16
    about.file_size = member.stat().st_size  # more than 2 GiB need another form of entry
    with zipfile.ZipFile(archive, "w") as zipped, member.open("rb") as source, zipped.open(about, "w") as packed:
        shutil.copyfileobj(source, packed, 1 << 20)
