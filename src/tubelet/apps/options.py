"""Options that several commands have, and how their texts are read."""

from __future__ import annotations

from typing import Annotated

import typer

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
