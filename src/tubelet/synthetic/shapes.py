"""How a creature of the generated videos is drawn: from ellipses and convex polygons, with patterns and moving parts.

A creature is a list of parts in its own coordinates: u to the right (forwards), v down, the whole within about
[-1, 1]. Everything is elementwise IEEE arithmetic and a table of sines, so each pixel is the same on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

_STEPS = 4096
_SINES = np.array([round(math.sin(2 * math.pi * k / _STEPS) * 16384) for k in range(_STEPS)]) / 16384

Colour = tuple[int, int, int]
Paint = Literal["body", "second", "dark", "light", "glass", "warm"]
Pattern = Literal["plain", "stripes", "bars", "spots", "rings", "scales"]


def sine(turns: np.ndarray | float) -> np.ndarray:
    """sin(2 pi turns) from a table of exact multiples of 2^-14: libm's last bit differs between machines."""
    return _SINES[np.floor(np.asarray(turns, np.float64) * _STEPS + 0.5).astype(np.int64) % _STEPS]


def cosine(turns: np.ndarray | float) -> np.ndarray:
    """cos(2 pi turns), likewise."""
    return sine(np.asarray(turns, np.float64) + 0.25)


@dataclass(frozen=True, slots=True)
class Ellipse:
    """Centre, radii, and a turn (1 = a full one)."""

    x: float
    y: float
    across: float
    down: float
    turn: float = 0.0

    def depth(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """1 in the middle, 0 on the edge, negative outside."""
        cos, sin = float(cosine(self.turn)), float(sine(self.turn))
        x, y = u - self.x, v - self.y
        along, beside = (x * cos + y * sin) / self.across, (y * cos - x * sin) / self.down
        return 1 - (along * along + beside * beside)


@dataclass(frozen=True, slots=True)
class Polygon:
    """A convex polygon, its corners in either direction."""

    corners: tuple[tuple[float, float], ...]

    def depth(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Positive inside (a flat value: polygons are not shaded), negative outside."""
        edges = list(zip(self.corners, self.corners[1:] + self.corners[:1], strict=True))
        side = math.copysign(1, sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in edges))
        inside = np.ones(u.shape, bool)
        for (x1, y1), (x2, y2) in edges:
            inside &= side * ((x2 - x1) * (v - y1) - (y2 - y1) * (u - x1)) >= 0
        return np.where(inside, 0.6, -1.0)


@dataclass(frozen=True, slots=True)
class BodyPart:
    """A shape with its paint; it swings about a pivot (x, y, amplitude in turns) or flaps towards the line v = 0."""

    shape: Ellipse | Polygon
    paint: Paint = "body"
    pattern: Pattern = "plain"
    swing: tuple[float, float, float] | None = None
    delay: float = 0.0  # of the swing, in turns
    flap: float = 0.0

    def place(self, u: np.ndarray, v: np.ndarray, phase: float) -> tuple[np.ndarray, np.ndarray]:
        """Where the points lie in the part's resting pose."""
        wave = float(sine(phase + self.delay))
        if self.flap:
            v = v / (1 - self.flap * (0.5 + 0.5 * wave))
        if self.swing is None:
            return u, v
        x, y, amplitude = self.swing
        cos, sin = float(cosine(amplitude * wave)), float(sine(amplitude * wave))
        return (u - x) * cos + (v - y) * sin + x, (v - y) * cos - (u - x) * sin + y


@dataclass(frozen=True, slots=True)
class Creature:
    """A class of objects. Seen from above it turns to where it goes; seen from the side it only faces left or right."""

    parts: tuple[BodyPart, ...]
    from_above: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """The colours that tell one individual from another, and how fine its pattern is."""

    body: Colour
    second: Colour
    fineness: float

    def colour(self, paint: Paint) -> Colour:
        """The colour of a paint."""
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
    """Which points (u, v) [H, W] the creature covers, bool, and their colours, uint8 [H, W, 3].

    `grain` is a square texture of values about 0, fixed to the creature's skin.
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
        x, y, depth = x[inside], y[inside], depth[inside]
        light = 0.72 + 0.3 * np.sqrt(depth) - 0.1 * y + _grain(grain, x, y)
        second = _pattern(part.pattern, x, y, look.fineness)[:, None]
        base = np.where(second, np.array(look.colour("second")), np.array(look.colour(part.paint)))
        colours[inside] = np.clip(base * light[:, None], 0, 255).astype(np.uint8)
    return covered, colours


def covers(creature: Creature, u: np.ndarray, v: np.ndarray, phase: float) -> np.ndarray:
    """Which points (u, v) the creature covers: the first result of `paint_creature`, without the colours."""
    covered = np.zeros(u.shape, bool)
    for part in creature.parts:
        covered |= part.shape.depth(*part.place(u, v, phase)) > 0
    return covered


def _grain(grain: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    side = len(grain)
    rows, columns = np.floor(y * side / 2).astype(np.int64) % side, np.floor(x * side / 2).astype(np.int64) % side
    return grain[rows, columns]


def _pattern(pattern: Pattern, x: np.ndarray, y: np.ndarray, fineness: float) -> np.ndarray:
    """True where the second colour shows."""
    wave, threshold = np.zeros(x.shape), 0.5
    if pattern == "stripes":
        wave, threshold = sine(x * fineness + 0.08 * sine(y * 1.3)), 0.35
    elif pattern == "bars":
        wave, threshold = sine(x * fineness * 0.8), 0.0
    elif pattern == "rings":
        wave, threshold = sine(np.sqrt((x + 0.15) * (x + 0.15) + y * y) * fineness * 1.4), 0.2
    elif pattern == "spots":
        wave, threshold = sine(x * fineness) * sine(y * fineness), 0.45
    elif pattern == "scales":
        wave, threshold = sine((x + y) * fineness) * sine((x - y) * fineness), 0.3
    return np.greater(wave, threshold)
