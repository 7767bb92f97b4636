"""Ground textures of the generated videos: value noise, coloured as grass, sand, water, stone, sky or wood."""

from __future__ import annotations

import numpy as np

_PALETTES = (  # dark, middle and light RGB of each kind
    ((52, 84, 40), (92, 132, 62), (150, 176, 96)),  # grass
    ((150, 120, 84), (196, 168, 122), (226, 206, 164)),  # sand
    ((26, 66, 104), (48, 104, 146), (112, 164, 190)),  # water
    ((82, 80, 84), (126, 122, 120), (172, 168, 160)),  # stone
    ((96, 140, 190), (150, 186, 220), (232, 238, 242)),  # sky
    ((92, 58, 36), (134, 90, 56), (176, 130, 88)),  # wood
)
_WATER = 2
_WOOD = 5


def noise(rng: np.random.Generator, side: int, cells: tuple[int, ...], stretch: int = 1) -> np.ndarray:
    """Tileable value noise, float64 [side, side] in [0, 1]: one octave per entry of `cells`, each half as strong.

    `side` must be a multiple of every entry. `stretch` makes the grain wider than high by that factor.

    >>> from tubelet.synthetic.textures import noise
    >>> values = noise(np.random.default_rng(0), side=16, cells=(4, 8))
    >>> values.shape, bool(0 <= values.min() and values.max() <= 1)
    ((16, 16), True)
    """
    total = np.zeros((side, side))
    strength = 1.0
    for number in cells:
        total += strength * _octave(rng, side, max(1, number // stretch), number)
        strength /= 2
    return total / (2 - 2 * strength)


def ground(rng: np.random.Generator, side: int) -> np.ndarray:
    """A tileable ground texture of a random kind, with pebbles on it, uint8 [side, side, 3] RGB.

    >>> from tubelet.synthetic.textures import ground
    >>> ground(np.random.default_rng(0), side=64).shape
    (64, 64, 3)
    """
    kind = int(rng.integers(len(_PALETTES)))
    is_stretched = kind in (_WATER, _WOOD)
    grain = noise(rng, side, (4, 8, 16, 32, 64), stretch=4 if is_stretched else 1)
    height = np.clip((grain - 0.25) * 2, 0, 1)[..., None]

    dark, middle, light = (np.array(colour, np.float64) for colour in _PALETTES[kind])
    low = dark + (middle - dark) * (2 * height)
    high = middle + (light - middle) * (2 * height - 1)
    texture = np.where(height < 0.5, low, high)
    _add_pebbles(rng, texture, int(rng.integers(10, 40)))
    return texture.astype(np.uint8)


def _octave(rng: np.random.Generator, side: int, across: int, down: int) -> np.ndarray:
    """Random values on a lattice of down x across cells, interpolated smoothly, float64 [side, side]."""
    lattice = rng.integers(0, 256, (down, across)) / 255
    y, y_share = _cells(side, down)
    x, x_share = _cells(side, across)
    top = lattice[y] + (lattice[(y + 1) % down] - lattice[y]) * y_share[:, None]  # [side, across]
    octave: np.ndarray = top[:, x] + (top[:, (x + 1) % across] - top[:, x]) * x_share
    return octave


def _cells(side: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The lattice cell of each pixel, and its eased position within the cell, 0 to 1."""
    position = (np.arange(side) + 0.5) * number / side
    cell = np.floor(position).astype(np.int64)
    u = position - cell
    return cell % number, u * u * (3 - 2 * u)


def _add_pebbles(rng: np.random.Generator, texture: np.ndarray, number: int) -> None:
    """Shade ellipses of the texture, in place, so that not every outline is an object."""
    side = len(texture)
    for _ in range(number):
        x = rng.integers(side)
        y = rng.integers(side)
        tone = 0.55 + 0.8 * rng.random()
        across, down = rng.integers(3, 14, 2)

        rows, columns = np.mgrid[-down : down + 1, -across : across + 1]
        depth = 1 - (rows * rows / (down * down) + columns * columns / (across * across))
        inside = depth > 0
        shade = tone * (0.8 + 0.25 * np.sqrt(depth[inside]) - 0.15 * rows[inside] / down)
        pixels = (rows[inside] + y) % side, (columns[inside] + x) % side
        texture[pixels] = np.clip(texture[pixels] * shade[:, None], 0, 255)
