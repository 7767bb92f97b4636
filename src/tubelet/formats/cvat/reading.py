"""Read CVAT's XML 1.1, of tasks of videos and of images.

A task is annotations.xml beside images/, as a folder or a zip archive. Several tasks are folders or archives side by
side. "CVAT for video" has one track per object, and each task is a video; "CVAT for images" has shapes per image, and
each image is a video of one frame.

Masks and polygons are read. Other shapes, such as rectangles, are skipped; a warning counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tubelet.core.errors import FormatError
from tubelet.core.types import VideoSet
from tubelet.core.untrusted.documents import Element
from tubelet.formats.cvat.images import CvatImages, ImageEntry, entries_of
from tubelet.formats.cvat.tasks import CvatTask, tasks_of
from tubelet.formats.cvat.videos import CvatVideos
from tubelet.formats.lazy import JoinedVideos


def read(root: str | Path, *, classes: Sequence[str] | None = None) -> VideoSet:
    """Read all tasks of a folder, or of one XML file or zip archive.

    Tracks are read when a video is used.

    Args:
        root: The folder or file.
        classes: Names of the classes; by default all labels, in the order in which they appear.

    Raises:
        InputError: if there is no annotations.xml.
        FormatError: names file, track and frame, if the XML is not of this format.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import cvat
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=[torch.zeros(3, 4, 6, dtype=torch.uint8)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = cvat.write(Path(folder, "set"), VideoSet(videos=[video], classes=("dog",)))
        ...     cvat.read(Path(folder, "set")).videos[0]
        Video(id='dog', size=(4, 6), frames=1, fps=25, tracks=0)
    """
    names: list[str] = list(classes or ())
    of_videos: list[CvatTask] = []
    images: list[ImageEntry] = []
    for task in tasks_of(Path(root)):
        tree = task.parse()
        if classes is None:
            names += [name for name in _labels(tree) if name not in names]
        if _is_for_images(tree):
            images += entries_of(task, tree)
        else:
            _check_single(tree, task.where)
            of_videos.append(task)

    videos = JoinedVideos(CvatVideos(of_videos, tuple(names)), CvatImages(images, tuple(names)))
    return VideoSet(videos=videos, classes=tuple(names))


def _is_for_images(tree: Element) -> bool:
    return tree.find("image") is not None and tree.find("track") is None


def _labels(tree: Element) -> list[str]:
    """The labels that the document declares, and then those that objects have."""
    declared = [element.findtext("name", "") for element in tree.iter("label")]
    in_tracks = [track.get("label", "") for track in tree.iter("track")]
    in_images = [shape.get("label", "") for image in tree.iter("image") for shape in image]
    return list(dict.fromkeys([*declared, *in_tracks, *in_images]))


def _check_single(tree: Element, where: str) -> None:
    """Frames of several videos have the same numbers."""
    tasks = tree.findall("./meta/project/tasks/task")
    if len(tasks) > 1:
        raise FormatError(f"{where}: an export of a project with {len(tasks)} videos; export each task")
