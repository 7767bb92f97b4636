"""Count objects that cross lines, and how long each identity stays in a zone.

A line is crossed where the path of an object's anchor, the centre or the bottom of its box, goes from one side to the
other between the line's ends. Walking from the line's first point to its second, "in" is towards your left hand, as in
supervision: upwards over a line that is drawn from left to right. An anchor nearer to the line than MARGIN is on
neither side, so that a trembling box is not counted again and again.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from tubelet.core.config import Config
from tubelet.core.errors import ConfigError
from tubelet.core.polygons import centres, inside, line, polygon

MARGIN = 0.005  # of the frame's diagonal
Corners = tuple[tuple[float, float], ...]
Direction = Literal["in", "out"]


class Counting(Config):
    """Lines and zones by name, in pixels of the frame.

    Raises ConfigError for a line without two different ends or a zone without an area.

    Example:
        >>> counting = tubelet.Counting(lines={"door": ((0, 180), (640, 180))}, anchor="bottom")
        >>> counting.lines["door"]
        ((0.0, 180.0), (640.0, 180.0))
    """

    lines: dict[str, Corners] = Field(default_factory=dict)
    zones: dict[str, Corners] = Field(default_factory=dict)
    # which point of an object's box crosses a line or is in a zone; "bottom" suits people on the ground
    anchor: Literal["centre", "bottom"] = "centre"

    @model_validator(mode="after")
    def _check(self) -> Counting:
        for name, ends in self.lines.items():
            line(f"line {name!r}", ends)
        for name, corners in self.zones.items():
            polygon(f"zone {name!r}", corners)
        if not self.lines and not self.zones:
            raise ConfigError("expected a line or a zone, got none")
        return self

    def anchors(self, boxes: np.ndarray) -> np.ndarray:
        """The points (x, y) [N, 2] of boxes (x1, y1, x2, y2) [N, 4] that cross lines and are in zones.

        Example:
            >>> counting = tubelet.Counting(zones={"lawn": ((0, 0), (9, 0), (9, 9))}, anchor="bottom")
            >>> counting.anchors(np.array([[0, 0, 4, 6]])).tolist()
            [[2.0, 6.0]]
        """
        points = centres(boxes)
        if self.anchor == "bottom":
            points[:, 1] = np.asarray(boxes).reshape(-1, 4)[:, 3]
        return points


class Crossing(NamedTuple):
    """An object that crossed a line.

    >>> from tubelet.inference.counting import Crossing
    >>> Crossing(frame=8, time=0.32, line="door", id=3, name="dog", direction="in").direction
    'in'
    """

    frame: int
    time: float
    line: str
    id: int
    name: str
    direction: Direction


@dataclass(slots=True)
class Visit:
    """One identity in one zone; seconds.

    >>> from tubelet.inference.counting import Visit
    >>> Visit(zone="lawn", id=3, name="dog", first=1.0).seconds
    0.0
    """

    zone: str
    id: int
    name: str
    first: float
    last: float = 0.0
    seconds: float = 0.0  # spent inside, all entries together
    entries: int = 0


@dataclass(slots=True)
class _Seen:
    """Where an object was last, and when: its side of each line, the anchor there, and the zones that it was in."""

    time: float = 0.0
    sides: dict[str, tuple[bool, np.ndarray]] = field(default_factory=dict)  # True: the left hand's
    zones: set[str] = field(default_factory=set)


class ObjectCounter:
    """Counts over the frames of a video or a stream; `add` takes one after another.

    Args:
        counting: The lines and zones.
        size: Height and width of the frames.
        period: Seconds that the first frame lasts; later ones last since the one before.
        memory: Forget identities that were not seen for so many seconds, so that a stream may be endless.

    >>> from tubelet.inference.counting import ObjectCounter
    >>> counting = tubelet.Counting(lines={"door": ((0, 50), (100, 50))})
    >>> counter = ObjectCounter(counting, size=(100, 100), period=0.04)
    >>> counter.add(0, 0.0, [7], ["dog"], np.array([[40, 60, 60, 80]]))
    >>> counter.add(1, 0.1, [7], ["dog"], np.array([[40, 10, 60, 30]]))
    >>> counter.totals("door")
    Counter({'in': 1})
    """

    def __init__(self, counting: Counting, size: tuple[int, int], period: float, *, memory: float = math.inf) -> None:
        self.counting = counting
        self.crossings: list[Crossing] = []
        self.visits: dict[tuple[str, int], Visit] = {}
        self._period = period
        self._memory = memory
        self._margin = MARGIN * float(np.hypot(*size))
        self._lines = {name: np.asarray(ends, np.float64) for name, ends in counting.lines.items()}
        self._zones = {name: np.asarray(corners, np.float64) for name, corners in counting.zones.items()}
        self._seen: dict[int, _Seen] = defaultdict(_Seen)
        self._time: float | None = None
        self._totals: dict[str, Counter[str]] = defaultdict(Counter)
        self._occupied: dict[str, int] = {}

    def add(self, frame: int, time: float, ids: Sequence[int], names: Sequence[str], boxes: np.ndarray) -> None:
        """Count a frame: its number and time, and its objects' ids, class names and boxes (x1, y1, x2, y2) [N, 4]."""
        lasted = self._period if self._time is None else time - self._time
        self._time = time
        for id in ids:
            self._seen[id].time = time
        self._forget(time - self._memory)

        points = self.counting.anchors(boxes)
        for n, (id, name) in enumerate(zip(ids, names, strict=True)):
            for line_name in self._lines:
                self._cross(line_name, frame, time, id, name, points[n])

        for zone, corners in self._zones.items():
            within = inside(points, corners)
            self._occupied[zone] = int(within.sum())
            for n, (id, name) in enumerate(zip(ids, names, strict=True)):
                self._visit(zone, time, lasted, id, name, is_inside=bool(within[n]))

    def totals(self, line_name: str) -> Counter[str]:
        """How many crossed a line so far, "in" and "out"."""
        return self._totals[line_name]

    def occupied(self, zone: str) -> int:
        """How many objects are in a zone in the last frame."""
        return self._occupied.get(zone, 0)

    def _forget(self, before: float) -> None:
        """Forget identities that were last seen before a time."""
        for id in [id for id, seen in self._seen.items() if seen.time < before]:
            del self._seen[id]
            for zone in self._zones:
                self.visits.pop((zone, id), None)

    def _cross(self, line_name: str, frame: int, time: float, id: int, name: str, point: np.ndarray) -> None:
        ends = self._lines[line_name]
        distance = _distance(ends, point)
        if abs(distance) <= self._margin:
            return

        is_left = distance < 0
        before = self._seen[id].sides.get(line_name)
        self._seen[id].sides[line_name] = (is_left, point)
        if before is None or before[0] == is_left or not _between_ends(ends, before[1], point):
            return
        direction: Direction = "in" if is_left else "out"
        self._totals[line_name][direction] += 1
        self.crossings.append(Crossing(frame, time, line_name, id, name, direction))

    def _visit(self, zone: str, time: float, lasted: float, id: int, name: str, *, is_inside: bool) -> None:
        zones = self._seen[id].zones
        if not is_inside:
            zones.discard(zone)
            return

        visit = self.visits.setdefault((zone, id), Visit(zone=zone, id=id, name=name, first=time))
        visit.entries += zone not in zones
        visit.name = name
        visit.last = time
        visit.seconds += lasted
        zones.add(zone)


def _distance(ends: np.ndarray, point: np.ndarray) -> float:
    """Signed distance of a point to the line through the ends: negative on the left hand's side, as y points down."""
    along = ends[1] - ends[0]
    away = point - ends[0]
    return float((along[0] * away[1] - along[1] * away[0]) / np.hypot(*along))


def _between_ends(ends: np.ndarray, before: np.ndarray, after: np.ndarray) -> bool:
    """Whether the way from one side to the other meets the line between its ends."""
    first = _distance(ends, before)
    second = _distance(ends, after)
    meeting = before + (after - before) * (first / (first - second))
    along = ends[1] - ends[0]
    share = float((meeting - ends[0]) @ along / (along @ along))
    return 0 <= share <= 1
