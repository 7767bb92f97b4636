"""`tubelet predict`: a source in, a folder of results out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tubelet.apps.console import progress_bar, rows_of, show, table
from tubelet.apps.option_texts import (
    CUTS_HELP,
    DEVICE_HELP,
    DISTINCT_HELP,
    MODEL_HELP,
    OVERLAY_HELP,
    THRESHOLD_HELP,
    TOP_HELP,
    UNKNOWN_HELP,
    VIEWS_HELP,
)

if TYPE_CHECKING:
    from tubelet.core.protocol import Window
    from tubelet.inference.predict import Model
    from tubelet.inference.results import VideoPrediction


def predict(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A video file, an image, a folder of images, or a data set.")
    ],
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help=MODEL_HELP)] = "default",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go.", show_default="runs/NAME OF SOURCE")
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help=THRESHOLD_HELP)] = 0.5,
    window: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE ...", help="How to read, e.g. length=8 stride=4.", show_default="the model's"),
    ] = None,
    views: Annotated[int, typer.Option(metavar="N", help=VIEWS_HELP)] = 1,
    top: Annotated[int | None, typer.Option(metavar="N", help=TOP_HELP, show_default=False)] = None,
    distinct: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="IOU", help=DISTINCT_HELP, show_default=False)
    ] = None,
    overlay: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE ...", help=OVERLAY_HELP, show_default="masks, outlines, labels and scores"),
    ] = None,
    unknown: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="T", help=UNKNOWN_HELP, show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    no_video: Annotated[bool, typer.Option("--no-video", help="Write no overlay.mp4.")] = False,
    no_cuts: Annotated[bool, typer.Option("--no-cuts", help=CUTS_HELP)] = False,
    semantic: Annotated[
        bool, typer.Option("--semantic", help="Also write which class every pixel shows: semantic/ and semantic.mp4.")
    ] = False,
) -> None:
    """Find, outline, name and follow every object of a video, or of all videos of a data set."""
    from tubelet.apps.batch.sets import Option, is_data_set, predict_set

    folder = out or Path("runs") / Path(source).resolve().stem
    if is_data_set(source):
        options: dict[str, Option] = {"threshold": threshold, "window": tuple(window or ()), "views": views, "top": top}
        options |= {"distinct": distinct, "unknown": unknown, "cuts": not no_cuts, "video": not no_video}
        options["overlay"] = tuple(overlay or ())
        predict_set(Path(source), folder, model, device, semantic=semantic, options=options)
        return

    segment(
        source,
        folder,
        model=model,
        threshold=threshold,
        window=window or (),
        views=views,
        top=top,
        distinct=distinct,
        overlay=overlay or (),
        unknown=unknown,
        device=device,
        cuts=not no_cuts,
        video=not no_video,
        semantic=semantic,
    )


def segment(
    source: str | Path,
    folder: Path,
    *,
    model: str = "default",
    threshold: float = 0.5,
    window: Sequence[str] = (),
    views: int = 1,
    top: int | None = None,
    distinct: float | None = None,
    overlay: Sequence[str] = (),
    unknown: float | None = None,
    device: str = "auto",
    cuts: bool = True,
    video: bool = True,
    semantic: bool = False,
) -> VideoPrediction:
    """Predict, save, and say what was found and where it is."""
    from tubelet.core.atomic import check_folder
    from tubelet.drawing.style import OverlayStyle
    from tubelet.inference import predict as inference
    from tubelet.models import weights
    from tubelet.video.reader import open_video

    check_folder(folder)
    style = OverlayStyle().override(*overlay)
    opened = open_video(_path_or_camera(source))
    network = weights.load(model, device=device)
    reading = network.window.override(*window)
    with progress_bar("segmenting") as progress:
        prediction = inference.predict(
            network,
            opened,
            window=reading,
            threshold=threshold,
            views=views,
            top=top,
            distinct=distinct,
            unknown=unknown,
            cuts=cuts,
            progress=progress,
        )
    with progress_bar("drawing") as progress:
        prediction.save(folder, video=video, style=style, progress=progress)
    if semantic:
        _save_semantic(network, prediction, folder, reading, video)
    _report(prediction, folder, threshold, video)
    return prediction


def _save_semantic(network: Model, prediction: VideoPrediction, folder: Path, window: Window, video: bool) -> None:
    from tubelet.inference.semantic import MAPS, OVERLAY, save_semantic, semantic_maps

    with progress_bar("classes") as progress:
        maps = semantic_maps(network, prediction, window=window)
        save_semantic(prediction, maps, folder, video=video, progress=progress)
    show(*(str(folder / name) for name in [OVERLAY] * video + [MAPS]))


def _path_or_camera(source: str | Path) -> str | Path | int:
    if isinstance(source, str) and source.isdecimal() and not Path(source).exists():
        return int(source)
    return source


def _report(prediction: VideoPrediction, folder: Path, threshold: float, video: bool) -> None:
    from tubelet.inference.results import CONTACT_SHEET, OVERLAY, PREDICTIONS

    summary = prediction.summary()
    rows = [(row.id, row.name, f"{row.score:.2f}", row.frames) for row in summary]
    if rows:
        show(rows_of(table("#id", "class", "#score", "#frames"), rows), summary.heading)
    else:
        show(f"no object with a score of {threshold:g} or more in {prediction.length} frames")
    show(*(str(folder / name) for name in [OVERLAY] * video + [PREDICTIONS, CONTACT_SHEET]))
