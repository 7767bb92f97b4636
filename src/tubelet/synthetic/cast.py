"""The creatures of the generated videos: eight classes of objects (`CAST`), and the scenery in front (`SCENERY`)."""

from __future__ import annotations

from tubelet.synthetic.shapes import BodyPart, Creature, Ellipse, Polygon


def _box(x1: float, y1: float, x2: float, y2: float) -> Polygon:
    return Polygon(((x1, y1), (x2, y1), (x2, y2), (x1, y2)))


def _eye(x: float, y: float, size: float) -> tuple[BodyPart, ...]:
    return (
        BodyPart(Ellipse(x, y, size, size), "light"),
        BodyPart(Ellipse(x + size * 0.3, y, size * 0.55, size * 0.55), "dark"),
    )


_FISH = Creature(
    (
        BodyPart(Polygon(((-0.5, 0.0), (-1.0, -0.5), (-0.84, 0.0))), "second", swing=(-0.5, 0.0, 0.06)),
        BodyPart(Polygon(((-0.5, 0.0), (-0.84, 0.0), (-1.0, 0.5))), "second", swing=(-0.5, 0.0, 0.06)),
        BodyPart(Polygon(((-0.3, -0.3), (-0.3, -0.62), (0.35, -0.3))), "second"),
        BodyPart(Ellipse(0.1, 0.0, 0.74, 0.42), pattern="stripes"),
        BodyPart(Ellipse(-0.05, 0.16, 0.2, 0.1, 0.06), "second", swing=(0.1, 0.1, 0.05)),
        *_eye(0.52, -0.1, 0.11),
        BodyPart(Ellipse(0.72, 0.12, 0.07, 0.025), "dark"),
    )
)

_BEETLE = Creature(
    (
        *(
            BodyPart(Ellipse(x, side * 0.55, 0.07, 0.32, side * lean), "dark", swing=(x, 0.0, 0.03), delay=n * 0.33)
            for n, (x, lean) in enumerate(((-0.5, 0.06), (-0.1, 0.0), (0.3, -0.06)))
            for side in (-1, 1)
        ),
        BodyPart(Ellipse(0.85, -0.2, 0.22, 0.03, -0.08), "dark"),
        BodyPart(Ellipse(0.85, 0.2, 0.22, 0.03, 0.08), "dark"),
        BodyPart(Ellipse(0.6, 0.0, 0.27, 0.32), "dark"),
        BodyPart(Ellipse(-0.1, 0.0, 0.72, 0.58), pattern="spots"),
        BodyPart(_box(-0.8, -0.025, 0.55, 0.025), "dark"),
        *_eye(0.72, -0.2, 0.08),
        *_eye(0.72, 0.2, 0.08),
    ),
    from_above=True,
)

_DUCK = Creature(
    (
        BodyPart(Polygon(((-0.5, 0.0), (-1.0, -0.28), (-0.55, 0.35))), "second"),
        BodyPart(Ellipse(-0.1, 0.75, 0.06, 0.22), "warm", swing=(-0.1, 0.5, 0.05)),
        BodyPart(Ellipse(0.1, 0.75, 0.06, 0.22), "warm", swing=(0.1, 0.5, 0.05), delay=0.5),
        BodyPart(Ellipse(-0.1, 0.2, 0.66, 0.42)),
        BodyPart(Ellipse(0.38, -0.15, 0.2, 0.36, 0.06)),
        BodyPart(Polygon(((0.62, -0.52), (1.0, -0.38), (0.62, -0.28))), "warm"),
        BodyPart(Ellipse(0.46, -0.45, 0.28, 0.27)),
        BodyPart(Ellipse(-0.2, 0.12, 0.4, 0.22, 0.03), "second", "scales", swing=(0.15, 0.1, 0.05)),
        *_eye(0.56, -0.5, 0.08),
    )
)

_CAR = Creature(
    (
        BodyPart(Polygon(((-0.62, 0.05), (-0.4, -0.42), (0.28, -0.42), (0.6, 0.05)))),
        BodyPart(Polygon(((-0.5, 0.02), (-0.34, -0.33), (-0.08, -0.33), (-0.08, 0.02))), "glass"),
        BodyPart(Polygon(((0.0, 0.02), (0.0, -0.33), (0.24, -0.33), (0.47, 0.02))), "glass"),
        BodyPart(Ellipse(-0.72, 0.2, 0.28, 0.2)),
        BodyPart(Ellipse(0.7, 0.22, 0.3, 0.19)),
        BodyPart(_box(-0.75, 0.02, 0.75, 0.4)),
        BodyPart(_box(-0.9, 0.18, 0.95, 0.26), "second"),
        BodyPart(Ellipse(0.92, 0.13, 0.07, 0.07), "light"),
        BodyPart(Ellipse(-0.52, 0.42, 0.23, 0.23), "dark"),
        BodyPart(Ellipse(-0.52, 0.42, 0.1, 0.1), "light"),
        BodyPart(Ellipse(0.52, 0.42, 0.23, 0.23), "dark"),
        BodyPart(Ellipse(0.52, 0.42, 0.1, 0.1), "light"),
    )
)

_CAT = Creature(
    (
        BodyPart(Ellipse(-0.82, -0.25, 0.09, 0.42, -0.06), "second", swing=(-0.65, 0.05, 0.05)),
        *(
            BodyPart(Ellipse(x, 0.55, 0.09, 0.34), "second", swing=(x, 0.25, 0.06), delay=delay)
            for x, delay in ((-0.5, 0.0), (-0.32, 0.5), (0.18, 0.5), (0.36, 0.0))
        ),
        BodyPart(Ellipse(-0.1, 0.1, 0.64, 0.33), pattern="stripes"),
        BodyPart(Polygon(((0.38, -0.45), (0.4, -0.82), (0.6, -0.56)))),
        BodyPart(Polygon(((0.62, -0.56), (0.82, -0.8), (0.84, -0.42)))),
        BodyPart(Ellipse(0.6, -0.3, 0.32, 0.29)),
        *_eye(0.52, -0.34, 0.08),
        *_eye(0.74, -0.34, 0.08),
        BodyPart(Ellipse(0.66, -0.2, 0.05, 0.035), "dark"),
    )
)

_BUTTERFLY = Creature(
    (
        *(BodyPart(Ellipse(-0.38, side * 0.4, 0.36, 0.36), "second", "spots", flap=0.55) for side in (-1, 1)),
        *(
            BodyPart(Ellipse(0.25, side * 0.52, 0.48, 0.46, side * 0.08), "body", "rings", flap=0.55)
            for side in (-1, 1)
        ),
        BodyPart(Ellipse(0.72, -0.12, 0.26, 0.025, -0.05), "dark"),
        BodyPart(Ellipse(0.72, 0.12, 0.26, 0.025, 0.05), "dark"),
        BodyPart(Ellipse(0.0, 0.0, 0.62, 0.1), "dark"),
    ),
    from_above=True,
)

_SNAIL = Creature(
    (
        BodyPart(Ellipse(0.62, -0.2, 0.035, 0.3, -0.02), "second", swing=(0.65, 0.1, 0.03)),
        BodyPart(Ellipse(0.84, -0.18, 0.035, 0.3, 0.03), "second", swing=(0.75, 0.1, 0.03), delay=0.3),
        BodyPart(Ellipse(0.0, 0.52, 0.95, 0.17), "second"),
        BodyPart(Ellipse(0.72, 0.27, 0.2, 0.34), "second"),
        BodyPart(Ellipse(-0.15, 0.0, 0.58, 0.54), "body", "rings"),
        *_eye(0.6, -0.48, 0.08),
        *_eye(0.9, -0.45, 0.08),
    )
)

_BALLOON = Creature(
    (
        BodyPart(Polygon(((-0.12, 0.5), (0.12, 0.5), (0.15, 0.75), (-0.15, 0.75))), "light"),
        BodyPart(_box(-0.18, 0.72, 0.18, 0.98), "warm", "scales"),
        BodyPart(Polygon(((-0.6, 0.1), (0.6, 0.1), (0.14, 0.62), (-0.14, 0.62))), "body", "bars"),
        BodyPart(Ellipse(0.0, -0.22, 0.72, 0.7), "body", "bars"),
    )
)

_POST = Creature(
    (
        BodyPart(_box(-0.16, -1.0, 0.16, 1.0), "body", "scales"),
        BodyPart(_box(-0.22, -1.0, 0.22, -0.9), "second"),
        BodyPart(_box(-0.22, 0.9, 0.22, 1.0), "second"),
    )
)

_BUSH = Creature(
    (
        BodyPart(_box(-0.08, 0.3, 0.08, 1.0), "second"),
        *(
            BodyPart(Ellipse(x, y, 0.4, 0.36), "body", "scales", swing=(0.0, 1.0, 0.01), delay=x)
            for x, y in ((-0.4, 0.25), (0.4, 0.2), (-0.25, -0.25), (0.3, -0.3), (0.0, 0.05), (0.0, -0.55))
        ),
    )
)

SCENERY: dict[str, Creature] = {"post": _POST, "bush": _BUSH}

CAST: dict[str, Creature] = {
    "fish": _FISH,
    "beetle": _BEETLE,
    "duck": _DUCK,
    "car": _CAR,
    "cat": _CAT,
    "butterfly": _BUTTERFLY,
    "snail": _SNAIL,
    "balloon": _BALLOON,
}
