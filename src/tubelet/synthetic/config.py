"""What the generated videos show: one config, with the ranges that videos are drawn from."""

from __future__ import annotations

from pydantic import Field, model_validator

from tubelet.core.config import Config
from tubelet.core.errors import nearest
from tubelet.synthetic.cast import CAST

Range = tuple[float, float]


class Synthetic(Config):
    """What the generated videos show. Shares are of videos, objects or frames, 0 to 1.

    Raises ConfigError for a class that does not exist or is named twice, and for ranges that do not rise.

    >>> from tubelet.synthetic.config import Synthetic
    >>> config = Synthetic(frames=40, classes=("fish", "car"))
    >>> config.override("camera=0", "objects=[2, 3]").objects
    (2, 3)
    """

    height: int = Field(default=180, ge=8, le=4320)
    width: int = Field(default=320, ge=8, le=7680)
    frames: int = Field(default=20, ge=1)
    fps: float = Field(default=12.0, gt=0)
    classes: tuple[str, ...] = Field(default=tuple(CAST), min_length=1)
    objects: tuple[int, int] = (1, 4)  # fewest and most per video
    size: Range = (0.25, 0.55)  # length of an object over the frame's short side
    speed: float = Field(default=0.02, ge=0)  # mean movement per frame, in frame widths
    deformation: float = Field(default=0.15, ge=0, le=0.5)  # how far bodies bend; 0 also stills wings, legs and tails
    look_alikes: float = Field(default=0.3, ge=0, le=1)  # share of videos in which two objects of the same look cross
    occluders: tuple[int, int] = (0, 2)  # fewest and most posts and bushes in front of the objects
    leaving: float = Field(default=0.25, ge=0, le=1)  # share of objects that leave the frame and come back
    camera: float = Field(default=0.5, ge=0, le=1)  # how far the camera pans, zooms and rolls
    light: float = Field(default=0.15, ge=0, lt=1)  # how much the brightness changes
    blur: float = Field(default=0.5, ge=0, le=8)  # largest standard deviation in pixels
    shakes: float = Field(default=0.0, ge=0, le=1)  # share of frames blurred as by a shake, between sharp neighbours
    shake_blur: float = Field(default=3.0, ge=0, le=8)  # their extra standard deviation in pixels
    noise: float = Field(default=4.0, ge=0, le=64)  # standard deviation in grey levels
    least_pixels: int = Field(default=8, ge=1)  # an object with fewer visible pixels is absent in that frame

    @model_validator(mode="after")
    def _sensible(self) -> Synthetic:
        for name in self.classes:
            if name not in CAST:
                raise ValueError(f"no class {name!r}; {nearest(name, CAST)}")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"a class is named twice: {self.classes}")
        for name in ("objects", "occluders", "size"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} must be two rising numbers from 0, got {(low, high)}")
        if not self.size[0]:
            raise ValueError("objects of size 0 cannot be seen")
        return self
