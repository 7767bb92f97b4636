"""`tubelet evaluate`, `report` and `submission`: measure predictions of any program, explain and pack them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tubelet.apps import evaluate_model
from tubelet.apps.console import say, show
from tubelet.apps.numbers import check_outputs, print_sheets, write_text

if TYPE_CHECKING:
    from tubelet.core.records import Prediction
    from tubelet.formats.ytvis.document import Faults
    from tubelet.formats.ytvis.numbering import AnnotatedSet

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Measure predictions against truth; nothing leaves the machine."
)

app.command()(evaluate_model.model)

TruthArgument = Annotated[Path, typer.Argument(metavar="TRUTH", help="A YouTube-VIS JSON.", show_default=False)]
Predictions = Annotated[
    Path, typer.Argument(metavar="PREDICTIONS", help="A result list or a data set.", show_default=False)
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers there too.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown in place of a table.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print LaTeX rows in place of a table.")]
JobsOption = Annotated[int, typer.Option(metavar="N", min=1, help="Processes.")]
Lenient = Annotated[bool, typer.Option("--lenient", help="Leave out broken entries, and count them.")]


Details = Annotated[bool, typer.Option("--details", help="Also per class, threshold, object or sequence.")]


@app.command()
def ytvis(
    truth: TruthArgument,
    predictions: Predictions,
    *,
    json: Json = None,
    markdown: Markdown = False,
    latex: Latex = False,
    jobs: JobsOption = 1,
    lenient: Lenient = False,
    details: Details = False,
    agnostic: Annotated[bool, typer.Option("--agnostic", help="Take all classes as one.")] = False,
    official_ids: Annotated[
        bool, typer.Option("--official-ids", help="Keep the official fault that a truth of id 0 counts as missed.")
    ] = False,
    long: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names or ids of the long videos, one a line: adds short, long and mean."),
    ] = None,
) -> None:
    """Average precision and recall by the rules of YouTube-VIS and OVIS.

    Where the truth states occlusion, AP and AR of slightly, moderately and heavily occluded objects are added.
    """
    from tubelet.evaluation import subsets
    from tubelet.evaluation import ytvis as measure
    from tubelet.evaluation.pairing import pair
    from tubelet.evaluation.partners import match
    from tubelet.evaluation.tables import sheet

    check_outputs(json)
    videos, predicted = _read(truth, predictions, lenient)
    occlusion = subsets.occlusion_splits(videos.occlusion) if videos.occlusion else ()
    splits = (*measure.AREAS, *occlusion)

    pairs = pair(videos.videos, predicted)
    matches = match(pairs, splits, agnostic=agnostic, official_ids=official_ids, jobs=jobs)
    curves = measure.curves(matches)
    numbers = measure.numbers(curves)
    long_videos = _long_videos(videos, long)
    if long_videos:
        numbers |= subsets.short_and_long(pairs, matches, long_videos)

    row = {predictions.stem: numbers}
    names = list(numbers)
    sheets = [sheet("", row, names[n : n + 6]) for n in range(0, len(names), 6)]
    listed: dict[str, dict[str, dict[str, float]]] = {}
    if details:
        classes = ("all",) if agnostic else videos.classes
        listed |= {"classes": measure.per_class(curves, classes), "thresholds": measure.per_threshold(curves)}
        sheets += [sheet(name, rows, list(next(iter(rows.values()), ()))) for name, rows in listed.items()]
    print_sheets(sheets, {**numbers, **listed}, json, markdown=markdown, latex=latex)


@app.command()
def davis(
    truth: Annotated[
        Path,
        typer.Argument(metavar="TRUTH_DIR", help="DAVIS's root, or its folder of annotations.", show_default=False),
    ],
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS_DIR", help="A folder of label maps a sequence.", show_default=False)
    ],
    *,
    json: Json = None,
    markdown: Markdown = False,
    latex: Latex = False,
    jobs: JobsOption = 1,
    lenient: Lenient = False,
    details: Details = False,
    semi_supervised: Annotated[
        bool, typer.Option("--semi-supervised", help="Objects are given in the first frame and keep their numbers.")
    ] = False,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="A list of ImageSets, e.g. val.", show_default="all sequences")
    ] = None,
) -> None:
    """Region and contour accuracy, J & F, by the rules of DAVIS: unsupervised, or semi-supervised."""
    from tubelet.evaluation import davis as measure
    from tubelet.evaluation.tables import sheet
    from tubelet.formats import davis_masks as files
    from tubelet.formats.ytvis.document import Faults

    check_outputs(json)
    faults = Faults(lenient=lenient)
    folder = files.annotation_folder(truth)
    predicted = files.annotation_folder(predictions)
    sequences = []
    for name in files.sequences(folder, truth, split):
        true_maps = files.truth(folder, name)
        predicted_maps = files.answer(predicted, name, true_maps, faults)
        sequences.append(measure.LabelledSequence(name, true_maps, predicted_maps))
    scores = measure.score(sequences, semi_supervised=semi_supervised, jobs=jobs)
    _say_faults(faults)

    numbers = measure.numbers(scores)
    sheets = [sheet("", {predictions.name: numbers}, list(numbers))]
    objects = {f"{score.sequence}_{score.object}": measure.numbers([score]) for score in scores}
    by_sequence = {name: measure.numbers([s for s in scores if s.sequence == name]) for name, *_ in sequences}
    if details:
        sheets += [sheet("sequence", by_sequence, list(numbers)), sheet("object", objects, list(numbers))]
    print_sheets(
        sheets, {**numbers, "objects": objects, "sequences": by_sequence}, json, markdown=markdown, latex=latex
    )


@app.command()
def identity(
    truth: TruthArgument,
    predictions: Predictions,
    *,
    json: Json = None,
    markdown: Markdown = False,
    latex: Latex = False,
    jobs: JobsOption = 1,
    lenient: Lenient = False,
    threshold: Annotated[float, typer.Option(metavar="T", min=0, max=1, help="Leave out lower scores.")] = 0.3,
    masks: Annotated[bool, typer.Option("--masks/--boxes", help="Overlap of masks, or of their tight boxes.")] = False,
    class_aware: Annotated[bool, typer.Option("--class-aware", help="Pair only tracks of one class.")] = False,
    rules: Annotated[
        str, typer.Option(metavar="NAME", help="Whose CLEAR MOT: motmetrics (py-motmetrics) or trackeval.")
    ] = "motmetrics",
    details: Annotated[
        bool, typer.Option("--details", help="Also each class by itself, and both averages over classes.")
    ] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="Also at the thresholds 0.05 to 0.95.")] = False,
    curve: Annotated[
        Path | None, typer.Option(metavar="SVG", help="Draw IDF1, MOTA and HOTA over the thresholds.")
    ] = None,
) -> None:
    """Identity through time: IDF1, MOTA, identity switches, HOTA and its parts."""
    from tubelet.evaluation import identity as measure
    from tubelet.evaluation.tables import sheet

    check_outputs(json, curve)
    chosen = measure.check_rules(rules)
    videos, predicted = _read(truth, predictions, lenient)
    thresholds = (threshold, *(t for t in measure.SWEEP if t != threshold)) if sweep or curve else (threshold,)
    swept = measure.sweep(
        videos.videos,
        predicted,
        thresholds=thresholds,
        on_masks=masks,
        class_aware=class_aware,
        rules=chosen,
        jobs=jobs,
    )

    numbers = swept[threshold]
    headings = {name: f"{name} ({measure.RULES[chosen]})" if name == "CLEAR" else name for name in measure.GROUPS}
    sheets = [sheet(headings[name], {predictions.stem: numbers}, keys) for name, keys in measure.GROUPS.items()]
    listed: dict[str, Mapping[str, Mapping[str, float]]] = {}
    if details:
        listed["classes"] = measure.by_class(
            videos.videos, predicted, videos.classes, threshold=threshold, on_masks=masks, rules=chosen, jobs=jobs
        )
        sheets += [sheet(headings[name], listed["classes"], keys) for name, keys in measure.GROUPS.items()]

    rows = {f"{t:.2f}": swept[t] for t in measure.SWEEP if t in swept}
    if sweep:
        listed["sweep"] = rows
        sheets.append(sheet(f"threshold ({measure.RULES[chosen]})", rows, measure.MAIN))
    if curve is not None:
        _draw_curve(curve, rows)
    print_sheets(sheets, {**numbers, **listed, "rules": chosen}, json, markdown=markdown, latex=latex)


@app.command()
def semantic(
    truth: TruthArgument,
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="A folder of class maps a video (one video: its maps), or what `ytvis` takes.",
            show_default=False,
        ),
    ],
    *,
    json: Json = None,
    markdown: Markdown = False,
    latex: Latex = False,
    lenient: Lenient = False,
    details: Details = False,
) -> None:
    """The class of every pixel: mean intersection over union, with the background and without it.

    Class maps are those of `tubelet predict --semantic`: 0 background, k the k-th class of the truth, 255 void.
    Instances are drawn into class maps, those with higher scores on top.
    """
    from tubelet.apps.class_maps import class_maps
    from tubelet.evaluation import semantic as measure
    from tubelet.evaluation.tables import sheet

    check_outputs(json)
    if predictions.is_dir():
        videos = _read_truth(truth, lenient)
        maps = class_maps(videos, predictions)
    else:
        videos, predicted = _read(truth, predictions, lenient)
        maps = class_maps(videos, predicted)
    table = measure.confusion(maps, len(videos.classes))
    numbers = measure.numbers(table)
    sheets = [sheet("", {predictions.stem: numbers}, list(numbers))]
    classes = measure.per_class(table, videos.classes)
    if details:
        sheets.append(sheet("class", classes, ["IoU", "share"]))
    print_sheets(sheets, {**numbers, "classes": classes} if details else numbers, json, markdown=markdown, latex=latex)


@app.command()
def failures(
    truth: TruthArgument,
    predictions: Predictions,
    *,
    json: Json = None,
    markdown: Markdown = False,
    latex: Latex = False,
    jobs: JobsOption = 1,
    lenient: Lenient = False,
    confident: Annotated[
        float, typer.Option(metavar="T", min=0, max=1, help="Score from which on tracks take part in identities.")
    ] = 0.3,
) -> None:
    """Why AP is not higher: all failures by kind, and the AP if each kind were mended."""
    from dataclasses import asdict

    check_outputs(json)
    from tubelet.evaluation import cases, diagnosis
    from tubelet.evaluation.costs import costs
    from tubelet.evaluation.pairing import pair
    from tubelet.evaluation.tables import sheet

    videos, predicted = _read(truth, predictions, lenient)
    numbered = cases.cases(pair(videos.videos, predicted), confident=confident, jobs=jobs)
    found = diagnosis.failures(numbered)
    base, by_kind, rest = costs(numbered, found)

    rows = {
        kind: {"times": c.times, "AP if mended": c.alone, "share of lost AP": c.share} for kind, c in by_kind.items()
    }
    rows["rest"] = {"share of lost AP": rest}
    table = sheet("failure", rows, ["times", "AP if mended", "share of lost AP"], title=f"AP {100 * base:.1f}")
    fields = ("kind", "video", "frames", "truths", "tracks", "score")
    listed = []
    for failure in found:
        values = asdict(failure)
        listed.append({name: values[name] for name in values if name in fields})
    print_sheets([table], {"AP": base, "costs": rows, "failures": listed}, json, markdown=markdown, latex=latex)


@app.command()
def oracles(
    truth: TruthArgument,
    predictions: Predictions,
    *,
    json: Json = None,
    markdown: Markdown = False,
    latex: Latex = False,
    jobs: JobsOption = 1,
    lenient: Lenient = False,
) -> None:
    """Which stage AP is lost in: AP with one stage replaced by truth, and with all up to it.

    docs/metrics.md says what each oracle does. The last row of the second column is 100.
    """
    check_outputs(json)
    from tubelet.evaluation import oracles as measure
    from tubelet.evaluation.cases import cases
    from tubelet.evaluation.pairing import pair
    from tubelet.evaluation.tables import sheet

    videos, predicted = _read(truth, predictions, lenient)
    base, by_oracle = measure.ledger(cases(pair(videos.videos, predicted), jobs=jobs), jobs=jobs)

    rows = {name: {"AP": ceiling.alone, "AP, all to here": ceiling.together} for name, ceiling in by_oracle.items()}
    table = sheet("oracle", rows, ["AP", "AP, all to here"], title=f"AP {100 * base:.1f}")
    print_sheets([table], {"AP": base, "oracles": rows}, json, markdown=markdown, latex=latex)


def report(
    truth: TruthArgument,
    predictions: Annotated[
        list[Path],
        typer.Argument(metavar="PREDICTIONS ...", help="One file, or several to compare.", show_default=False),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where report.html goes.")],
    frames: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Frames for the film strips.", show_default="beside TRUTH")
    ] = None,
    jobs: JobsOption = 1,
    lenient: Lenient = False,
) -> None:
    """One page that says how good predictions are and why they are not better; several are compared."""
    from tubelet.apps.report.command import write

    show(str(write(truth, predictions, out, frames=frames, jobs=jobs, lenient=lenient)))


def submission(
    predictions: Predictions,
    *,
    out: Annotated[Path, typer.Option(metavar="ZIP", help="The zip to write.")],
    truth: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="The set's JSON, annotations or not: its ids are used and checked."),
    ] = None,
    lenient: Lenient = False,
) -> None:
    """Pack predictions as the evaluation servers take them, checked before the file is written."""
    from tubelet.core.atomic import check_file
    from tubelet.formats import submission as packing
    from tubelet.formats import ytvis as files
    from tubelet.formats.ytvis.document import Faults

    check_file(out)
    tables = files.read(truth) if truth is not None else files.read_tables(predictions)
    faults = Faults(lenient=lenient)
    predicted = files.read_predictions(predictions, tables, faults=faults)
    _say_faults(faults)
    packing.write(out, predicted, tables)

    tracks = sum(len(prediction.tracks) for prediction in predicted)
    videos = sum(bool(prediction.tracks) for prediction in predicted)
    show(f"{out}: {tracks} tracks of {videos} videos")


def _read(truth: Path, predictions: Path, lenient: bool) -> tuple[AnnotatedSet, list[Prediction]]:
    from tubelet.formats import ytvis as files
    from tubelet.formats.ytvis.document import Faults

    faults = Faults(lenient=lenient)
    videos = files.read(truth, faults=faults)
    predicted = files.read_predictions(predictions, videos, faults=faults)
    _say_faults(faults)
    return videos, predicted


def _read_truth(truth: Path, lenient: bool) -> AnnotatedSet:
    from tubelet.formats import ytvis as files
    from tubelet.formats.ytvis.document import Faults

    faults = Faults(lenient=lenient)
    videos = files.read(truth, faults=faults)
    _say_faults(faults)
    return videos


def _long_videos(videos: AnnotatedSet, path: Path | None) -> set[str]:
    """Ids of the long videos: those that a file lists, or, without one, those that the truth marks."""
    from tubelet.core.untrusted.files import read_text

    if path is None:
        return {video.id for video, subset in zip(videos.videos, videos.subsets, strict=False) if subset == "long"}
    words = read_text(path).split()
    by_name = dict(zip(videos.names, (video.id for video in videos.videos), strict=True))
    return {by_name.get(word, word) for word in words}


def _draw_curve(path: Path, rows: Mapping[str, Mapping[str, float]]) -> None:
    from tubelet.apps.report.charts import drawing

    series = {key: [(float(t), row[key]) for t, row in rows.items()] for key in ("IDF1", "MOTA", "HOTA")}
    write_text(path, drawing(series, "threshold of score", low=-0.5))


def _say_faults(faults: Faults) -> None:
    for kind, count in faults.counts.items():
        say(f"left out {count} for {kind}, the first: {faults.first[kind]}")
