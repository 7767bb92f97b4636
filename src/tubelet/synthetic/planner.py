"""Plan a generated video: draw its objects, their paths and the camera's from a config and a seed.

Random numbers come from `random()` and `integers()` alone, combined elementwise: numpy's other distributions use libm
or may be fused by a compiler, and then their last bit differs between machines.
"""

from __future__ import annotations

import numpy as np

from tubelet.core.spline import spline
from tubelet.synthetic.cast import CAST, SCENERY
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.renderer import Camera, Scene, SceneObject
from tubelet.synthetic.shapes import Colour, Look, cosine, sine

_FRAMES_PER_POINT = 8  # frames between two control points of a path


def plan(config: Synthetic, seed: tuple[int, ...]) -> Scene:
    """Plan the world of one video: objects in random depth order, then scenery in front of them.

    >>> from tubelet.synthetic.planner import plan
    >>> from tubelet.synthetic.config import Synthetic
    >>> world = plan(Synthetic(objects=(2, 2), occluders=(1, 1)), seed=(0, 3))
    >>> len(world.actors), world.actors[-1].label
    (3, None)
    """
    rng = np.random.default_rng(seed)  # the order of the draws below decides what a seed shows
    crossing = rng.random() < config.look_alikes and config.objects[1] >= 2
    count = max(_integer(rng, config.objects), 2 if crossing else 0)

    objects = _look_alikes(config, rng) if crossing else []
    objects += [_creature(config, rng) for _ in range(count - len(objects))]
    objects = [objects[n] for n in rng.permutation(count)]
    scenery = [_scenery(config, rng) for _ in range(_integer(rng, config.occluders))]

    deviation = config.blur * rng.random()
    camera = _camera(config, rng)
    light = 1 + config.light * _smooth_values(rng, 1, config.frames)[:, 0]
    blur = [_passes(deviation + config.shake_blur * shaken) for shaken in _shakes(config, rng)]
    return Scene(
        size=(config.height, config.width),
        actors=(*objects, *scenery),
        camera=camera,
        light=light,
        noise=config.noise,
        seed=seed,
        blur=tuple(blur),
    )


def _passes(deviation: float) -> int:
    """Passes of a (1, 2, 1) / 4 filter for a standard deviation in pixels: each adds a variance of one half."""
    return int(2 * deviation * deviation + 0.5)


def _shakes(config: Synthetic, rng: np.random.Generator) -> list[bool]:
    """Whether each frame is blurred by a shake: never the first, never two in a row."""
    shaken = [False] * config.frames
    if config.shakes:
        for t in range(1, config.frames):
            shaken[t] = rng.random() < config.shakes and not shaken[t - 1]
    return shaken


def _path(points: np.ndarray, length: int, offset: float) -> np.ndarray:
    """A smooth path [length, D] along control points [P, D], one every 8 frames; it starts at position `offset`."""
    return spline(points, np.arange(length) / _FRAMES_PER_POINT + offset)


def _creature(config: Synthetic, rng: np.random.Generator) -> SceneObject:
    label, look, size = _appearance(config, rng)
    positions = _path(_walk(config, rng), config.frames, rng.random())
    return _actor(config, rng, label, look, size, positions)


def _look_alikes(config: Synthetic, rng: np.random.Generator) -> list[SceneObject]:
    """Two objects of one class, look and size, that meet in the middle of the video and pass each other."""
    label, look, size = _appearance(config, rng)
    distance = min(max(config.speed * (config.frames - 1), 0.3), 0.8)
    progress = (np.arange(config.frames) + 0.5) / config.frames - 0.5
    middle = np.array([0.5, config.height / config.width / 2])

    pair = []
    for side in (-1.0, 1.0):
        sway = 0.02 * _smooth_values(rng, 2, config.frames)
        shift = np.array([0.0, side * size * (0.1 + 0.4 * rng.random())])
        movement = np.stack([side * distance * progress, 0 * progress], 1)
        positions = middle + shift + movement + sway
        pair.append(_actor(config, rng, label, look, size, positions))
    return pair


def _appearance(config: Synthetic, rng: np.random.Generator) -> tuple[int, Look, float]:
    """A random label, look and half length."""
    label = int(rng.integers(len(config.classes)))
    look = _look(rng)
    short_side = min(config.height, config.width) / config.width
    return label, look, _between(rng, config.size) * short_side / 2


def _actor(
    config: Synthetic,
    rng: np.random.Generator,
    label: int,
    look: Look,
    size: float,
    positions: np.ndarray,
) -> SceneObject:
    creature = CAST[config.classes[label]]
    velocity = np.array([[1.0, 0.0]])
    if len(positions) > 1:
        velocity = np.diff(positions, axis=0, prepend=2 * positions[:1] - positions[1:2])

    if creature.from_above:
        facing = _unit(velocity)
        width = np.ones(len(positions))
    else:
        tilt = config.deformation / 8 * _smooth_values(rng, 1, config.frames)[:, 0]
        facing = np.stack([cosine(tilt), sine(tilt)], 1)
        width = _turning(velocity[:, 0], size)

    start = rng.random()
    pace = 0.06 + 0.05 * rng.random()
    moving = float(config.deformation > 0)
    phase = start + moving * pace * np.arange(config.frames)
    bend = config.deformation * sine(phase * 0.7 + start)
    return SceneObject(creature, look, label, size, positions, facing, width, phase, bend)


def _walk(config: Synthetic, rng: np.random.Generator) -> np.ndarray:
    """Control points [P, 2] of a random walk that turns slowly; it stays inside the frame, or leaves it once."""
    limits = np.array([1.0, config.height / config.width])
    points = [(0.15 + 0.7 * rng.random(2)) * limits]
    direction = rng.random(2) * 2 - 1
    number = config.frames // _FRAMES_PER_POINT + 4
    for _ in range(number - 1):
        direction = direction + 0.8 * (rng.random(2) * 2 - 1)
        step = _unit(direction[None])[0] * config.speed * _FRAMES_PER_POINT * (0.5 + rng.random())
        point = points[-1] + step
        outside = (point < 0.12 * limits) | (point > 0.88 * limits)
        direction = np.where(outside, -direction, direction)
        points.append(np.clip(point, 0.12 * limits, 0.88 * limits))

    walk = np.array(points)
    if rng.random() < config.leaving:
        middle = slice(number // 2 - 1, number // 2 + 1)
        walk[middle, 0] = np.where(walk[middle, 0] < 0.5, -0.5, 1.5)  # outside, on the nearer side
    return walk


def _scenery(config: Synthetic, rng: np.random.Generator) -> SceneObject:
    names = tuple(SCENERY)
    creature = SCENERY[names[int(rng.integers(len(names)))]]
    height = config.height / config.width
    position = np.array([0.1 + 0.8 * rng.random(), height * (0.4 + 0.4 * rng.random())])
    ones = np.ones(config.frames)
    return SceneObject(
        creature=creature,
        look=_natural_look(rng),
        label=None,
        size=height * (0.25 + 0.2 * rng.random()),
        positions=np.repeat(position[None], config.frames, 0),
        facing=np.stack([ones, 0 * ones], 1),
        width=ones,
        phase=0.03 * np.arange(config.frames) * float(config.deformation > 0),
        bend=0 * ones,
    )


def _camera(config: Synthetic, rng: np.random.Generator) -> Camera:
    across, down, zoom, roll = (config.camera * _smooth_values(rng, 4, config.frames)).T
    turns = 0.025 * roll
    return Camera(
        pan=0.25 * np.stack([across, down], 1),
        zoom=1 + 0.25 * zoom,
        roll=np.stack([cosine(turns), sine(turns)], 1),
    )


def _smooth_values(rng: np.random.Generator, num: int, length: int) -> np.ndarray:
    """Random values in [-1, 1] that change smoothly over time, float64 [length, num]."""
    points = rng.random((length // _FRAMES_PER_POINT + 4, num)) * 2 - 1
    return _path(points, length, rng.random())


def _look(rng: np.random.Generator) -> Look:
    hue = rng.random()
    body = _hue_colour(hue, 0.45 + 0.4 * rng.random(), 0.6 + 0.35 * rng.random())
    second = _hue_colour(hue + 0.15 + 0.7 * rng.random(), 0.5 * rng.random(), 0.25 + 0.7 * rng.random())
    return Look(body, second, 2.0 + 2.0 * rng.random())


def _natural_look(rng: np.random.Generator) -> Look:
    green = _hue_colour(0.2 + 0.2 * rng.random(), 0.35 + 0.3 * rng.random(), 0.35 + 0.25 * rng.random())
    brown = _hue_colour(0.08, 0.5, 0.25 + 0.2 * rng.random())
    return Look(green, brown, 2.0 + 2.0 * rng.random())


def _hue_colour(hue: float, saturation: float, value: float) -> Colour:
    """Hue in turns, saturation and value in [0, 1] -> RGB."""

    def channel(shift: float) -> int:
        ramp = abs(((hue + shift) % 1) * 6 - 3) - 1
        return int(255 * value * (1 - saturation * (1 - min(max(ramp, 0.0), 1.0))))

    return channel(0.0), channel(2 / 3), channel(1 / 3)


def _turning(speed: np.ndarray, size: float) -> np.ndarray:
    """Apparent width from horizontal speed: 1 facing right, -1 left, narrower while turning, never under 0.35."""
    width = np.clip(speed / (0.05 * size + 1e-9), -1, 1)
    return np.where(width < 0, np.minimum(width, -0.35), np.maximum(width, 0.35))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors [P, 2] to length 1; a vector of length 0 becomes (1, 0)."""
    x = vectors[:, 0]
    y = vectors[:, 1]
    length = np.sqrt(x * x + y * y)
    is_zero = length < 1e-9
    divisor = np.where(is_zero, 1.0, length)
    return np.stack([np.where(is_zero, 1.0, x / divisor), np.where(is_zero, 0.0, y / divisor)], 1)


def _between(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return limits[0] + (limits[1] - limits[0]) * rng.random()


def _integer(rng: np.random.Generator, limits: tuple[int, int]) -> int:
    return int(rng.integers(limits[0], limits[1] + 1))
