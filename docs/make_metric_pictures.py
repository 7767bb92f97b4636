"""Draws the pictures of metrics.md from generated videos: `python docs/make_metric_pictures.py`.

Every number in them is computed by the functions that `tubelet evaluate` uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from tubelet.core import masks
from tubelet.core.types import Prediction, Track, Video
from tubelet.drawing.colours import colour
from tubelet.evaluation import davis, identity
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import generate

OUT = Path(__file__).with_name("pictures")
GROUND = (240, 240, 238)
TRUTH, GUESS, BOTH = (66, 121, 199), (232, 152, 58), (86, 74, 92)
HIT, MISS = (46, 140, 72), (208, 48, 48)
DPI = 100
Frames = Sequence[np.ndarray | None]  # bool [H, W] each; None where absent


def main() -> None:
    """Write all three."""
    OUT.mkdir(exist_ok=True)
    _save(overlap_of_tracks(), OUT / "overlap_of_tracks.png")
    _save(identity_switches(), OUT / "identity_switches.png")
    _save(region_and_boundary(), OUT / "region_and_boundary.png")


def overlap_of_tracks() -> Figure:
    """Intersection and union, frame by frame and in sum, of a truth and a track that starts late and ends late."""
    world = Synthetic(height=90, width=120, frames=6, objects=(1, 1), size=(0.7, 0.7), occluders=(0, 0))
    (truth,) = _truth(world, "snail")
    guess = [None if m is None else _moved(m, (3 * t - 6, 2)) for t, m in enumerate(truth)]
    truth, guess = [*truth[:5], None], [None, *guess[1:]]
    figure = Figure(figsize=(9.6, 2.6), dpi=DPI, layout="constrained")
    shares, sums = [], np.zeros(2, int)
    for t, (axes, real, found) in enumerate(zip(figure.subplots(1, 6), truth, guess, strict=True)):
        nothing = np.zeros((90, 120), bool)
        real, found = nothing if real is None else real, nothing if found is None else found
        counts = np.array([(real & found).sum(), (real | found).sum()])
        shares.append(counts[0] / counts[1])
        sums += counts
        _show(axes, _coloured({TRUTH: real, GUESS: found, BOTH: real & found}))
        axes.set_title(f"frame {t}", fontsize=10)
        axes.set_xlabel(f"{counts[0]} / {counts[1]}\n= {shares[-1]:.2f}", fontsize=10)
    overlap = masks.spatio_temporal_iou(_codes(truth), _codes(guess))
    assert np.isclose(overlap, sums[0] / sums[1])
    figure.suptitle(
        f"overlap of the tracks = all intersections / all unions = {sums[0]} / {sums[1]} = {overlap:.2f}\n"
        f"(and not the mean over frames, {np.mean(shares):.2f})",
        fontsize=10.5,
    )
    _legend(figure, {"truth": TRUTH, "predicted": GUESS, "both: the intersection": BOTH})
    return figure


def identity_switches() -> Figure:
    """Two objects whose masks are all found; only who is who goes wrong, in three ways, and what each measure says."""
    world = Synthetic(height=72, width=128, frames=24, objects=(2, 2), size=(0.5, 0.5), look_alikes=1, leaving=0)
    truth = _truth(world.override("occluders=[0, 0]"), "snail")
    length, half = world.frames, world.frames // 2
    first, second = truth
    answers = {
        "right": [first, second],
        "exchanged\nhalfway": [[*first[:half], *second[half:]], [*second[:half], *first[half:]]],
        "a new track\nhalfway": [[*first[:half], *[None] * half], second, [*[None] * half, *first[half:]]],
        "exchanged\nfor 3 frames": [
            [*first[:half], *second[half : half + 3], *first[half + 3 :]],
            [*second[:half], *first[half : half + 3], *second[half + 3 :]],
        ],
    }
    shown = (2, half - 1, half + 1, length - 2)
    figure = Figure(figsize=(9.6, 4.2), dpi=DPI, layout="constrained")
    grid = figure.subplots(len(answers), len(shown) + 1, width_ratios=[1] * len(shown) + [2.1])
    for axes, t in zip(grid[0], shown, strict=False):
        axes.set_title(f"frame {t}", fontsize=10)
    for row, (name, tracks) in zip(grid, answers.items(), strict=True):
        for axes, t in zip(row, shown, strict=False):
            _show(
                axes, _coloured({colour(n): seen for n, track in enumerate(tracks) if (seen := track[t]) is not None})
            )
        row[0].set_ylabel(name, fontsize=10, rotation=0, ha="right", va="center")
        found = identity.evaluate(*_video(truth, tracks), on_masks=True)
        _bars(row[-1], {key: found[key] for key in ("MOTA", "IDF1", "HOTA")}, int(found["IDs"]))
    return figure


def region_and_boundary() -> Figure:
    """One truth and three answers: J counts pixels, F the boundary within a tolerance."""
    world = Synthetic(height=240, width=300, frames=1, objects=(1, 1), size=(0.8, 0.8), occluders=(0, 0), leaving=0)
    ((real,),) = _truth(world, "duck")
    assert real is not None
    answers = {"a little too large": _grown(real, 3), "in blocks": _blocks(real, 20), "a part missing": _cut(real)}
    figure = Figure(figsize=(9.6, 3.4), dpi=DPI, layout="constrained")
    for axes, (name, answer) in zip(figure.subplots(1, 3), answers.items(), strict=True):
        scores = davis.score_frame(real.astype(np.uint8), answer.astype(np.uint8), 1, 1)
        region, boundary = scores[1, 0]
        picture = _coloured({TRUTH: real, GUESS: answer, BOTH: real & answer})
        _show(axes, _with_boundary(picture, real, answer))
        axes.set_title(name, fontsize=10.5)
        axes.set_xlabel(f"J = {region:.2f}     F = {boundary:.2f}", fontsize=11)
    names = {"truth alone": TRUTH, "predicted alone": GUESS, "both": BOTH}
    _legend(figure, names | {"predicted boundary near the truth's": HIT, "too far from it": MISS})
    return figure


# generated truth and what becomes of it


def _truth(world: Synthetic, kind: str) -> list[Frames]:
    """The masks of each object of the first generated video whose objects are always there and wholly in the frame."""
    for video in generate(world.override(f'classes=["{kind}"]'), 0, 1000).videos:
        tracks = [_masks(track) for track in video.tracks or ()]
        if len(tracks) == world.objects[0] and all(mask is not None and _inside(mask) for t in tracks for mask in t):
            return tracks
    raise ValueError("no such video among a thousand")


def _masks(track: Track) -> Frames:
    return [None if code is None else masks.decode([code])[0].astype(bool) for code in track.rles]


def _inside(mask: np.ndarray) -> bool:
    return not (mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _codes(frames: Frames) -> list[masks.RLE | None]:
    return [None if mask is None else masks.encode(mask[None].astype(np.uint8))[0] for mask in frames]


def _video(truth: Sequence[Frames], guesses: Sequence[Frames]) -> tuple[list[Video], list[Prediction]]:
    real, found = (
        tuple(Track(id=n, label=0, score=1.0, rles=tuple(_codes(frames))) for n, frames in enumerate(tracks))
        for tracks in (truth, guesses)
    )
    length = len(real[0].rles)
    size = next(code.size for code in real[0].rles if code is not None)
    video = Video(id="a", size=size, frames=range(length), tracks=real)  # type: ignore[arg-type]  # nobody looks
    return [video], [Prediction(video="a", size=size, length=length, tracks=found)]


def _moved(mask: np.ndarray, by: tuple[int, int]) -> np.ndarray:
    height, width = mask.shape
    return cv2.warpAffine(mask.astype(np.uint8), np.float32([[1, 0, by[0]], [0, 1, by[1]]]), (width, height)) > 0


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1))
    return cv2.dilate(mask.astype(np.uint8), disc) > 0


def _blocks(mask: np.ndarray, side: int) -> np.ndarray:
    height, width = mask.shape
    small = cv2.resize(mask.astype(np.float32), (width // side, height // side), interpolation=cv2.INTER_AREA) > 0.5
    return cv2.resize(small.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0


def _cut(mask: np.ndarray) -> np.ndarray:
    """Without its right quarter."""
    columns = np.flatnonzero(mask.any(0))
    kept = mask.copy()
    kept[:, round(columns[0] + 0.75 * (columns[-1] - columns[0])) :] = False
    return kept


# drawing


def _coloured(regions: dict[tuple[int, int, int], np.ndarray]) -> np.ndarray:
    """uint8 [H, W, 3], a colour each, the later over the earlier."""
    picture = np.empty((*next(iter(regions.values())).shape, 3), np.uint8)
    picture[:] = GROUND
    for tint, mask in regions.items():
        picture[mask] = tint
    return picture


def _with_boundary(picture: np.ndarray, real: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """The predicted boundary over the picture, by whether it lies within the tolerance of the true one."""
    reach = int(np.ceil(davis.TOLERANCE * np.hypot(*real.shape)))
    near = cv2.distanceTransform((~_edge(real)).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= reach + 0.001
    for tint, part in ((HIT, near), (MISS, ~near)):
        picture[cv2.dilate((_edge(answer) & part).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0] = tint
    return picture


def _edge(mask: np.ndarray) -> np.ndarray:
    around = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != around[:-1, 1:]) | (mask != around[1:, :-1]) | (mask != around[1:, 1:])


def _show(axes: Any, picture: np.ndarray) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _bars(axes: Any, values: dict[str, float], switches: int) -> None:
    places = np.arange(len(values))[::-1]
    axes.barh(places, list(values.values()), color="#7a8794", height=0.62)
    for place, (name, value) in zip(places, values.items(), strict=True):
        axes.text(-0.03, place, name, ha="right", va="center", fontsize=9.5)
        axes.text(value + 0.02, place, f"{100 * value:.1f}", va="center", fontsize=9.5)
    axes.set(xlim=(-0.3, 1.25), xticks=[], yticks=[])
    axes.set_title(f"{switches} switch{'es' if switches != 1 else ''}", fontsize=9.5, pad=2)
    axes.spines[:].set_visible(False)


def _legend(figure: Figure, names: dict[str, tuple[int, int, int]]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=np.array(tint) / 255, label=name) for name, tint in names.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=9.5)


def _save(figure: Figure, path: Path) -> None:
    """A PNG of few colours: flat pictures keep their look, at a third of the bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    image.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
