"""`tubelet predict`: a source in, a folder of results out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tubelet.apps.console import progress_bar, rows_of, say, show, table
from tubelet.apps.option_texts import (
    CUTS_HELP,
    DEVICE_HELP,
    MODEL_HELP,
    THRESHOLD_HELP,
    TOP_HELP,
    VIEWS_HELP,
)
from tubelet.apps.options import (
    Anchor,
    Classes,
    Distinct,
    End,
    Engine,
    Every,
    InputSize,
    Lines,
    Overlay,
    Reading,
    Region,
    Results,
    Start,
    Unknown,
    Zones,
    class_names,
    counting_of,
    region,
    results_form,
)

if TYPE_CHECKING:
    from tubelet.core.protocol import Window
    from tubelet.inference.many.batch import Settings
    from tubelet.inference.predict import Model
    from tubelet.inference.results import VideoPrediction


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE ...",
            help="A video, an image, a folder or pattern of images, an http(s) address; or several videos, a data set.",
        ),
    ],
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help=MODEL_HELP)] = "default",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go.", show_default="runs/NAME OF SOURCE")
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help=THRESHOLD_HELP)] = 0.5,
    window: Reading = None,
    views: Annotated[int, typer.Option(metavar="N", help=VIEWS_HELP)] = 1,
    top: Annotated[int | None, typer.Option(metavar="N", help=TOP_HELP, show_default=False)] = None,
    distinct: Distinct = None,
    classes: Classes = None,
    roi: Region = None,
    start: Start = None,
    end: End = None,
    every: Every = 1,
    line: Lines = None,
    zone: Zones = None,
    anchor: Anchor = "centre",
    overlay: Overlay = None,
    results: Results = "auto",
    unknown: Unknown = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    engine: Engine = "auto",
    input_size: InputSize = None,
    no_video: Annotated[bool, typer.Option("--no-video", help="Write no overlay.mp4.")] = False,
    no_cuts: Annotated[bool, typer.Option("--no-cuts", help=CUTS_HELP)] = False,
    semantic: Annotated[
        bool, typer.Option("--semantic", help="Also write which class every pixel shows: semantic/ and semantic.mp4.")
    ] = False,
) -> None:
    """Find, outline, name and follow every object of a video, of several, or of all videos of a data set."""
    from tubelet.apps.batch.sets import is_data_set, is_one_video, predict_many
    from tubelet.inference.many.batch import Settings

    settings = Settings(
        model=model,
        threshold=threshold,
        window=tuple(window or ()),
        views=views,
        top=top,
        distinct=distinct,
        unknown=unknown,
        cuts=not no_cuts,
        classes=class_names(classes),
        roi=region(roi),
        start=start,
        end=end,
        every=every,
        results=results_form(results),
        counting=counting_of(line, zone, anchor),
        overlay=tuple(overlay or ()),
        video=not no_video,
        engine=engine,
        input_size=input_size,
    )
    if is_data_set(sources[0]) or not is_one_video(sources):
        folder = out or Path("runs") / (Path(sources[0]).resolve().stem if len(sources) == 1 else "predictions")
        predict_many(sources, folder, model, device, settings, semantic=semantic)
    else:
        segment(sources if len(sources) > 1 else sources[0], out, settings, device=device, semantic=semantic)


def segment(
    source: str | Path | list[str],
    out: Path | None,
    settings: Settings,
    *,
    device: str = "auto",
    semantic: bool = False,
) -> VideoPrediction:
    """Predict, save, and say what was found and where it is. Without `out`, results go to runs/ID OF THE VIDEO."""
    from tubelet.core.atomic import check_folder
    from tubelet.drawing.style import OverlayStyle
    from tubelet.formats.results_files import FRAME_LINES, PREDICTIONS, discard_other_results
    from tubelet.inference.many.batch import frame_lines_of, predict_as
    from tubelet.models import weights
    from tubelet.video.reader import open_video

    if out is not None:
        check_folder(out)
    style = OverlayStyle().override(*settings.overlay)
    opened = open_video(_path_or_camera(source))
    folder = out or Path("runs") / opened.id
    check_folder(folder)

    lines = frame_lines_of(settings, opened, folder)
    network = weights.load(settings.model, device=device, engine=settings.engine, input_size=settings.input_size)
    if lines is not None and settings.results == "auto":
        say(f"a long video: each finished frame is added to {lines} at once (--results json: one file at the end)")
    with progress_bar("segmenting") as progress:
        prediction = predict_as(settings, network, opened, progress, results=lines)
    with progress_bar("drawing") as progress:
        prediction.save(
            folder,
            video=settings.video,
            style=style,
            counting=settings.counting,
            results="json" if lines is None else None,
            progress=progress,
        )
    discard_other_results(folder, PREDICTIONS if lines is None else FRAME_LINES)
    if semantic:
        window = network.window.override(*settings.window)
        _save_semantic(network, prediction, folder, window, settings.video)
    _report(prediction, folder, settings, FRAME_LINES if lines else PREDICTIONS)
    return prediction


def _save_semantic(network: Model, prediction: VideoPrediction, folder: Path, window: Window, video: bool) -> None:
    from tubelet.inference.semantic import MAPS, OVERLAY, save_semantic, semantic_maps

    with progress_bar("classes") as progress:
        maps = semantic_maps(network, prediction, window=window)
        save_semantic(prediction, maps, folder, video=video, progress=progress)
    show(*(str(folder / name) for name in [OVERLAY] * video + [MAPS]))


def _path_or_camera(source: str | Path | list[str]) -> str | Path | list[str] | int:
    if isinstance(source, str) and source.isdecimal() and not Path(source).exists():
        return int(source)
    return source


def _report(prediction: VideoPrediction, folder: Path, settings: Settings, results: str) -> None:
    from tubelet.inference.counts import CROSSINGS, LINES, ZONES
    from tubelet.inference.results import CONTACT_SHEET, OVERLAY

    summary = prediction.summary()
    rows = [(row.id, row.name, f"{row.score:.2f}", row.frames) for row in summary]
    if rows:
        show(rows_of(table("#id", "class", "#score", "#frames"), rows), summary.heading)
    else:
        show(f"no object with a score of {settings.threshold:g} or more in {prediction.length} frames")
    written = [OVERLAY] * settings.video + [results, CONTACT_SHEET]
    if settings.counting is not None:
        show(str(prediction.count(settings.counting)))
        written += [LINES, CROSSINGS, ZONES]
    show(*(str(folder / name) for name in written))
