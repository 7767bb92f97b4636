"""The JSON of Label Studio's export, one task per image or video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from tubelet.formats.files import is_image
from tubelet.video.reader import VIDEO_SUFFIXES

UNNAMED = "object"  # class of a region without a label


class KeyFrame(msgspec.Struct):
    """A box of one frame, counted from 1; coordinates are percent of the frame, the angle degrees clockwise.

    Example:
        >>> from tubelet.formats.label_studio.document import KeyFrame
        >>> KeyFrame(frame=1, x=50, y=0, width=50, height=100).enabled
        True
    """

    frame: float
    x: float
    y: float
    width: float
    height: float
    rotation: float = 0
    enabled: bool = True  # False: the object is absent after this frame


class Value(msgspec.Struct, rename="camel"):
    """What a region covers, and its labels.

    Example:
        >>> from tubelet.formats.label_studio.document import Value
        >>> Value(points=[[0, 0], [100, 0], [100, 100]]).rle is None
        True
    """

    rle: list[int] | None = None
    points: list[tuple[float, float]] | None = None  # percent of width and height
    sequence: list[KeyFrame] | None = None
    frames_count: int = 0
    duration: float = 0  # seconds
    brushlabels: list[str] = []
    polygonlabels: list[str] = []
    labels: list[str] = []

    @property
    def label(self) -> str | None:
        """The first label, if there is one."""
        return next(iter(self.brushlabels + self.polygonlabels + self.labels), None)


class Region(msgspec.Struct):
    """One result of an annotation. A region may have two: what it covers, and its label.

    Example:
        >>> from tubelet.formats.label_studio.document import Region, Value
        >>> Region(id="x7f", type="brush", value=Value(rle=[0])).original_width
        0
    """

    type: str = ""
    id: str = ""
    value: Value = msgspec.field(default_factory=Value)
    original_width: int = 0
    original_height: int = 0

    @property
    def has_mask(self) -> bool:
        """Whether it covers pixels."""
        return self.value.rle is not None or self.value.points is not None or self.value.sequence is not None


class TaskAnnotation(msgspec.Struct):
    """What one person has annotated.

    Example:
        >>> from tubelet.formats.label_studio.document import TaskAnnotation
        >>> TaskAnnotation().result
        []
    """

    result: list[Region] = []
    was_cancelled: bool = False


class Task(msgspec.Struct):
    """One image or video.

    Example:
        >>> from tubelet.formats.label_studio.document import Task
        >>> Task(data={"image": "/data/local-files/?d=pets/cat.jpg"}).source
        'cat.jpg'
    """

    data: dict[str, Any]
    annotations: list[TaskAnnotation] = []

    @property
    def source(self) -> str | None:
        """The name of the file of the image or video, without its folder; None if there is no such file."""
        for value in self.data.values():
            name = _file_name(value) if isinstance(value, str) else ""
            if is_image(name) or is_video(name):
                return name
        return None

    @property
    def regions(self) -> list[Region]:
        """The results of the first annotation that was not cancelled."""
        return next((annotation.result for annotation in self.annotations if not annotation.was_cancelled), [])

    @property
    def objects(self) -> Iterator[tuple[Region, str]]:
        """Each region that has a mask, with its label; where the label is a result of its own, both have one id."""
        labelled = [region for region in self.regions if region.value.label is not None]
        labels = {region.id: region.value.label for region in reversed(labelled)}
        seen: set[str] = set()
        for region in self.regions:
            is_repeated = region.id != "" and region.id in seen
            if region.has_mask and not is_repeated:
                seen.add(region.id)
                yield region, region.value.label or labels.get(region.id) or UNNAMED


def is_video(name: str) -> bool:
    """Whether the name has the suffix of a video, in lower or upper case.

    Example:
        >>> from tubelet.formats.label_studio.document import is_video
        >>> is_video("walk.MP4"), is_video("walk.jpg")
        (True, False)
    """
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def _file_name(address: str) -> str:
    """The file of an address: of /data/local-files/?d=pets/cat.jpg it is cat.jpg."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    local = parse_qs(parts.query).get("d")
    path = local[0] if local else unquote(parts.path)
    return PurePosixPath(path.replace("\\", "/")).name.replace("\0", "")
