"""`tubelet edit`: mend a result by hand, and see where it may need that."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand

from tubelet.apps.console import progress_bar, rows_of, show, table
from tubelet.apps.option_texts import DEVICE_HELP

if TYPE_CHECKING:
    from tubelet.core.records import Prediction
    from tubelet.editing.session import Editing

EDITED = "edited"
MOST_DOUBTS = 20  # lines
Match = re.Match[str]


class InOrder(TyperCommand):
    """A command that knows in which order its options were given: edits are done in that order."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note the arguments as they came."""
        ctx.meta["arguments"] = tuple(args)
        return super().parse_args(ctx, args)


def _verb(metavar: str, text: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, show_default=False)


def edit(
    context: typer.Context,
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="predictions.json or .jsonl, or its folder.")
    ],
    merge: Annotated[
        list[str] | None, _verb("A,B[:A|B]", "Make one object of A and B; after the colon, whose masks stay.")
    ] = None,
    split: Annotated[list[str] | None, _verb("A@T", "Give A an id of its own from frame T on.")] = None,
    swap: Annotated[list[str] | None, _verb("A,B@T[-U]", "Exchange A and B from frame T on, or until U.")] = None,
    delete: Annotated[list[str] | None, _verb("A[@T-U]", "Delete A, or its masks from frame T to U.")] = None,
    delete_alike: Annotated[
        list[str] | None, _verb("A", "Delete A and all of its class that rest at its place.")
    ] = None,
    rename: Annotated[list[str] | None, _verb("A=CLASS", "Give A another class.")] = None,
    redraw: Annotated[
        list[str] | None, _verb("A@T=x1,y1,...", "Replace the mask of A in frame T by a polygon.")
    ] = None,
    add: Annotated[list[str] | None, _verb("CLASS@T=x1,y1,...", "Add an object by its outline in frame T.")] = None,
    edits: Annotated[list[Path] | None, _verb("FILE", "Do the edits that edits.json lists.")] = None,
    follow: Annotated[
        list[str] | None, _verb("A@T[-U]", "Let the model follow A from its mask in frame T, both ways or until U.")
    ] = None,
    seen: Annotated[
        list[str] | None, _verb("T-U|all", "Note that you have looked at these frames: `data label` takes them alone.")
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help="What follows: a model with a memory.")] = "default",
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    name: Annotated[str | None, _verb("NAME", "Which video, if the file has several.")] = None,
    video: Annotated[
        str | None, _verb("SOURCE", "The video, to follow, and to draw the result: overlay.mp4 and contact_sheet.png.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the edited result goes.", show_default="edited/ beside PREDICTIONS"),
    ] = None,
) -> None:
    """Mend a result: merge, split, swap, delete, rename, redraw and add objects, in the order given.

    Options may be given again. Frames count from 0. The result itself stays as it is. Without an edit, show the objects
    and the places to look at.
    """
    from tubelet.core.atomic import check_folder
    from tubelet.editing.session import EDITS, Editing
    from tubelet.formats.results_files import results_name
    from tubelet.inference.reopening import open_prediction

    original = open_prediction(predictions, video, video=name) if video else open_prediction(predictions, video=name)
    editing = Editing(original)
    verbs = list(_given(context.meta["arguments"]))
    if not verbs:
        _show(original)
        return

    folder = out or (predictions if predictions.is_dir() else predictions.parent) / EDITED
    check_folder(folder)
    hand = _Hand(editing, model, device)
    for verb, text in verbs:
        _do(hand, verb, text)
    _save(editing, folder)
    _show(editing.result)
    show(*(str(folder / file) for file in (results_name("auto", original.length), EDITS)))


class _Hand(NamedTuple):
    """What an edit of the command line acts on: the result, and the model that follows."""

    editing: Editing[Any]
    model: str
    device: str


def _given(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The edits of a command line in their order: option and text."""
    for n, argument in enumerate(arguments):
        option, is_joined, text = argument.partition("=")
        if option in VERBS:
            yield option, text if is_joined else arguments[n + 1]


def _do(hand: _Hand, option: str, text: str) -> None:
    """Do one edit of the command line. Raises ConfigError that names the option."""
    from tubelet.core.errors import ConfigError

    pattern, form, do = VERBS[option]
    match = re.fullmatch(pattern, text.strip())
    if match is None:
        raise ConfigError(f"{option}: expected {form}, got {text!r}")
    try:
        do(hand, match)
    except ConfigError as error:
        raise ConfigError(f"{option} {text}: {error}") from None


def _number(match: Match, group: int, default: int | None = None) -> Any:
    return default if match[group] is None else int(match[group])


def _merge(hand: _Hand, m: Match) -> None:
    hand.editing.merge(int(m[1]), int(m[2]), prefer=_number(m, 3))


def _swap(hand: _Hand, m: Match) -> None:
    hand.editing.swap(int(m[1]), int(m[2]), first=int(m[3]), last=_number(m, 4))


def _delete(hand: _Hand, m: Match) -> None:
    hand.editing.delete(int(m[1]), first=_number(m, 2, 0), last=_number(m, 3))


def _see(hand: _Hand, m: Match) -> None:
    if m[0] == "all":
        hand.editing.see(range(hand.editing.original.length))
        return
    first = int(m[1])
    hand.editing.see(range(first, _number(m, 2, first) + 1))


def _redraw(hand: _Hand, m: Match) -> None:
    from tubelet.core.polygons import points_of

    hand.editing.redraw(int(m[1]), int(m[2]), points_of("outline", m[3]))


def _add(hand: _Hand, m: Match) -> None:
    from tubelet.core.polygons import points_of

    hand.editing.add(m[1], int(m[2]), points_of("outline", m[3]))


def _follow(hand: _Hand, m: Match) -> None:
    from tubelet.core.errors import ConfigError
    from tubelet.editing.draft import reach
    from tubelet.inference.following import filled
    from tubelet.inference.results import VideoPrediction
    from tubelet.models import weights

    editing = hand.editing
    result = editing.result
    if not isinstance(result, VideoPrediction):
        raise ConfigError("following needs the video: --video SOURCE")

    track, start = int(m[1]), int(m[2])
    ends = [int(m[3])] if m[3] else reach(editing.draft, result.shots, track, start)
    model = weights.load(hand.model, device=hand.device)
    for end in ends:
        if end != start:
            with progress_bar("following") as progress:
                editing.do(filled(model, result, track, start, end, progress))


ID = r"(\d{1,9})"
VERBS: dict[str, tuple[str, str, Callable[[_Hand, Match], object]]] = {
    "--merge": (rf"{ID},{ID}(?::{ID})?", "two ids such as 3,7 or 3,7:3", _merge),
    "--split": (rf"{ID}@{ID}", "an id and a frame such as 5@120", lambda h, m: h.editing.split(int(m[1]), int(m[2]))),
    "--swap": (rf"{ID},{ID}@{ID}(?:-{ID})?", "two ids and a frame such as 3,7@120 or 3,7@120-140", _swap),
    "--delete": (rf"{ID}(?:@{ID}-{ID})?", "an id such as 5, or 5@100-120", _delete),
    "--delete-alike": (ID, "an id such as 5", lambda h, m: h.editing.delete_alike(int(m[1]))),
    "--rename": (
        rf"{ID}=(.+)",
        "an id and a class such as 3=dog",
        lambda h, m: h.editing.rename(int(m[1]), m[2].strip()),
    ),
    "--redraw": (rf"{ID}@{ID}=(.+)", "an id, a frame and corners such as 3@10=5,5,40,5,40,30", _redraw),
    "--add": (rf"(.+)@{ID}=(.+)", "a class, a frame and corners such as dog@10=5,5,40,5,40,30", _add),
    "--follow": (rf"{ID}@{ID}(?:-{ID})?", "an id and a frame such as 3@10 or 3@10-40", _follow),
    "--seen": (rf"all|{ID}(?:-{ID})?", "frames such as 10-40, or all", _see),
    "--edits": (r"(.+)", "a file", lambda h, m: h.editing.load(m[1])),
}


def _save(editing: Editing[Any], folder: Path) -> None:
    """Write the edited result and its edits, together."""
    from tubelet.core.atomic import together
    from tubelet.editing.session import EDITS
    from tubelet.formats.results_files import discard_other_results, results_name
    from tubelet.formats.ytvis import write_predictions
    from tubelet.inference.results import VideoPrediction

    result = editing.result
    name = results_name("auto", result.length)
    with together(folder) as scratch:
        if isinstance(result, VideoPrediction):
            with progress_bar("drawing") as progress:
                result.save(scratch, progress=progress)
        else:
            write_predictions(scratch / name, [result])
        editing.save(scratch / EDITS)
    discard_other_results(folder, name)


def _show(prediction: Prediction) -> None:
    """The objects, and the places to look at."""
    from tubelet.editing.doubts import doubts

    rows = []
    for track in prediction:
        frames = track.frames.tolist()
        name = prediction.classes[track.label]
        rows.append((track.id, name, f"{track.score:.2f}", len(frames), *frames[:1], *frames[-1:]))
    show(rows_of(table("#id", "class", "#score", "#frames", "#first", "#last"), rows))

    places = doubts(prediction)
    if places:
        show("places to look at:")
        show(*(f"  {place}" for place in places[:MOST_DOUBTS]))
    if len(places) > MOST_DOUBTS:
        show(f"  and {len(places) - MOST_DOUBTS} more")
