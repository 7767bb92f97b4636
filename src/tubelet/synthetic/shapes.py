"""Draw the creatures of the generated videos from ellipses and convex polygons, with patterns and moving parts.

A creature is a list of parts in its own coordinates: u to the right (forwards), v down, all within about [-1, 1].
Everything is elementwise IEEE arithmetic and a table of sines, so each pixel is the same on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

_STEPS = 4096  # of the table of sines
_UNIT = 2**14  # its entries are multiples of one over this
_SINES = np.array([round(math.sin(2 * math.pi * k / _STEPS) * _UNIT) for k in range(_STEPS)]) / _UNIT

Colour = tuple[int, int, int]
Paint = Literal["body", "second", "dark", "light", "glass", "warm"]
Pattern = Literal["plain", "stripes", "bars", "spots", "rings", "scales"]


def sine(turns: np.ndarray | float) -> np.ndarray:
    """sin(2 pi turns), from a table of multiples of 2^-14: libm's last bit differs between machines.

    >>> from tubelet.synthetic.shapes import sine
    >>> sine(np.array([0, 0.25, 0.5, 0.75])).tolist()
    [0.0, 1.0, 0.0, -1.0]
    """
    steps = np.floor(np.asarray(turns, np.float64) * _STEPS + 0.5)
    return _SINES[steps.astype(np.int64) % _STEPS]


def cosine(turns: np.ndarray | float) -> np.ndarray:
    """cos(2 pi turns), from the same table.

    >>> from tubelet.synthetic.shapes import cosine
    >>> cosine(np.array([0, 0.25, 0.5])).tolist()
    [1.0, 0.0, -1.0]
    """
    return sine(np.asarray(turns, np.float64) + 0.25)


@dataclass(frozen=True, slots=True)
class Ellipse:
    """An ellipse: centre, radii, and a rotation in turns (1 is a full one).

    >>> from tubelet.synthetic.shapes import Ellipse
    >>> Ellipse(x=0, y=0, across=2, down=1).depth(np.array([0, 2, 0]), np.array([0, 0, 2])).tolist()
    [1.0, 0.0, -3.0]
    """

    x: float
    y: float
    across: float
    down: float
    turn: float = 0.0

    def depth(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """1 in the middle, 0 on the edge, negative outside."""
        cos = float(cosine(self.turn))
        sin = float(sine(self.turn))
        x = u - self.x
        y = v - self.y
        along = (x * cos + y * sin) / self.across
        beside = (y * cos - x * sin) / self.down
        return 1 - (along * along + beside * beside)


@dataclass(frozen=True, slots=True)
class Polygon:
    """A convex polygon; its corners may run in either direction.

    >>> from tubelet.synthetic.shapes import Polygon
    >>> square = Polygon(((0, 0), (1, 0), (1, 1), (0, 1)))
    >>> square.depth(np.array([0.5, 2]), np.array([0.5, 0.5])).tolist()
    [0.6, -1.0]
    """

    corners: tuple[tuple[float, float], ...]

    def depth(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """0.6 everywhere inside, since polygons are not shaded, and -1 outside."""
        edges = list(zip(self.corners, self.corners[1:] + self.corners[:1], strict=True))
        side = math.copysign(1, sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in edges))
        inside = np.ones(u.shape, bool)
        for (x1, y1), (x2, y2) in edges:
            inside &= side * ((x2 - x1) * (v - y1) - (y2 - y1) * (u - x1)) >= 0
        return np.where(inside, 0.6, -1.0)


@dataclass(frozen=True, slots=True)
class BodyPart:
    """A painted shape; it may swing about a pivot or flap towards the line v = 0.

    >>> from tubelet.synthetic.shapes import Ellipse, BodyPart
    >>> part = BodyPart(Ellipse(0, 0, 1, 1), flap=0.5)
    >>> u, v = part.place(np.array([0.3]), np.array([0.3]), phase=0.25)  # at its narrowest
    >>> v.tolist()
    [0.6]
    """

    shape: Ellipse | Polygon
    paint: Paint = "body"
    pattern: Pattern = "plain"
    swing: tuple[float, float, float] | None = None  # pivot x and y, and amplitude in turns
    delay: float = 0.0  # of the movement, in turns
    flap: float = 0.0  # share of the width that is lost

    def place(self, u: np.ndarray, v: np.ndarray, phase: float) -> tuple[np.ndarray, np.ndarray]:
        """Transform points (u, v) of the moved part to its resting pose; `phase` is in turns."""
        wave = float(sine(phase + self.delay))
        if self.flap:
            v = v / (1 - self.flap * (0.5 + 0.5 * wave))
        if self.swing is None:
            return u, v
        x, y, amplitude = self.swing
        cos = float(cosine(amplitude * wave))
        sin = float(sine(amplitude * wave))
        return (u - x) * cos + (v - y) * sin + x, (v - y) * cos - (u - x) * sin + y


@dataclass(frozen=True, slots=True)
class Creature:
    """The shape of a class of objects: its parts, from back to front.

    >>> from tubelet.synthetic.shapes import Creature, Ellipse, BodyPart
    >>> ball = Creature((BodyPart(Ellipse(0, 0, 1, 1)),))
    >>> ball.from_above
    False
    """

    parts: tuple[BodyPart, ...]
    from_above: bool = False  # True: it turns to where it goes; False: it only faces left or right


@dataclass(frozen=True, slots=True)
class Look:
    """The appearance of one individual: its colours, and how fine its pattern is.

    >>> from tubelet.synthetic.shapes import Look
    >>> look = Look(body=(200, 90, 60), second=(240, 220, 90), fineness=3.0)
    >>> look.colour("second")
    (240, 220, 90)
    """

    body: Colour
    second: Colour
    fineness: float

    def colour(self, paint: Paint) -> Colour:
        """The RGB colour of a paint, 0..255."""
        fixed: dict[str, Colour] = {
            "dark": (38, 34, 40),
            "light": (238, 236, 226),
            "glass": (168, 208, 226),
            "warm": (240, 150, 40),
        }
        return fixed.get(paint) or (self.body if paint == "body" else self.second)


def paint_creature(
    creature: Creature, look: Look, u: np.ndarray, v: np.ndarray, phase: float, grain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a creature at points (u, v) [H, W]: which it covers, bool [H, W], and their colours, uint8 [H, W, 3] RGB.

    `phase` is that of its moving parts, in turns. `grain` [G, G] is a texture of values about 0 for its skin.

    >>> from tubelet.synthetic.shapes import Creature, Ellipse, Look, BodyPart, paint_creature
    >>> ball = Creature((BodyPart(Ellipse(0, 0, 1, 1)),))
    >>> look = Look(body=(200, 90, 60), second=(240, 220, 90), fineness=3.0)
    >>> u, v = np.array([[0.0, 2.0]]), np.array([[0.0, 0.0]])
    >>> covered, colours = paint_creature(ball, look, u, v, phase=0.0, grain=np.zeros((1, 1)))
    >>> covered.tolist(), colours[0, 0].tolist()
    ([[True, False]], [204, 91, 61])
    """
    covered = np.zeros(u.shape, bool)
    colours = np.zeros((*u.shape, 3), np.uint8)
    for part in creature.parts:
        x, y = part.place(u, v, phase)
        depth = part.shape.depth(x, y)
        inside = depth > 0
        if not inside.any():
            continue
        covered |= inside

        x = x[inside]
        y = y[inside]
        light = 0.72 + 0.3 * np.sqrt(depth[inside]) - 0.1 * y + _grain(grain, x, y)
        second = _pattern(part.pattern, x, y, look.fineness)[:, None]
        base = np.where(second, np.array(look.colour("second")), np.array(look.colour(part.paint)))
        colours[inside] = np.clip(base * light[:, None], 0, 255).astype(np.uint8)
    return covered, colours


def covers(creature: Creature, u: np.ndarray, v: np.ndarray, phase: float) -> np.ndarray:
    """Which points (u, v) a creature covers: the first result of `paint_creature`.

    >>> from tubelet.synthetic.shapes import Creature, Ellipse, BodyPart, covers
    >>> ball = Creature((BodyPart(Ellipse(0, 0, 1, 1)),))
    >>> covers(ball, np.array([0.0, 2.0]), np.array([0.0, 0.0]), phase=0.0).tolist()
    [True, False]
    """
    covered = np.zeros(u.shape, bool)
    for part in creature.parts:
        covered |= part.shape.depth(*part.place(u, v, phase)) > 0
    return covered


def _grain(grain: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The texture at points (x, y); it covers 2 x 2 units and repeats."""
    side = len(grain)
    rows = np.floor(y * side / 2).astype(np.int64) % side
    columns = np.floor(x * side / 2).astype(np.int64) % side
    return grain[rows, columns]


def _pattern(pattern: Pattern, x: np.ndarray, y: np.ndarray, fineness: float) -> np.ndarray:
    """Where the second colour is painted, bool."""
    if pattern == "stripes":
        return np.greater(sine(x * fineness + 0.08 * sine(y * 1.3)), 0.35)
    if pattern == "bars":
        return np.greater(sine(x * fineness * 0.8), 0.0)
    if pattern == "rings":
        radius = np.sqrt((x + 0.15) * (x + 0.15) + y * y)
        return np.greater(sine(radius * fineness * 1.4), 0.2)
    if pattern == "spots":
        return np.greater(sine(x * fineness) * sine(y * fineness), 0.45)
    if pattern == "scales":
        return np.greater(sine((x + y) * fineness) * sine((x - y) * fineness), 0.3)
    return np.zeros(x.shape, bool)
