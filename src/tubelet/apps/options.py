"""Options that several commands have, and how their texts are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tubelet.apps.option_texts import (
    DISTINCT_HELP,
    ENGINE_HELP,
    INPUT_SIZE_HELP,
    OVERLAY_HELP,
    RESULTS_HELP,
    UNKNOWN_HELP,
)

if TYPE_CHECKING:
    from tubelet.formats.results_files import ResultsForm
    from tubelet.inference.counting import Counting

Classes = Annotated[
    str | None,
    typer.Option("--classes", metavar="NAMES", help="Keep these classes alone, as person,dog.", show_default="all"),
]
Region = Annotated[
    str | None,
    typer.Option(
        "--roi",
        metavar="POLYGON",
        help="Keep objects while their centre is inside: x1,y1,x2,y2,x3,y3,... in pixels.",
        show_default="the whole frame",
    ),
]
Start = Annotated[
    float | None, typer.Option("--start", min=0, metavar="SECONDS", help="Begin there.", show_default=False)
]
End = Annotated[float | None, typer.Option("--end", min=0, metavar="SECONDS", help="End there.", show_default=False)]
Every = Annotated[int, typer.Option("--every", min=1, metavar="N", help="Read every N-th frame alone.")]
Lines = Annotated[
    list[str] | None,
    typer.Option(
        "--line",
        metavar="[NAME=]x1,y1,x2,y2",
        help="Count objects that cross it, in and out (towards its left hand is in); may be given again.",
        show_default=False,
    ),
]
Zones = Annotated[
    list[str] | None,
    typer.Option(
        "--zone",
        metavar="[NAME=]POLYGON",
        help="Measure how long each object is inside; may be given again.",
        show_default=False,
    ),
]
Anchor = Annotated[
    str, typer.Option("--anchor", metavar="centre|bottom", help="Which point of an object's box is counted.")
]

Distinct = Annotated[
    float | None,
    typer.Option("--distinct", min=0, max=1, metavar="IOU", help=DISTINCT_HELP, show_default=False),
]
Unknown = Annotated[
    float | None, typer.Option("--unknown", min=0, max=1, metavar="T", help=UNKNOWN_HELP, show_default=False)
]
Engine = Annotated[str, typer.Option("--engine", metavar="NAME", help=ENGINE_HELP)]
InputSize = Annotated[
    int | None,
    typer.Option("--input-size", min=64, max=8192, metavar="N", help=INPUT_SIZE_HELP, show_default="the model's"),
]
Overlay = Annotated[
    list[str] | None,
    typer.Option(
        "--overlay",
        metavar="KEY=VALUE ...",
        help=OVERLAY_HELP,
        show_default="masks, outlines, labels and scores",
    ),
]
Results = Annotated[str, typer.Option("--results", metavar="auto|json|jsonl", help=RESULTS_HELP)]
Reading = Annotated[
    list[str] | None,
    typer.Option(
        "--window",
        metavar="KEY=VALUE ...",
        help="How to read, e.g. length=8 stride=4.",
        show_default="the model's",
    ),
]


def class_names(text: str | None) -> tuple[str, ...] | None:
    """The names in a text such as "person, dog"; None stays None.

    Raises ConfigError if there is none.

    Example:
        >>> from tubelet.apps.options import class_names
        >>> class_names("person, traffic light")
        ('person', 'traffic light')
    """
    from tubelet.core.errors import ConfigError

    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise ConfigError("--classes: expected class names such as person,dog")
    return names


def results_form(text: str) -> ResultsForm:
    """The form of results that a text names. Raises ConfigError if there is none.

    Example:
        >>> from tubelet.apps.options import results_form
        >>> results_form("jsonl")
        'jsonl'
    """
    from tubelet.core.errors import ConfigError

    forms: dict[str, ResultsForm] = {"auto": "auto", "json": "json", "jsonl": "jsonl"}
    if text not in forms:
        raise ConfigError(f"--results: expected one of {', '.join(forms)}, got {text!r}")
    return forms[text]


def region(text: str | None) -> tuple[tuple[float, float], ...] | None:
    """The corners in a text such as "0,0,100,0,100,50"; None stays None. Raises ConfigError if they are no polygon.

    Example:
        >>> from tubelet.apps.options import region
        >>> region("0,0 100,0 100,50")
        ((0.0, 0.0), (100.0, 0.0), (100.0, 50.0))
    """
    from tubelet.core.polygons import points_of, polygon

    if text is None:
        return None
    points = points_of("--roi", text)
    polygon("--roi", points)
    return tuple(points)


def counting_of(lines: list[str] | None, zones: list[str] | None, anchor: str) -> Counting | None:
    """The lines and zones of texts such as "door=0,180,640,180"; None if there are none.

    Raises ConfigError if one is no line or polygon, for a name that is used twice, or for another anchor.

    Example:
        >>> from tubelet.apps.options import counting_of
        >>> counting_of(["door=0,180,640,180", "0,90,640,90"], None, "centre").lines
        {'door': ((0.0, 180.0), (640.0, 180.0)), 'line 2': ((0.0, 90.0), (640.0, 90.0))}
    """
    from tubelet.inference.counting import Counting

    if not lines and not zones:
        return None
    return Counting.from_tree(
        {"lines": _named(lines or (), "line"), "zones": _named(zones or (), "zone"), "anchor": anchor}
    )


def _named(texts: Sequence[str], kind: str) -> dict[str, list[tuple[float, float]]]:
    from tubelet.core.errors import ConfigError
    from tubelet.core.polygons import points_of

    shapes: dict[str, list[tuple[float, float]]] = {}
    for number, text in enumerate(texts, start=1):
        name, _, points = text.rpartition("=")
        name = name.strip() or f"{kind} {number}"
        if name in shapes:
            raise ConfigError(f"--{kind}: the name {name!r} is used twice")
        shapes[name] = points_of(f"--{kind}", points)
    return shapes
