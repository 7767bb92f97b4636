"""What corrections are worth: a person, simulated by the truth, mends results, and the model learns from them.

    python benchmarks/bench_teaching.py --set generated --out runs/teaching [--seeds 2] [--steps 80] [--held-out 8]
    python benchmarks/bench_teaching.py --set pasted --coco FOLDER --out runs/teaching
    python benchmarks/bench_teaching.py --draw docs/pictures/teaching.png --out runs/teaching

Two things are measured, each for 0, 1, 3, 5 and 10 corrections:

following   each object of a clip is drawn in so many frames, and followed from them by the model's memory, as the page
            does. J and IDF1 over the frames that were not drawn; 0 is the model's own result.
learning    so many clips are corrected in all their frames, exported as `tubelet data label` does and trained on by
            `finetune` (`teach` where the bundled model knows all classes), with fewer steps, smaller crops and batches
            than the recipe's. J, IDF1 and AP on clips held out, where nobody corrects anything; 0 is the bundled model.
            Another seed: other clips, another order.

generated   drawn animals and cars, most of which the model has no name for: what it has never seen.
pasted      photographs that move, with objects of other photographs passing (`bench/video_sets.py`): what it knows.
            FOLDER is one of COCO form; of images whose labels are complete, half are trained on and half are held out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tubelet.bench.video_sets import PastedVideos
from tubelet.core.types import Prediction, Track, Video, VideoSet
from tubelet.data.geometry import Geometry, HorizontalFlip, PseudoMotion, RandomScaleCrop
from tubelet.data.pasting import PasteObjects
from tubelet.drawing.figures import plain, save
from tubelet.editing.draft import reach
from tubelet.evaluation.measures import measure
from tubelet.formats import coco
from tubelet.inference.following import filled
from tubelet.inference.labelling import write_labels
from tubelet.inference.predict import Model, predict
from tubelet.inference.results import VideoPrediction
from tubelet.models import weights
from tubelet.recipes import find
from tubelet.recipes.default import pseudo_videos
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import generate
from tubelet.video.trimming import picked
from tubelet.video.windows import evenly

CORRECTIONS = (0, 1, 3, 5, 10)
FIGURES = ("J", "IDF1", "AP")
WORLD = Synthetic(frames=16, look_alikes=0.2)
WORTH_MENDING = WORLD.but(objects=(2, 4), leaving=0)  # a person takes clips that show something
MOTION = (
    Geometry(steps=(PseudoMotion(), RandomScaleCrop(height=240, width=320, zoom=(0.8, 1.6)), HorizontalFlip())),
    PasteObjects(count=(1, 3), size=(0.2, 0.5), travel=0.5),
)
CROP = 320  # pixels, of the training
POOL = 10  # clips that may be corrected


def clips_of(name: str, folder: Path | None, held_out: int, seed: int) -> tuple[VideoSet, VideoSet]:
    """Clips to correct, of this seed, and clips to measure on, the same for every seed."""
    if name == "generated":
        return generate(WORTH_MENDING, 100 + seed, POOL), generate(WORLD, 1, held_out)

    assert folder is not None, "--set pasted needs --coco FOLDER"
    images = json.loads((folder / "instances.json").read_text())["images"]
    complete = [image["id"] for image in images if image.get("labelled_categories") == "all 80"]
    halves = [coco.read(folder / "instances.json", keep=set(complete[half::2])) for half in (0, 1)]
    to_correct = PastedVideos(halves[0], 100 + seed, range(POOL), MOTION)
    to_measure = PastedVideos(halves[1], 1, range(held_out), MOTION)
    return (
        VideoSet(videos=to_correct, classes=halves[0].classes),
        VideoSet(videos=to_measure, classes=halves[1].classes),
    )


def following(model: Model, videos: VideoSet) -> Iterator[dict[str, float]]:
    """Figures of following, for each number of frames that are drawn."""
    results = [predict(model, video) for video in videos.videos]
    for number in CORRECTIONS:
        drawn = [evenly(len(video), number) if number else [] for video in videos.videos]
        pairs = zip(results, videos.videos, drawn, strict=True)
        mended = [followed(model, *pair, videos.classes) if pair[2] else pair[0] for pair in pairs]

        rests = [[t for t in range(len(v)) if t not in frames] for v, frames in zip(videos.videos, drawn, strict=True)]
        truth = [picked(video, rest) for video, rest in zip(videos.videos, rests, strict=True)]
        answers = [of_frames(result, rest) for result, rest in zip(mended, rests, strict=True)]
        figures = measure(truth, answers, ("jf", "identity"))
        yield {"corrections": number, "J": figures["J"], "IDF1": figures["IDF1"]}


def followed(
    model: Model, result: VideoPrediction, video: Video, frames: Sequence[int], classes: Sequence[str]
) -> VideoPrediction:
    """A result in which each true object is drawn in some frames and followed from these."""
    editing = result.edit()
    for track in result.tracks:
        editing.delete(track.id)

    for truth in video.tracks or ():
        drawn = [t for t in frames if truth.rles[t] is not None]
        if truth.ignore or not drawn:
            continue
        new = editing.add(classes[truth.label], drawn[0], truth.mask(drawn[0]))
        for t in drawn[1:]:
            editing.redraw(new, t, truth.mask(t))
        for t in drawn:
            for end in reach(editing.draft, result.shots, new, t):
                if end != t:
                    editing.do(filled(model, editing.result, new, t, end))
    return editing.result


def of_frames(result: Prediction, frames: Sequence[int]) -> Prediction:
    """A result in some of its frames."""
    tracks = tuple(replace(track, rles=tuple(track.rles[t] for t in frames)) for track in result.tracks)
    return Prediction(video=result.video, size=result.size, length=len(frames), tracks=tracks, classes=result.classes)


def learned(name: str, arguments: argparse.Namespace, number: int, seed: int) -> dict[str, float]:
    """Figures on the clips held out, after learning from so many corrected clips."""
    to_correct, to_measure = clips_of(name, arguments.coco, arguments.held_out, seed)
    began = time.process_time()
    source: str | Path = "default"
    if number:
        out = arguments.out / f"{name}-{number}-{seed}"
        source = train(corrected(to_correct, number), out, arguments.steps, seed)
    seconds = time.process_time() - began

    model = weights.load(source, device="cpu", engine="torch")
    named = relabelled(to_measure, model.classes)
    predictions = [predict(model, video, threshold=0.05) for video in named.videos]
    figures = measure(named.videos, predictions, ("ap", "jf", "identity"))
    return {"corrections": number, "seed": seed, "seconds": seconds, **{key: figures[key] for key in FIGURES}}


def corrected(videos: VideoSet, number: int) -> list[VideoPrediction]:
    """Results as a person leaves them who mends everything: the truth, with the model's classes first."""
    classes = tuple(dict.fromkeys((*weights.load("default", device="cpu", engine="torch").classes, *videos.classes)))
    named = relabelled(videos, classes)
    return [
        VideoPrediction(
            video=video.id,
            size=video.size,
            length=len(video),
            tracks=tuple(track for track in video.tracks or () if not track.ignore),
            classes=classes,
            source=video,
        )
        for video in list(named.videos)[:number]
    ]


def train(results: Sequence[VideoPrediction], out: Path, steps: int, seed: int) -> Path:
    """Export results as labelled data and train on these."""
    if not (out / "labels").is_dir():
        write_labels(out / "labels", [(result, None) for result in results])
    known = set(weights.load("default", device="cpu", engine="torch").classes)
    names = {result.classes[track.label] for result in results for track in result.tracks}
    recipe = find("teach" if names <= known else "finetune").override(
        f"data.annotations={out / 'labels'}",
        f"train.iterations={steps}",
        "train.batch_size=2",
        "train.workers=0",
        f"train.seed={seed}",
        "optim.warmup=10",
    )
    recipe = recipe.but(transforms=pseudo_videos(CROP))
    outcome = recipe.run(out / "run", device="cpu", quiet=True, resume=True)
    assert outcome.model is not None
    return outcome.model


def relabelled(videos: VideoSet, classes: Sequence[str]) -> VideoSet:
    """A set with its tracks' labels counted in a longer list of classes; classes that it lacks are put at its end."""
    names = tuple(dict.fromkeys((*classes, *videos.classes)))

    def renamed(track: Track) -> Track:
        return replace(track, label=names.index(videos.classes[track.label]))

    renumbered = [replace(v, tracks=tuple(renamed(t) for t in v.tracks or ())) for v in videos.videos]
    return VideoSet(videos=renumbered, classes=names)


def run(name: str, arguments: argparse.Namespace) -> None:
    """Measure everything of one set; each figure is stored as soon as it is there, and read where it is."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{name}.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    if not any(row["what"] == "following" for row in done):
        _, to_measure = clips_of(name, arguments.coco, arguments.held_out, 0)
        for row in following(weights.load("default", device="cpu", engine="torch"), to_measure):
            note(path, {"what": "following", **row})

    for seed in range(arguments.seeds):
        for number in reversed(CORRECTIONS):
            if number == 0 and seed:
                continue  # the bundled model on the same clips
            if not any(
                (row["what"], row["corrections"], row.get("seed")) == ("learning", number, seed) for row in done
            ):
                note(path, {"what": "learning", **learned(name, arguments, number, seed)})


def note(path: Path, row: dict[str, object]) -> None:
    """Append a row of figures to a file, and print it."""
    line = json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    with path.open("a") as file:
        file.write(line + "\n")
    print(path.stem, line, flush=True)


def draw(folder: Path, out: Path) -> None:
    """Draw the figures over the number of corrections, a panel for each set and way."""
    from matplotlib.figure import Figure

    files = sorted(folder.glob("*.jsonl"))
    figure = Figure(figsize=(8.5, 3.1 * len(files)), dpi=100, layout="constrained")
    panels = figure.subplots(len(files), 2, squeeze=False, sharey=True)
    for path, row_of_panels in zip(files, panels, strict=True):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for axes, what in zip(row_of_panels, ("following", "learning"), strict=True):
            draw_panel(axes, [row for row in rows if row["what"] == what])
            unit = "frames drawn in each clip" if what == "following" else "clips corrected and trained on"
            axes.set(xlabel=unit, title=f"{path.stem}: {what}", ylim=(0, 100), xticks=CORRECTIONS)
            plain(axes)
        row_of_panels[0].set_ylabel("percent")
    panels[0][1].legend(frameon=False)
    save(figure, out)


def draw_panel(axes, rows: Sequence[dict[str, float]]) -> None:  # type: ignore[no-untyped-def]  # matplotlib's
    for name in FIGURES:
        points = {n: [100 * row[name] for row in rows if row["corrections"] == n and name in row] for n in CORRECTIONS}
        known = {n: values for n, values in points.items() if values}
        if not known:
            continue
        means = [statistics.fmean(values) for values in known.values()]
        deviations = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in known.values()]
        axes.errorbar(list(known), means, yerr=deviations, marker="o", capsize=3, label=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=["generated", "pasted"])
    parser.add_argument("--coco", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--held-out", type=int, default=8)
    parser.add_argument("--draw", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.set is not None:
        run(arguments.set, arguments)
    if arguments.draw is not None:
        draw(arguments.out, arguments.draw)


if __name__ == "__main__":
    main()
