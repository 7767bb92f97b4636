"""A data set as the source of `tubelet predict`: all its videos, each into a folder of its own."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from tubelet.apps.console import Leave
from tubelet.apps.opening import load_model

Option = float | int | bool | tuple[str, ...] | None


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


def predict_set(path: Path, out: Path, model: str, device: str, *, semantic: bool, options: dict[str, Option]) -> None:
    """Write a folder of results for each video of a data set; videos that are finished already are skipped.

    Raises InputError if the set is empty, or for class maps, which are made of one video at a time.
    """
    from tubelet.apps.batch.command import SOME_FAILED, fingerprint, places, work_through
    from tubelet.core.atomic import check_folder
    from tubelet.core.errors import InputError
    from tubelet.inference.many.batch import Settings
    from tubelet.inference.many.evaluation import jobs_of_set

    if semantic:
        raise InputError("--semantic is for one video at a time, not for a data set")
    check_folder(out)
    jobs = jobs_of_set(path)
    if not jobs:
        raise InputError(f"{path}: expected videos, found none")

    devices = places(device, 1, 1)
    settings = Settings.from_tree({**options, "model": fingerprint(model), "device": devices[0].partition(":")[0]})
    if work_through(jobs, out, partial(load_model, model), settings, devices):
        raise Leave(SOME_FAILED)
