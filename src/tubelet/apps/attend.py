"""`tubelet attend`: where a model's attention looks, for one point of one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tubelet.apps.console import progress_bar, show
from tubelet.apps.option_texts import DEVICE_HELP, MODEL_HELP

PICTURE, FILM = "attention.png", "attention.mp4"


def attend(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A video file, an image or a folder of images.")],
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help=MODEL_HELP)],
    at: Annotated[str, typer.Option(metavar="X,Y", help="The point, in pixels of the frame.", show_default=False)],
    frame: Annotated[int, typer.Option(metavar="T", min=0, help="The frame, counted from 0.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go.", show_default="runs/NAME OF SOURCE")
    ] = None,
    window: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE ...", help="How to read, e.g. context=4.", show_default="the model's"),
    ] = None,
    video: Annotated[
        bool, typer.Option("--video", help="Also a film of all frames, the point going with its object.")
    ] = False,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
) -> None:
    """Draw where each attention module looks in other frames, for one point of one frame."""
    import cv2

    from tubelet.core.atomic import check_folder, together
    from tubelet.core.errors import ConfigError
    from tubelet.core.protocol import Attentive
    from tubelet.inference.attention_maps import attention_maps, check, film, picture
    from tubelet.models import weights
    from tubelet.video.reader import open_video

    point = _point(at)
    folder = out or Path("runs") / Path(source).resolve().stem
    check_folder(folder)
    opened = open_video(source)
    check(opened, frame, point)
    network = weights.load(model, device=device)
    reading = network.window.override(*(window or ()))
    looks = network.traits.attention or not isinstance(network, Attentive)  # which is refused below in its own words
    glances = attention_maps(network, opened, frame, point, window=reading) if looks else []
    if not glances:
        raise ConfigError(f"{model}: this model has no attention modules that look from this point")
    sheet = picture(opened, frame, point, glances)
    with together(folder) as scratch:
        (scratch / PICTURE).write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
        if video:
            panels = len(glances)
            with progress_bar("drawing") as progress:
                film(network, opened, frame, point, scratch / FILM, window=reading, panels=panels, progress=progress)
    show(*(f"{glance.name}: frame {glance.frame}" for glance in glances))
    show(*(str(folder / name) for name in [PICTURE] + [FILM] * video))


def _point(text: str) -> tuple[float, float]:
    from tubelet.core.errors import ConfigError

    parts = text.split(",")
    try:
        x, y = (float(part) for part in parts)
    except ValueError:
        raise ConfigError(f"--at: expected X,Y in pixels, e.g. 320,180, got {text!r}") from None
    return x, y
