"""Results of many videos at an address: each is written here whole, then sent, its marker last.

So a folder that has a marker there is complete, whatever killed the process that sent it. What was finished here and
could not be sent stays here, and the next run sends it without computing it again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tubelet.core.cache import cache_folder
from tubelet.core.errors import InputError
from tubelet.core.remote import RemoteFolder, shown
from tubelet.inference.many import batch
from tubelet.inference.many.batch import MARKER, OURS, Earlier, Settings, VideoJob, VideoOutcome, judge, line_of
from tubelet.inference.predict import Model


@dataclass(frozen=True, slots=True)
class RemoteResults:
    """A folder of results at an address.

    >>> RemoteResults("s3://bucket/results").shown
    's3://bucket/results'
    """

    address: str

    @property
    def shown(self) -> str:
        """The address for people."""
        return shown(self.folder.address)

    @property
    def folder(self) -> RemoteFolder:
        return RemoteFolder(self.address.rstrip("/"))

    @property
    def staging(self) -> Path:
        """Where results are written before they are sent; the same on every machine, and for every run."""
        return cache_folder("batch") / hashlib.sha256(self.folder.address.encode()).hexdigest()[:16]

    def earlier(self, jobs: Sequence[VideoJob], settings: Settings) -> list[Earlier]:
        """What earlier runs have finished there, for each video."""
        markers = self.folder.read([f"{job.name}/{MARKER}" for job in jobs])
        return [judge(markers.get(f"{job.name}/{MARKER}", b""), job, settings) for job in jobs]

    def segment(self, model: Model, job: VideoJob, out: Path, settings: Settings) -> VideoOutcome:
        """Predict one video as `batch.segment`, in the folder `out` of this machine, and send the results.

        If an earlier try has sent them, nothing is done again. What cannot be sent is a failed outcome.
        """
        try:
            (before,) = self.earlier([job], settings)
            if before.outcome is not None:
                return replace(before.outcome, status="done")
            outcome = batch.segment(model, job, out, settings)
            if outcome.status == "done":
                self._send(out / job.name, job.name)
        except InputError as error:  # of the address
            return VideoOutcome(video=job.title, folder=job.name, status="failed", note=line_of(error))
        return outcome

    def send_summary(self, files: Sequence[Path]) -> None:
        """Send the tables of all videos, and remove them and their folder here if nothing is left to be sent."""
        for path in files:
            self.folder.put(path, path.name)
            path.unlink()
        with suppress(OSError):  # not empty
            self.staging.rmdir()

    def _send(self, folder: Path, name: str) -> None:
        """Send the files of a finished video. Those of other settings go first, and before them their marker."""
        before = self.folder.names(name)
        for old in sorted(set(OURS) & set(before), key=OURS.index):
            self.folder.remove(f"{name}/{old}")
        for new in reversed(OURS):  # the marker last
            if (folder / new).exists():
                self.folder.put(folder / new, f"{name}/{new}")
        shutil.rmtree(folder, ignore_errors=True)
