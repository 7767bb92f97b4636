"""Make the bundled demo video: `python docs/demo/make_demo_video.py [OUT.mp4]`, about a minute on one core.

Cut-outs from four free photographs move over a fifth while the camera pans: two people walk past each other, a cup
sails through on its saucer, a cat looks into the lens. The photographs come with scikit-image and matplotlib, as
installed with the development tools; authors and licences are in CREDITS.md beside this file. Outlines are drawn by
hand; GrabCut only settles the last few pixels. The same seed gives the same frames.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tubelet.video.writer import VideoWriter

WIDTH, HEIGHT, FPS, SECONDS = 640, 360, 24, 6.0
SHUTTER, SUBFRAMES = 0.5, 4  # the exposure as a share of a frame, and how many instants it is averaged from
TARGET = Path(__file__).resolve().parents[2] / "src" / "tubelet" / "apps" / "demo.mp4"

ASTRONAUT = """
236,16 262,20 285,38 298,60 301,88 298,112 288,126 275,133 267,138 262,152 256,168 255,174 263,179 278,192 292,208
302,228 305,240 318,246 332,258 343,275 352,300 358,328 361,346 378,345 400,344 430,352 455,372 475,395 490,425 497,452
506,470 510,490 511,511 24,511 27,498 24,470 19,420 18,395 22,370 26,330 33,305 42,285 46,270 60,248 80,232 105,218
113,208 113,190 118,184 128,172 145,158 165,150 182,148 182,131 176,128 172,122 160,112 155,95 153,75 157,58 168,46
185,40 195,32 210,20"""
ADMIRAL = """
252,22 275,24 295,35 300,44 325,53 345,72 352,86 362,88 370,105 372,135 370,170 375,183 375,205 368,240 362,268 355,290
340,305 331,307 331,315 345,325 380,345 420,362 465,375 490,390 499,415 504,440 506,480 506,605 12,605 18,560 22,520
25,480 27,440 33,410 45,390 60,378 90,368 130,355 160,340 185,328 200,315 203,308 197,300 180,292 168,280 160,260
158,235 160,215 155,205 152,190 155,178 154,162 152,145 153,110 160,95 175,85 175,78 180,65 200,50 218,42 222,30 235,24
"""
CUP = """
180,71 150,86 120,110 100,136 86,165 78,200 77,225 82,255 95,285 115,315 145,342 180,363 220,378 260,386 300,388 340,384
380,372 415,352 445,322 465,290 476,258 479,230 475,200 465,170 448,140 430,120 419,110 423,85 424,75 418,68 407,67
399,72 395,65 380,48 355,33 325,23 290,19 255,21 225,30 200,45 184,62"""
CAT = """
38,0 33,30 30,60 36,85 42,105 50,122 40,130 20,128 0,126 0,299 262,299 270,284 285,276 300,263 312,238 322,217 335,197
348,176 358,150 362,125 360,105 357,85 358,73 366,66 378,48 388,20 400,0"""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a cut-out is at one instant: its anchor in frame pixels, degrees, scale."""

    x: float
    y: float
    angle: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A cut-out (premultiplied RGBA, float32), the point of it that is placed, and its path through time."""

    image: np.ndarray
    anchor: tuple[float, float]
    path: Callable[[float], Pose]


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    scenery, actors, camera = background(), cast(), shake(np.random.default_rng(7))
    with VideoWriter(target, (HEIGHT, WIDTH), FPS) as writer:
        for t in range(round(SECONDS * FPS)):
            instants = (t + SHUTTER * np.arange(SUBFRAMES) / SUBFRAMES) / FPS
            exposure = np.mean([picture(scenery, actors, camera, float(time)) for time in instants], axis=0)
            writer.write(np.clip(exposure + 0.5, 0, 255).astype(np.uint8))
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


# --- the scene -----------------------------------------------------------------------------------------------------


def background() -> np.ndarray:
    """The launch pad at dusk: lightened, a little out of focus, with room for the camera to move."""
    from skimage import data

    photo = data.rocket().astype(np.float32) / 255
    lit = 255 * photo**0.8
    large = cv2.resize(lit, None, fx=1.6, fy=1.6, interpolation=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(large, (0, 0), 1.6)


def cast() -> Sequence[Actor]:
    """Back to front."""
    from matplotlib import cbook
    from skimage import data

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        admiral = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return (
        Actor(image=cut_out(admiral, ADMIRAL, 0.49), anchor=(0.5, 1.0), path=walk(start=540, speed=-14, depth=1.0)),
        Actor(
            image=cut_out(data.astronaut(), ASTRONAUT, 0.6),
            anchor=(0.5, 1.0),
            path=walk(start=128, speed=140, depth=1.3),
        ),
        Actor(image=cut_out(data.coffee(), CUP, 0.7), anchor=(0.5, 0.5), path=sail),
        Actor(image=cut_out(data.chelsea(), CAT, 1.26, feather=2.0), anchor=(0.0, 0.5), path=peek),
    )


def walk(*, start: float, speed: float, depth: float) -> Callable[[float], Pose]:
    """Steps at 1.8 a second; feet stay below the frame."""

    def path(time: float) -> Pose:
        phase = 2 * np.pi * 0.9 * time + depth
        bob = 5 * depth * abs(np.sin(phase))
        return Pose(x=start + speed * time, y=HEIGHT + 12 - bob, angle=1.5 * np.sin(phase))

    return path


def sail(time: float) -> Pose:
    """A flying saucer: from the left across everyone, then up and away."""
    s = (time - 0.5) / 3.8
    return Pose(x=-150 + 700 * s, y=215 - 4000 * max(s - 0.55, 0) ** 3, angle=-8 + 10 * np.sin(2 * time))


def peek(time: float) -> Pose:
    """From the left, close to the lens, and then stay."""
    s = np.clip((time - 3.6) / 1.3, 0, 1)
    eased = s * s * (3 - 2 * s)
    return Pose(x=-525 + 465 * eased, y=HEIGHT / 2 + 3 * np.sin(3 * time), angle=1.2 * np.sin(1.7 * time))


def shake(rng: np.random.Generator) -> Callable[[float], np.ndarray]:
    """A hand-held camera: a few slow random waves, in pixels."""
    speeds = rng.uniform(0.4, 1.6, (4, 2))
    phases = rng.uniform(0, 2 * np.pi, (4, 2))
    return lambda time: 1.6 * np.sin(2 * np.pi * speeds * time + phases).sum(0)


# --- drawing -------------------------------------------------------------------------------------------------------


def picture(
    scenery: np.ndarray, actors: Sequence[Actor], camera: Callable[[float], np.ndarray], time: float
) -> np.ndarray:
    """One instant, float32 [H, W, 3]."""
    tremble = camera(time)
    zoom = 1 + 0.012 * time
    left, top = 60 + 42 * time + tremble[0], 250 - 6 * time + tremble[1]
    frame = cv2.warpAffine(scenery, np.float32([[zoom, 0, -left], [0, zoom, -top]]), (WIDTH, HEIGHT))
    solid = np.zeros((HEIGHT, WIDTH), np.float32)  # what shadows can fall on: cut-outs, not the sky
    for actor in actors:
        layer = place(actor, actor.path(time), -1.3 * tremble)
        alpha = layer[..., 3]
        if not alpha.any():
            continue
        shadow = cv2.GaussianBlur(np.roll(alpha, (5, 9), (0, 1)), (0, 0), 9) * (0.12 + 0.43 * solid)
        frame *= 1 - shadow[..., None]
        frame = layer[..., :3] + frame * (1 - alpha[..., None])
        solid = np.maximum(solid, alpha)
    return frame


def place(actor: Actor, pose: Pose, offset: np.ndarray) -> np.ndarray:
    """The actor's layer of the frame, premultiplied RGBA."""
    height, width = actor.image.shape[:2]
    centre = (actor.anchor[0] * width, actor.anchor[1] * height)
    matrix = cv2.getRotationMatrix2D(centre, pose.angle, pose.scale)
    matrix[:, 2] += np.array([pose.x, pose.y]) + offset - centre
    return cv2.warpAffine(actor.image, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)


def cut_out(photo: np.ndarray, outline: str, scale: float, feather: float = 0.8) -> np.ndarray:
    """The outlined part of a photograph with a soft edge, toned to the dusk, cropped and scaled."""
    photo = np.ascontiguousarray(photo[..., :3])
    alpha = cv2.GaussianBlur(refine(photo, polygon(outline)), (0, 0), feather)[..., None]
    tone = np.array([0.93, 0.95, 1.0], np.float32)
    image = np.concatenate([photo * tone * alpha, alpha], axis=2).astype(np.float32)
    rows, columns = np.flatnonzero(alpha.any((1, 2))), np.flatnonzero(alpha.any((0, 2)))
    image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.clip(cv2.resize(image, None, fx=scale, fy=scale, interpolation=method), 0, [255, 255, 255, 1])


def polygon(outline: str) -> np.ndarray:
    """`x,y x,y ...` -> int32 [P, 1, 2]."""
    return np.array([[int(v) for v in point.split(",")] for point in outline.split()], np.int32)[:, None]


def refine(photo: np.ndarray, points: np.ndarray, band: int = 5) -> np.ndarray:
    """GrabCut within `band` pixels of the outline; float32 [H, W], one pixel inside the edge it finds."""
    drawn = cv2.fillPoly(np.zeros(photo.shape[:2], np.uint8), [points], 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * band + 1, 2 * band + 1))
    inner, outer = cv2.erode(drawn, kernel, borderValue=1), cv2.dilate(drawn, kernel)
    labels = np.where(drawn, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[inner == 1], labels[outer == 0] = cv2.GC_FGD, cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(photo, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    found = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)
    smooth = (cv2.GaussianBlur(found.astype(np.float32), (0, 0), 2) > 0.5).astype(np.uint8)
    return cv2.erode(smooth, np.ones((3, 3), np.uint8), borderValue=1).astype(np.float32)


if __name__ == "__main__":
    main()
