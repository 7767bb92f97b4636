"""One generated video, planned: who is in it, how they move, how the camera moves, how a frame is drawn from that.

After planning, every frame is a pure function of its number. Positions are in units of the frame's width, x to the
right and y down, with (0, 0) at the top left corner of the frame of a resting camera.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tubelet.synthetic.shapes import Creature, Look, covers, paint_creature
from tubelet.synthetic.textures import ground, noise

_TEXELS = 512  # side of the ground texture, which covers one width of the frame and repeats


@dataclass(frozen=True, slots=True)
class SceneObject:
    """A creature, or a piece of scenery that hides others (label None), and its pose in each of T frames."""

    creature: Creature
    look: Look
    label: int | None
    size: float  # half its length
    place: np.ndarray  # float64 [T, 2], its middle
    facing: np.ndarray  # float64 [T, 2], cosine and sine of its turn
    width: np.ndarray  # float64 [T], -1 (mirrored) .. 1: how wide it looks while it turns round
    phase: np.ndarray  # float64 [T], of its moving parts, in turns
    bend: np.ndarray  # float64 [T]

    def inward(self, x: np.ndarray, y: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        """World positions -> the creature's own coordinates in frame t."""
        (x0, y0), (cos, sin) = self.place[t], self.facing[t]
        dx, dy = (x - x0) / self.size, (y - y0) / self.size
        u, v = (dx * cos + dy * sin) / self.width[t], dy * cos - dx * sin
        return u, v + self.bend[t] * (u * u - 0.3)


@dataclass(frozen=True, slots=True)
class Camera:
    """Where the camera stands in each of T frames."""

    pan: np.ndarray  # float64 [T, 2]
    zoom: np.ndarray  # float64 [T]
    roll: np.ndarray  # float64 [T, 2], cosine and sine

    def world(self, x: np.ndarray, y: np.ndarray, middle: tuple[float, float], t: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the frame -> in the world."""
        cos, sin = self.roll[t]
        dx, dy = (x - middle[0]) / self.zoom[t], (y - middle[1]) / self.zoom[t]
        return dx * cos - dy * sin + middle[0] + self.pan[t, 0], dy * cos + dx * sin + middle[1] + self.pan[t, 1]

    def frame(self, place: np.ndarray, middle: tuple[float, float], t: int) -> tuple[float, float]:
        """A position in the world -> in the frame."""
        cos, sin = self.roll[t]
        dx, dy = place[0] - middle[0] - self.pan[t, 0], place[1] - middle[1] - self.pan[t, 1]
        return (
            float((dx * cos + dy * sin) * self.zoom[t] + middle[0]),
            float((dy * cos - dx * sin) * self.zoom[t] + middle[1]),
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """Actors from back to front under a camera and a light. Drawn at twice the size and averaged."""

    size: tuple[int, int]  # height, width
    actors: tuple[SceneObject, ...]
    camera: Camera
    light: np.ndarray  # float64 [T], 1 = as painted
    blur: tuple[int, ...]  # passes of a (1, 2, 1) filter over each frame
    noise: float  # standard deviation in grey levels
    seed: tuple[int, ...]  # of texture and noise

    def frame(self, t: int) -> np.ndarray:
        """Frame t, uint8 [H, W, 3]."""
        x, y = self._grid(t)
        texel = (np.floor(y * _TEXELS).astype(np.int64) % _TEXELS, np.floor(x * _TEXELS).astype(np.int64) % _TEXELS)
        canvas = _ground(self.seed)[texel]
        skin = _skin(self.seed)
        for _, actor, window in self._visible(t):
            u, v = actor.inward(x[window], y[window], t)
            covered, colours = paint_creature(actor.creature, actor.look, u, v, float(actor.phase[t]), skin)
            canvas[window][covered] = colours[covered]
        small = (_blocks(canvas).astype(np.int64) + 2) // 4
        lit = np.floor(small * self.light[t]).astype(np.int64)
        for _ in range(self.blur[t]):
            lit = _smooth(_smooth(lit, 0), 1)
        grainy: np.ndarray = lit + self._grains(t)
        return grainy.clip(0, 255).astype(np.uint8)

    def masks(self, t: int) -> np.ndarray:
        """What is seen of each labelled actor in frame t, bool [N, H, W]; no pixel belongs to two.

        A pixel belongs to whoever holds most of its four quarters; where two hold two each, to the one in front.
        """
        x, y = self._grid(t)
        owner = np.full(x.shape, -1)
        for n, actor, window in self._visible(t):
            u, v = actor.inward(x[window], y[window], t)
            owner[window][covers(actor.creature, u, v, float(actor.phase[t]))] = n
        best, holder = _blocks(owner == -1), np.full(self.size, -1)
        for n in range(len(self.actors)):
            held = _blocks(owner == n)
            holder[(held > 0) & (held >= best)] = n
            best = np.maximum(best, held)
        labelled = [n for n, actor in enumerate(self.actors) if actor.label is not None]
        seen: np.ndarray = holder[None] == np.array(labelled, np.int64)[:, None, None]
        return seen

    @property
    def _middle(self) -> tuple[float, float]:
        return 0.5, self.size[0] / self.size[1] / 2

    def _grid(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """World positions of the quarter pixels of frame t, each [2 H, 2 W]."""
        height, width = self.size
        rows, columns = (np.arange(2 * side) + 0.5 for side in (height, width))
        x, y = columns[None] / (2 * width), rows[:, None] / (2 * width)
        return self.camera.world(x, y, self._middle, t)

    def _visible(self, t: int) -> Iterator[tuple[int, SceneObject, tuple[slice, slice]]]:
        """Actors from back to front with the part of the doubled frame that each can touch."""
        height, width = (2 * side for side in self.size)
        for n, actor in enumerate(self.actors):
            x, y = self.camera.frame(actor.place[t], self._middle, t)
            reach = actor.size * float(self.camera.zoom[t]) * (1.3 + abs(float(actor.bend[t])))
            left, right, top, bottom = (int(width * side) for side in (x - reach, x + reach, y - reach, y + reach))
            if right > 0 and bottom > 0 and left < width and top < height:
                yield n, actor, np.s_[max(top, 0) : bottom + 1, max(left, 0) : right + 1]

    def _grains(self, t: int) -> np.ndarray:
        """Noise that is nearly normal: the sum of four even draws, of standard deviation 147.8."""
        if not self.noise:
            return np.zeros((1, 1, 1), np.int64)
        rng = np.random.default_rng([*self.seed, 3, t])
        total: np.ndarray = rng.integers(0, 256, (4, *self.size, 3)).sum(0) - 510
        return np.floor(total * (self.noise / 147.8) + 0.5).astype(np.int64)


@lru_cache(maxsize=8)
def _ground(seed: tuple[int, ...]) -> np.ndarray:
    return ground(np.random.default_rng([*seed, 1]), _TEXELS)


@lru_cache(maxsize=8)
def _skin(seed: tuple[int, ...]) -> np.ndarray:
    return 0.35 * (noise(np.random.default_rng([*seed, 2]), 128, (16, 32, 64)) - 0.5)


def _blocks(values: np.ndarray) -> np.ndarray:
    """Sums over blocks of 2 x 2, int64."""
    rows = values[0::2].astype(np.int64) + values[1::2]
    blocks: np.ndarray = rows[:, 0::2] + rows[:, 1::2]
    return blocks


def _smooth(values: np.ndarray, axis: int) -> np.ndarray:
    """A (1, 2, 1) / 4 filter in integers, edges repeated."""
    padding = [(1, 1) if n == axis else (0, 0) for n in range(values.ndim)]
    padded = np.moveaxis(np.pad(values, padding, mode="edge"), axis, 0)
    return np.moveaxis((padded[:-2] + 2 * padded[1:-1] + padded[2:] + 2) // 4, 0, axis)
