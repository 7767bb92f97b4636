"""What was found in a video: one line per object, and the number of objects of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from tubelet.core.records import Prediction
from tubelet.core.text import MOST_OF_A_CELL, printable

COLUMNS = ("id", "class", "score", "frames", "first", "last")


class SummaryRow(NamedTuple):
    """One object: where it is seen first and last, in seconds.

    >>> from tubelet.inference.summary import SummaryRow
    >>> SummaryRow(3, "dog", 0.9, 20, 0.4, 1.2).name
    'dog'
    """

    id: int
    name: str
    score: float
    frames: int
    first: float
    last: float

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        return (
            str(self.id),
            printable(self.name, MOST_OF_A_CELL),
            f"{self.score:.2f}",
            str(self.frames),
            f"{self.first:.2f} s",
            f"{self.last:.2f} s",
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """The objects of a video; printed as a table. A loop goes over its rows.

    >>> from tubelet.inference.summary import Summary, SummaryRow
    >>> summary = Summary((SummaryRow(3, "dog", 0.9, 20, 0.4, 1.2),), frames=30)
    >>> print(summary)
    1 dog in 30 frames
    id  class  score  frames  first   last
    3   dog    0.90   20      0.40 s  1.20 s
    >>> summary.counts["dog"]
    1
    """

    rows: tuple[SummaryRow, ...]
    frames: int  # of the video

    @property
    def counts(self) -> Counter[str]:
        """Number of objects of each class, as {"person": 2}; the most frequent first."""
        counter = Counter(row.name for row in self.rows)
        return Counter(dict(counter.most_common()))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[SummaryRow]:
        return iter(self.rows)

    @property
    def heading(self) -> str:
        """The counts in words: "2 person, 1 dog in 30 frames"."""
        counted = [f"{count} {printable(name, MOST_OF_A_CELL)}" for name, count in self.counts.items()]
        return f"{', '.join(counted) or 'no object'} in {self.frames} frames"

    def __str__(self) -> str:
        table = [COLUMNS, *(row.cells() for row in self.rows)] if self.rows else []
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for row in table:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([self.heading, *lines])

    def to_html(self) -> str:
        """The counts and the table in HTML, for notebooks."""
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        body = ""
        for row in self.rows:
            cells = "".join(f"<td>{escape(cell)}</td>" for cell in row.cells())
            body += f"<tr>{cells}</tr>"
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if self.rows else ""
        return f"<p>{escape(self.heading)}</p>{table}"

    def _repr_html_(self) -> str:
        return self.to_html()


def summarize(prediction: Prediction) -> Summary:
    """The summary of a prediction whose tracks know their times; tracks without a mask are left out."""
    rows = []
    for track in prediction.tracks:
        times = track.times
        if len(times):
            row = SummaryRow(track.id, track.name, track.score, len(times), float(times[0]), float(times[-1]))
            rows.append(row)
    return Summary(tuple(rows), prediction.length)
