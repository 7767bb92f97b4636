"""The zip that evaluation servers take: one results.json, checked before the file appears."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tubelet.core.errors import FormatError, InputError
from tubelet.core.rest import Prediction, VideoSet
from tubelet.data import ytvis

MEMBER = "results.json"  # the name that the servers look for


def write(path: Path | str, predictions: Sequence[Prediction], truth: VideoSet) -> None:
    """Write a submission. Masks are compressed, absent ones null, scores in full, ids as the truth has them.

    The written list is read again as the servers would, before the zip takes its place. Raises FormatError for an empty
    one, which servers refuse, and for a class or video that the truth does not have.
    """
    path = Path(path)
    tracks = sum(len(prediction.tracks) for prediction in predictions)
    if tracks == 0:
        raise FormatError("a submission needs at least one prediction: servers refuse an empty list")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        member, archive = Path(scratch) / MEMBER, Path(scratch) / "submission.zip"
        ytvis.write_results(member, predictions, truth)
        again = ytvis.read_predictions(member, truth)
        assert sum(len(prediction.tracks) for prediction in again) == tracks, "every track is written once"
        try:
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
                zipped.write(member, MEMBER)
            os.replace(archive, path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None
