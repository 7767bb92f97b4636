"""Draw the frames and masks of one planned video: objects, scenery, camera and light.

Every frame is a pure function of its number. Positions are in units of the frame's width, x to the right and y down,
with (0, 0) at the top left corner of the frame of a camera that does not move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tubelet.synthetic.shapes import Creature, Look, covers, paint_creature
from tubelet.synthetic.textures import ground, noise

_TEXELS = 512  # side of the ground texture, which covers one width of the frame and repeats

Window = tuple[slice, slice]  # rows and columns


@dataclass(frozen=True, slots=True)
class SceneObject:
    """An object, or a piece of scenery that hides objects (label None), and its pose in each of T frames.

    >>> from tubelet.synthetic.planner import plan
    >>> from tubelet.synthetic.config import Synthetic
    >>> actor = plan(Synthetic(frames=20, objects=(1, 1)), seed=(0, 1)).actors[0]
    >>> actor.positions.shape
    (20, 2)
    """

    creature: Creature
    look: Look
    label: int | None
    size: float  # half its length
    positions: np.ndarray  # float64 [T, 2], position of its middle
    facing: np.ndarray  # float64 [T, 2], cosine and sine of its rotation
    width: np.ndarray  # float64 [T], -1 (mirrored) to 1: apparent width while it turns round
    phase: np.ndarray  # float64 [T], of its moving parts, in turns
    bend: np.ndarray  # float64 [T], how far its body bends

    def inward(self, x: np.ndarray, y: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Transform world positions to the creature's coordinates (u, v) in frame t."""
        x0, y0 = self.positions[t]
        cos, sin = self.facing[t]
        dx = (x - x0) / self.size
        dy = (y - y0) / self.size

        u = (dx * cos + dy * sin) / self.width[t]
        v = dy * cos - dx * sin
        return u, v + self.bend[t] * (u * u - 0.3)


@dataclass(frozen=True, slots=True)
class Camera:
    """The camera's pose in each of T frames.

    >>> from tubelet.synthetic.renderer import Camera
    >>> camera = Camera(pan=np.array([[0.1, 0.0]]), zoom=np.array([2.0]), roll=np.array([[1.0, 0.0]]))
    >>> x, y = camera.frame(np.array([0.6, 0.25]), middle=(0.5, 0.25), t=0)  # the middle of the panned view
    >>> round(x, 6), round(y, 6)
    (0.5, 0.25)
    """

    pan: np.ndarray  # float64 [T, 2], in frame widths
    zoom: np.ndarray  # float64 [T]
    roll: np.ndarray  # float64 [T, 2], cosine and sine

    def world(
        self,
        x: np.ndarray,
        y: np.ndarray,
        middle: tuple[float, float],
        t: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transform positions in frame t to positions in the world; `middle` is that of the frame."""
        cos, sin = self.roll[t]
        dx = (x - middle[0]) / self.zoom[t]
        dy = (y - middle[1]) / self.zoom[t]
        world_x = dx * cos - dy * sin + middle[0] + self.pan[t, 0]
        world_y = dy * cos + dx * sin + middle[1] + self.pan[t, 1]
        return world_x, world_y

    def frame(self, place: np.ndarray, middle: tuple[float, float], t: int) -> tuple[float, float]:
        """Transform a position in the world to one in frame t: the inverse of `world`."""
        cos, sin = self.roll[t]
        dx = place[0] - middle[0] - self.pan[t, 0]
        dy = place[1] - middle[1] - self.pan[t, 1]
        x = (dx * cos + dy * sin) * self.zoom[t] + middle[0]
        y = (dy * cos - dx * sin) * self.zoom[t] + middle[1]
        return float(x), float(y)


@dataclass(frozen=True, slots=True)
class Scene:
    """Actors from back to front, a camera and a light. Frames are drawn at twice the size and averaged.

    >>> from tubelet.synthetic.planner import plan
    >>> from tubelet.synthetic.config import Synthetic
    >>> world = plan(Synthetic(height=24, width=32, frames=2, objects=(1, 1)), seed=(0, 0))
    >>> world.frame(1).shape, world.masks(1).shape
    ((24, 32, 3), (1, 24, 32))
    """

    size: tuple[int, int]  # height, width
    actors: tuple[SceneObject, ...]
    camera: Camera
    light: np.ndarray  # float64 [T], 1 = as painted
    blur: tuple[int, ...]  # passes of a (1, 2, 1) filter over each frame
    noise: float  # standard deviation in grey levels
    seed: tuple[int, ...]  # of texture and noise

    def frame(self, t: int) -> np.ndarray:
        """Draw frame t, uint8 [H, W, 3] RGB."""
        x, y = self._grid(t)
        rows = np.floor(y * _TEXELS).astype(np.int64) % _TEXELS
        columns = np.floor(x * _TEXELS).astype(np.int64) % _TEXELS
        canvas = _ground(self.seed)[rows, columns]
        skin = _skin(self.seed)
        for _, actor, window in self._visible(t):
            u, v = actor.inward(x[window], y[window], t)
            covered, colours = paint_creature(actor.creature, actor.look, u, v, float(actor.phase[t]), skin)
            canvas[window][covered] = colours[covered]

        small = (_blocks(canvas).astype(np.int64) + 2) // 4  # the rounded mean of four
        image = np.floor(small * self.light[t]).astype(np.int64)
        for _ in range(self.blur[t]):
            image = _smooth(_smooth(image, 0), 1)
        noisy: np.ndarray = image + self._noise(t)
        return noisy.clip(0, 255).astype(np.uint8)

    def masks(self, t: int) -> np.ndarray:
        """The visible mask of each labelled actor in frame t, bool [N, H, W]; masks do not overlap.

        A pixel belongs to the actor that covers most of its four quarters; of two that cover as many, to the front one.
        """
        x, y = self._grid(t)
        quarters = np.full(x.shape, -1)  # the front actor at each quarter of a pixel; -1 is the ground
        for n, actor, window in self._visible(t):
            u, v = actor.inward(x[window], y[window], t)
            quarters[window][covers(actor.creature, u, v, float(actor.phase[t]))] = n

        pixels = np.full(self.size, -1)
        most = _blocks(quarters == -1)
        for n in range(len(self.actors)):
            count = _blocks(quarters == n)
            pixels[(count > 0) & (count >= most)] = n
            most = np.maximum(most, count)

        labelled = [n for n, actor in enumerate(self.actors) if actor.label is not None]
        visible: np.ndarray = pixels[None] == np.array(labelled, np.int64)[:, None, None]
        return visible

    @property
    def _middle(self) -> tuple[float, float]:
        return 0.5, self.size[0] / self.size[1] / 2

    def _grid(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """World positions x and y of the quarter pixels of frame t, each [2 H, 2 W]."""
        height, width = self.size
        rows = np.arange(2 * height) + 0.5
        columns = np.arange(2 * width) + 0.5
        x = columns[None] / (2 * width)
        y = rows[:, None] / (2 * width)
        return self.camera.world(x, y, self._middle, t)

    def _visible(self, t: int) -> Iterator[tuple[int, SceneObject, Window]]:
        """Actors inside frame t, from back to front, with the part of the doubled frame that each can touch."""
        height, width = (2 * side for side in self.size)
        for n, actor in enumerate(self.actors):
            x, y = self.camera.frame(actor.positions[t], self._middle, t)
            reach = actor.size * float(self.camera.zoom[t]) * (1.3 + abs(float(actor.bend[t])))
            left = int(width * (x - reach))
            right = int(width * (x + reach))
            top = int(width * (y - reach))
            bottom = int(width * (y + reach))
            if right > 0 and bottom > 0 and left < width and top < height:
                yield n, actor, (slice(max(top, 0), bottom + 1), slice(max(left, 0), right + 1))

    def _noise(self, t: int) -> np.ndarray:
        """Nearly normal noise: the sum of four uniform draws, whose standard deviation is 147.8."""
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
    """Sum over blocks of 2 x 2, int64 [H / 2, W / 2, ...]."""
    rows = values[0::2].astype(np.int64) + values[1::2]
    blocks: np.ndarray = rows[:, 0::2] + rows[:, 1::2]
    return blocks


def _smooth(values: np.ndarray, axis: int) -> np.ndarray:
    """Filter with (1, 2, 1) / 4 along an axis, in integers, edges repeated."""
    padding = [(1, 1) if n == axis else (0, 0) for n in range(values.ndim)]
    padded = np.moveaxis(np.pad(values, padding, mode="edge"), axis, 0)
    smooth = (padded[:-2] + 2 * padded[1:-1] + padded[2:] + 2) // 4
    return np.moveaxis(smooth, 0, axis)
