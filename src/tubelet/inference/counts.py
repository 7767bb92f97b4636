"""The numbers of a count: per line and class in and out, per zone and identity the time; as text and as CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tubelet.core.atomic import together
from tubelet.core.text import MOST_OF_A_CELL, plain, printable
from tubelet.core.untrusted.files import as_path
from tubelet.inference.counting import Crossing, ObjectCounter, Visit

LINES, CROSSINGS, ZONES = "counts.csv", "crossings.csv", "zones.csv"


class LineCount(NamedTuple):
    """How many objects of a class crossed a line, in and out.

    >>> from tubelet.inference.counts import LineCount
    >>> LineCount("door", "person", entered=3, left=1).entered
    3
    """

    line: str
    name: str
    entered: int
    left: int


@dataclass(frozen=True, slots=True)
class ObjectCounts:
    """What was counted; printed as lines of text.

    >>> from tubelet.inference.counting import Crossing
    >>> from tubelet.inference.counts import ObjectCounts
    >>> counts = ObjectCounts(crossings=(Crossing(8, 0.32, "door", 3, "dog", "in"),), visits=())
    >>> print(counts)
    door: 1 dog in, 0 out
    """

    crossings: tuple[Crossing, ...]  # in the order of time
    visits: tuple[Visit, ...]

    @property
    def lines(self) -> tuple[LineCount, ...]:
        """A row for each line and class that crossed it."""
        numbers = Counter((crossing.line, crossing.name, crossing.direction) for crossing in self.crossings)
        pairs = dict.fromkeys((crossing.line, crossing.name) for crossing in self.crossings)
        return tuple(
            LineCount(line, name, numbers[line, name, "in"], numbers[line, name, "out"]) for line, name in pairs
        )

    def __str__(self) -> str:
        rows = [f"{row.line}: {row.entered} {row.name} in, {row.left} out" for row in self.lines]
        rows += [f"{visit.zone}: {visit.name} {visit.id} for {visit.seconds:.2f} s" for visit in self.visits]
        return "\n".join(printable(row, MOST_OF_A_CELL) for row in rows) or "nothing was counted"

    def save(self, folder: str | Path) -> None:
        """Write counts.csv and crossings.csv of the lines, and zones.csv; all or none."""
        with together(as_path(folder, "the folder of counts")) as scratch:
            self.write(scratch)

    def write(self, folder: Path) -> None:
        """Write the files into a folder that is there."""
        crossings = [
            (entry.frame, round(entry.time, 4), entry.line, entry.id, entry.name, entry.direction)
            for entry in self.crossings
        ]
        visits = [
            (
                entry.zone,
                entry.id,
                entry.name,
                entry.entries,
                round(entry.first, 4),
                round(entry.last, 4),
                round(entry.seconds, 4),
            )
            for entry in self.visits
        ]
        _write(folder / LINES, ("line", "class", "in", "out"), self.lines)
        _write(folder / CROSSINGS, ("frame", "time", "line", "id", "class", "direction"), crossings)
        _write(folder / ZONES, ("zone", "id", "class", "entries", "first", "last", "seconds"), visits)


def counts_of(counter: ObjectCounter) -> ObjectCounts:
    """What a counter has counted so far.

    >>> from tubelet.inference.counting import ObjectCounter
    >>> from tubelet.inference.counts import counts_of
    >>> counting = tubelet.Counting(lines={"door": ((0, 50), (100, 50))})
    >>> print(counts_of(ObjectCounter(counting, size=(100, 100), period=0.04)))
    nothing was counted
    """
    visits = sorted(counter.visits.values(), key=lambda visit: (visit.zone, visit.id))
    return ObjectCounts(tuple(counter.crossings), tuple(visits))


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow([plain(cell) if isinstance(cell, str) else cell for cell in row])
