"""`tubelet data ...` and `tubelet synth`: check, measure, browse, split, convert and generate data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tubelet.apps.console import Leave, progress_bar, rows_of, show, table

if TYPE_CHECKING:
    import numpy as np

    from tubelet.core.types import Video, VideoSet
    from tubelet.data.tools.checking import Report

app = typer.Typer(no_args_is_help=True, help="Check, measure, look at, split and convert data sets.")

READ = "ytvis, davis, mots, mots-png, coco-video, coco, yolo-seg, labelme, label-studio, voc, sbd, sav, cvat or png"
FORM_HELP = f"{READ}; found out where not given."
FRAMES_HELP = "Where the frames lie, if not beside the annotations: a folder or a zip archive."
SetPath = Annotated[Path, typer.Argument(metavar="PATH", help="A data set: its folder, JSON, XML or archive.")]
SetForm = Annotated[str | None, typer.Option("--form", metavar="FORM", help=FORM_HELP, show_default=False)]
SetFrames = Annotated[Path | None, typer.Option("--frames", metavar="DIR", help=FRAMES_HELP, show_default=False)]

WRITTEN = "ytvis, davis, mots, mots-png, coco-video, yolo-seg, labelme, cvat and png"
UNFIT = 1


@app.command()
def check(
    path: SetPath,
    form: SetForm = None,
    frames: SetFrames = None,
    decode: Annotated[int, typer.Option(min=0, help="Frames decoded per video; 0 for all.")] = 3,
    examples: Annotated[int, typer.Option(min=0, help="Findings shown of each kind.")] = 3,
) -> None:
    """Look for problems that spoil a training. The exit code is 0 if the set is fit to train on, else 1."""
    from tubelet.data.tools.checking import check
    from tubelet.formats.registry import open_set
    from tubelet.formats.ytvis.document import Faults

    faults = Faults(lenient=True)
    videos = open_set(path, form, frames, faults)
    with progress_bar("checking") as progress:
        report = check(videos, frames=decode or None, faults=faults, progress=progress)
    _show_report(report, examples)
    if not report.fit:
        raise Leave(UNFIT)


@app.command()
def stats(
    path: SetPath,
    form: SetForm = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw histograms.", show_default=False)] = None,
) -> None:
    """Measure a data set: objects, lengths, sizes, classes, occlusion, motion."""
    from tubelet.core.atomic import check_file
    from tubelet.data.tools.statistics import draw, measure

    if out is not None:
        check_file(out)
    videos = _open(path, form)
    with progress_bar("measuring") as progress:
        found = measure(videos, progress)
    shown = [(name, str(count)) for name, count in found.classes.most_common() if count]
    show(rows_of(table("what", "value"), found.rows()), rows_of(table("class", "#objects"), shown))
    if out is not None:
        draw(found, out)
        show(f"histograms: {out}")


@app.command()
def browse(
    path: SetPath,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the contact sheets go.")],
    form: SetForm = None,
    frames: SetFrames = None,
    videos: Annotated[int, typer.Option(min=1, help="How many videos, spread over the set.")] = 8,
    shots: Annotated[int, typer.Option(min=1, help="Frames per contact sheet.")] = 12,
) -> None:
    """Draw contact sheets: frames of a few videos with their objects."""
    from tubelet.core.atomic import check_folder, together
    from tubelet.formats.storing import folder_names
    from tubelet.video.windows import evenly

    check_folder(out)
    found = _open(path, form, frames)
    names = folder_names(found)
    chosen = evenly(len(found.videos), videos)
    with together(out) as scratch, progress_bar("drawing") as progress:
        for done, n in enumerate(chosen, start=1):
            _write_sheet(found.videos[n], found.classes, scratch / f"{names[n]}.jpg", shots)
            progress(done, len(chosen))
    show(*(str(out / f"{names[n]}.jpg") for n in chosen))


@app.command()
def split(
    path: SetPath,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where train.json and val.json go.", show_default="beside the annotations"),
    ] = None,
    form: SetForm = None,
    videos: Annotated[int | None, typer.Option(min=1, help="Videos to hold out.", show_default=False)] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="Share to hold out, where --videos is not given.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Settles ties.")] = 0,
) -> None:
    """Hold out videos for validation, with classes in proportion. Writes YouTube-VIS JSON; frames are not copied."""
    from tubelet.core.atomic import check_folder, together
    from tubelet.data.tools.splitting import split
    from tubelet.formats import ytvis

    folder = out or (path if path.is_dir() else path.parent)
    check_folder(folder)
    found = _open(path, form)
    training, validation = split(found, videos or max(1, round(share * len(found.videos))), seed)
    parts = {"train.json": training, "val.json": validation}
    with together(folder) as scratch:
        for name, part in parts.items():
            ytvis.write_set(scratch / name, part, beside=folder)
    show(*(f"{folder / name}: {len(part.videos)} videos" for name, part in parts.items()))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A data set: its folder, JSON, XML or archive.")],
    out: Annotated[Path, typer.Argument(metavar="DST", help="A folder that is not there yet.")],
    to: Annotated[str, typer.Option("--to", metavar="FORM", help=f"One of {WRITTEN}.")],
    form: Annotated[str | None, typer.Option("--from", metavar="FORM", help=FORM_HELP, show_default=False)] = None,
    no_frames: Annotated[bool, typer.Option("--no-frames", help="Write annotations only.")] = False,
) -> None:
    """Write a data set in another form, and list what that form cannot store."""
    from tubelet.core.atomic import check_new_folder
    from tubelet.formats.registry import convert

    check_new_folder(out)
    losses = convert(source, out, to=to, form=form, frames=not no_frames).lines()
    show(f"written: {out}")
    show("lost: nothing" if not losses else "lost:")
    show(*(f"  {line}" for line in losses))


@app.command()
def label(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that is not there yet.")],
    results: Annotated[
        list[str], typer.Argument(metavar="RESULT=VIDEO ...", help="Folders of results, each with its video.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="FORM", help=f"One of {WRITTEN}.")] = "ytvis",
    all_frames: Annotated[bool, typer.Option("--all-frames", help="Also frames that nobody has looked at.")] = False,
) -> None:
    """Make labelled data of results, edited or as they are.

    Without --all-frames, only the frames that a person has seen: `tubelet edit --seen` and the page note them.
    """
    from tubelet.core.atomic import check_new_folder
    from tubelet.core.errors import ConfigError
    from tubelet.editing.session import seen_frames
    from tubelet.inference.labelling import write_labels
    from tubelet.inference.reopening import open_prediction

    check_new_folder(out)
    chosen = []
    for text in results:
        folder, is_pair, video = text.partition("=")
        if not is_pair:
            raise ConfigError(f"expected RESULT=VIDEO such as runs/dog/edited=dog.mp4, got {text!r}")
        chosen.append((open_prediction(folder, video), None if all_frames else seen_frames(folder)))

    losses = write_labels(out, chosen, to=to).lines()
    show(f"written: {out}")
    show(*(f"lost: {line}" for line in losses))


def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that is not there yet, or empty.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE ...]", help="Knobs, e.g. frames=40 objects=[2,5] camera=0.", show_default=False
        ),
    ] = None,
    videos: Annotated[int, typer.Option(min=1, help="How many videos.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Generate videos with exact truth: PNG frames and YouTube-VIS JSON."""
    from tubelet.core.atomic import check_new_folder
    from tubelet.synthetic.config import Synthetic
    from tubelet.synthetic.generator import write

    check_new_folder(out)
    config = Synthetic().override(*(overrides or ()))
    with progress_bar("drawing") as progress:
        write(out, config, seed, videos, progress=lambda done: progress(done, videos))
    show(f"{out / 'instances.json'}: {videos} videos of {config.frames} frames, {config.width}x{config.height}")


def _open(path: Path, form: str | None, frames: Path | None = None) -> VideoSet:
    from tubelet.formats.registry import open_set

    return open_set(path, form, frames)


def _show_report(report: Report, examples: int) -> None:
    rows = []
    for (grade, kind), count in report.counts().items():
        found = [finding for finding in report.findings if finding.kind == kind]
        for n, finding in enumerate(found[:examples]):
            place = f"video {finding.video}" if finding.video else ""
            place += "" if finding.frame is None else f", frame {finding.frame}"
            place += "" if finding.object is None else f", object {finding.object}"
            head = (grade, kind, str(count)) if n == 0 else ("", "", "")
            rows.append((*head, place, finding.detail))
    if rows:
        show(rows_of(table("grade", "finding", "#times", "for example", "what"), rows))
    held = f"{report.videos} videos, {report.objects} objects, {report.frames_decoded} frames decoded"
    show(f"{held}: {'fit to train on' if report.fit else 'not fit to train on'}")


def _write_sheet(video: Video, classes: tuple[str, ...], path: Path, shots: int) -> None:
    import cv2

    from tubelet.drawing.contact_sheet import caption, contact_sheet
    from tubelet.video.windows import evenly

    chosen = evenly(len(video), shots)
    images = [_drawn(video, t, classes) for t in chosen]
    sheet = contact_sheet(images, [caption(t, video.time(t)) for t in chosen])
    path.write_bytes(cv2.imencode(".jpg", sheet[..., ::-1])[1].tobytes())


def _drawn(video: Video, t: int, classes: tuple[str, ...]) -> np.ndarray:
    import numpy as np

    from tubelet.core import masks
    from tubelet.drawing.overlay import draw

    image = np.ascontiguousarray(video.frames[t].permute(1, 2, 0).numpy())
    seen = [(track, rle) for track in video.tracks or () if (rle := track.rles[t]) is not None]
    if not seen:
        return image
    names = [f"{classes[track.label]}{' (ignored)' if track.ignore else ''}" for track, _ in seen]
    shapes = masks.decode([rle for _, rle in seen]).astype(bool)
    return draw(image, shapes, [track.id for track, _ in seen], names, [track.score for track, _ in seen])
