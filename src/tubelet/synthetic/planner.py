"""Who plays in a generated video and how they move: draws a `Scene` from a config and a seed.

Chance comes from `random()` and `integers()` alone, combined elementwise: numpy's other draws use libm or may be fused
by a compiler, and then their last bit differs between machines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tubelet.synthetic.cast import CAST, SCENERY
from tubelet.synthetic.renderer import Camera, Scene, SceneObject
from tubelet.synthetic.shapes import Colour, Look, cosine, sine

if TYPE_CHECKING:
    from tubelet.synthetic.generator import Synthetic

_TURN = 8  # frames between two random control points of a path


def plan(config: Synthetic, seed: tuple[int, ...]) -> Scene:
    """The world of one video."""
    rng = np.random.default_rng(seed)
    crossing = rng.random() < config.look_alikes and config.objects[1] >= 2
    count = max(_integer(rng, config.objects), 2 if crossing else 0)
    cast = _twins(config, rng) if crossing else []
    cast += [_creature(config, rng) for _ in range(count - len(cast))]
    actors = [cast[n] for n in rng.permutation(count)] + [
        _scenery(config, rng) for _ in range(_integer(rng, config.occluders))
    ]
    deviation = config.blur * rng.random()
    return Scene(
        size=(config.height, config.width),
        actors=tuple(actors),
        camera=_camera(config, rng),
        light=1 + config.light * _wander(rng, 1, config.frames)[:, 0],
        noise=config.noise,
        seed=seed,
        blur=tuple(_passes(deviation + config.shake_blur * shaken) for shaken in _shakes(config, rng)),
    )


def _passes(deviation: float) -> int:
    """Each pass of (1, 2, 1) / 4 adds a variance of one half."""
    return int(2 * deviation * deviation + 0.5)


def _shakes(config: Synthetic, rng: np.random.Generator) -> list[bool]:
    """Which frames are smeared: never the first, never two in a row."""
    shaken = [False] * config.frames
    if config.shakes:
        for t in range(1, config.frames):
            shaken[t] = rng.random() < config.shakes and not shaken[t - 1]
    return shaken


def spline(points: np.ndarray, length: int, offset: float = 0.0) -> np.ndarray:
    """A smooth path [length, D] drawn by control points [P, D], one every 8 frames: the quadratic B-spline."""
    position = np.arange(length) / _TURN + offset
    span = np.floor(position).astype(np.int64)
    u = (position - span)[:, None]
    before, at, after = points[span], points[span + 1], points[span + 2]
    path: np.ndarray = (1 - u) * (1 - u) / 2 * before + (0.5 + u - u * u) * at + u * u / 2 * after
    return path


def _creature(config: Synthetic, rng: np.random.Generator) -> SceneObject:
    label, look, size = _who(config, rng)
    place = spline(_walk(config, rng), config.frames, rng.random())
    return _actor(config, rng, label, look, size, place)


def _twins(config: Synthetic, rng: np.random.Generator) -> list[SceneObject]:
    """Two of one class, look and size, that meet in the middle of the video and pass each other."""
    label, look, size = _who(config, rng)
    ways = min(max(config.speed * (config.frames - 1), 0.3), 0.8)
    progress = (np.arange(config.frames) + 0.5) / config.frames - 0.5
    middle = np.array([0.5, config.height / config.width / 2])
    pair = []
    for side in (-1.0, 1.0):
        sway = 0.02 * _wander(rng, 2, config.frames)
        apart = np.array([0.0, side * size * (0.1 + 0.4 * rng.random())])
        place = middle + apart + np.stack([side * ways * progress, 0 * progress], 1) + sway
        pair.append(_actor(config, rng, label, look, size, place))
    return pair


def _who(config: Synthetic, rng: np.random.Generator) -> tuple[int, Look, float]:
    label = int(rng.integers(len(config.classes)))
    short = min(config.height, config.width) / config.width
    return label, _look(rng), _between(rng, config.size) * short / 2


def _actor(
    config: Synthetic, rng: np.random.Generator, label: int, look: Look, size: float, place: np.ndarray
) -> SceneObject:
    creature = CAST[config.classes[label]]
    way = np.diff(place, axis=0, prepend=2 * place[:1] - place[1:2]) if len(place) > 1 else np.array([[1.0, 0.0]])
    if creature.from_above:
        facing, width = _unit(way), np.ones(len(place))
    else:
        tilt = config.deformation / 8 * _wander(rng, 1, config.frames)[:, 0]
        facing, width = np.stack([cosine(tilt), sine(tilt)], 1), _turning(way[:, 0], size)
    start, pace = rng.random(), 0.06 + 0.05 * rng.random()
    moving = float(config.deformation > 0)
    phase = start + moving * pace * np.arange(config.frames)
    bend = config.deformation * sine(phase * 0.7 + start)
    return SceneObject(creature, look, label, size, place, facing, width, phase, bend)


def _walk(config: Synthetic, rng: np.random.Generator) -> np.ndarray:
    """Control points [P, 2] of a random walk that keeps its direction for a while; it stays inside or leaves once."""
    limits = np.array([1.0, config.height / config.width])
    points = [(0.15 + 0.7 * rng.random(2)) * limits]
    direction = rng.random(2) * 2 - 1
    number = config.frames // _TURN + 4
    for _ in range(number - 1):
        direction = direction + 0.8 * (rng.random(2) * 2 - 1)
        step = _unit(direction[None])[0] * config.speed * _TURN * (0.5 + rng.random())
        reached = points[-1] + step
        outside = (reached < 0.12 * limits) | (reached > 0.88 * limits)
        direction = np.where(outside, -direction, direction)
        points.append(np.clip(reached, 0.12 * limits, 0.88 * limits))
    path = np.array(points)
    if rng.random() < config.leaving:
        away = slice(number // 2 - 1, number // 2 + 1)  # the path is drawn to these points, and back
        path[away, 0] = np.where(path[away, 0] < 0.5, -0.5, 1.5)
    return path


def _scenery(config: Synthetic, rng: np.random.Generator) -> SceneObject:
    names = tuple(SCENERY)
    creature = SCENERY[names[int(rng.integers(len(names)))]]
    height = config.height / config.width
    place = np.array([0.1 + 0.8 * rng.random(), height * (0.4 + 0.4 * rng.random())])
    still = np.ones(config.frames)
    return SceneObject(
        creature=creature,
        look=_natural_look(rng),
        label=None,
        size=height * (0.25 + 0.2 * rng.random()),
        place=np.repeat(place[None], config.frames, 0),
        facing=np.stack([still, 0 * still], 1),
        width=still,
        phase=0.03 * np.arange(config.frames) * float(config.deformation > 0),
        bend=0 * still,
    )


def _camera(config: Synthetic, rng: np.random.Generator) -> Camera:
    across, down, zoom, roll = (config.camera * _wander(rng, 4, config.frames)).T
    turns = 0.025 * roll
    return Camera(
        pan=0.25 * np.stack([across, down], 1),
        zoom=1 + 0.25 * zoom,
        roll=np.stack([cosine(turns), sine(turns)], 1),
    )


def _wander(rng: np.random.Generator, num: int, length: int) -> np.ndarray:
    """Smooth random values in [-1, 1], float64 [length, num]."""
    return spline(rng.random((length // _TURN + 4, num)) * 2 - 1, length, rng.random())


def _look(rng: np.random.Generator) -> Look:
    hue = rng.random()
    body = _hue_colour(hue, 0.45 + 0.4 * rng.random(), 0.6 + 0.35 * rng.random())
    second = _hue_colour(hue + 0.15 + 0.7 * rng.random(), 0.5 * rng.random(), 0.25 + 0.7 * rng.random())
    return Look(body, second, 2.0 + 2.0 * rng.random())


def _natural_look(rng: np.random.Generator) -> Look:
    green = _hue_colour(0.2 + 0.2 * rng.random(), 0.35 + 0.3 * rng.random(), 0.35 + 0.25 * rng.random())
    return Look(green, _hue_colour(0.08, 0.5, 0.25 + 0.2 * rng.random()), 2.0 + 2.0 * rng.random())


def _hue_colour(hue: float, saturation: float, value: float) -> Colour:
    """Hue in turns, saturation and value in [0, 1] -> RGB."""

    def channel(shift: float) -> int:
        ramp = abs(((hue + shift) % 1) * 6 - 3) - 1
        return int(255 * value * (1 - saturation * (1 - min(max(ramp, 0.0), 1.0))))

    return channel(0.0), channel(2 / 3), channel(1 / 3)


def _turning(speed: np.ndarray, size: float) -> np.ndarray:
    """1 facing right, -1 left; narrow while the direction changes, but never so thin that it vanishes."""
    width = np.clip(speed / (0.05 * size + 1e-9), -1, 1)
    return np.where(width < 0, np.minimum(width, -0.35), np.maximum(width, 0.35))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [P, 2] scaled to length 1; a vector of length 0 points right."""
    x, y = vectors[:, 0], vectors[:, 1]
    length = np.sqrt(x * x + y * y)
    still = length < 1e-9
    safe = np.where(still, 1.0, length)
    return np.stack([np.where(still, 1.0, x / safe), np.where(still, 0.0, y / safe)], 1)


def _between(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return limits[0] + (limits[1] - limits[0]) * rng.random()


def _integer(rng: np.random.Generator, limits: tuple[int, int]) -> int:
    return int(rng.integers(limits[0], limits[1] + 1))
