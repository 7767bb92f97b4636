"""Several videos or a data set as the source of `tubelet predict`: each video into a folder of its own."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tubelet.apps.console import Leave
from tubelet.apps.opening import load_model

if TYPE_CHECKING:
    from tubelet.inference.many.batch import Settings


def is_data_set(source: str) -> bool:
    """Whether a path is a data set: a JSON, an archive, or a folder of a known form.

    A folder with images at its top is a video, whatever else is in it.
    """
    from tubelet.core.errors import TubeletError
    from tubelet.formats import registry
    from tubelet.formats.files import is_image

    path = Path(source)
    if path.suffix.lower() in (".json", ".zip"):
        return path.is_file()
    if not path.is_dir() or any(is_image(entry.name) for entry in path.iterdir()):
        return False
    with suppress(TubeletError):
        registry.detect(path)
        return True
    return False


def is_one_video(sources: Sequence[str]) -> bool:
    """Whether sources make one video: a file, an address, images, or a folder or pattern of images.

    Example:
        >>> from tubelet.apps.batch.sets import is_one_video
        >>> is_one_video(["dog.mp4"]), is_one_video(["a.png", "b.png"]), is_one_video(["a.mp4", "b.mp4"])
        (True, True, False)
    """
    from tubelet.core.untrusted.addresses import is_address
    from tubelet.formats.files import is_image

    if len(sources) > 1:
        return all(is_image(source) for source in sources)
    path = Path(sources[0])
    if path.is_dir():
        return any(is_image(entry.name) for entry in path.iterdir())
    if path.exists() or is_address(sources[0]) or not glob.has_magic(sources[0]):
        return True
    matches = glob.glob(sources[0], recursive=True)
    return len(matches) <= 1 or all(is_image(match) for match in matches)


def predict_many(
    sources: Sequence[str], out: Path, model: str, device: str, settings: Settings, *, semantic: bool
) -> None:
    """Write a folder of results for each video of several sources, or of a data set; finished ones are skipped.

    Raises InputError if there is no video, or for class maps, which are made of one video at a time.
    """
    from tubelet.apps.batch.command import SOME_FAILED, fingerprint, places, work_through
    from tubelet.apps.batch.inputs import find_jobs
    from tubelet.core.atomic import check_folder
    from tubelet.core.errors import InputError
    from tubelet.inference.many.evaluation import jobs_of_set

    if semantic:
        raise InputError("--semantic is for one video at a time, not for several or a data set")
    check_folder(out)
    is_set = len(sources) == 1 and is_data_set(sources[0])
    jobs = jobs_of_set(Path(sources[0])) if is_set else find_jobs(sources, (), out)
    if not jobs:
        raise InputError(f"{sources[0]}: expected videos, found none")

    devices = places(device, 1, 1)
    settings = settings.but(model=fingerprint(model), device=devices[0].partition(":")[0])
    if work_through(
        jobs, out, partial(load_model, model, engine=settings.engine, input_size=settings.input_size), settings, devices
    ):
        raise Leave(SOME_FAILED)
