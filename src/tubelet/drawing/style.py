"""What an overlay shows of objects: masks, outlines, boxes, labels, scores, trails; and what it blurs."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from tubelet.core.config import Config


class OverlayStyle(Config):
    """How objects are drawn onto frames. On the command line: `--overlay boxes=true blur=person`.

    Raises ConfigError, which names the field and what was expected, if a value does not fit.

    Example:
        >>> from tubelet.drawing.style import OverlayStyle
        >>> OverlayStyle(opacity=0.2, blur=("person",)).scores
        True
    """

    masks: bool = True  # tint the inside
    outlines: bool = True
    boxes: bool = False
    labels: bool = True  # class and id
    scores: bool = True  # beside the labels
    trails: float = Field(default=0.0, ge=0, le=3600)  # seconds of an object's path; 0 draws none
    opacity: float = Field(default=0.42, ge=0, le=1)  # of the tint
    crowd: int = Field(default=30, ge=0)  # with more objects in a frame, only outlines and trails are drawn
    blur: tuple[str, ...] = ()  # classes that are made unrecognisable, as ["person"]

    @field_validator("blur", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """A text is a list of names with commas, as on the command line."""
        return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value

    def in_crowd(self, objects: int) -> OverlayStyle:
        """The style for a frame with so many objects.

        Example:
            >>> from tubelet.drawing.style import OverlayStyle
            >>> OverlayStyle(crowd=2).in_crowd(3).labels
            False
        """
        if objects <= self.crowd:
            return self
        return self.but(masks=False, boxes=False, labels=False, outlines=True)
