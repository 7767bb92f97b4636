"""What the tag-based system learns: one clip by heart, Table III on generated videos, and one object on real ones.

    python benchmarks/bench_learning_tags.py overfit [--iterations 300]
    python benchmarks/bench_learning_tags.py table --out runs/bench-tags [--seeds 3] [--iterations 400] [--videos 4]
        [--unseen] [--rows ROW ...]
    python benchmarks/bench_learning_tags.py davis2016 PATH --out runs/bench-tags-davis [--iterations 400]
        [--trunk FILE] [--seed 0]

`table` trains an eightieth of the paper's model from a random start on generated videos, each row of Table III as often
as there are seeds. It is tested on the same videos, which tells what it can learn by heart in seconds, or, `--unseen`,
on others, for which it needs hours and hundreds of videos; a trial that is finished is only read. `davis2016` takes a
folder with JPEGImages, Annotations and sequences.json, trains on the sequences of one object but for five, and tests on
these; with `--trunk`, the weights of a MobileNetV2, it trains `tags/davis-trunk` from it, on the sequences whose masks
merge several objects too. Masks are made at the resolution of the tags: the ceiling, the truth scaled down to it and up
again, is printed beside the results.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from tubelet.bench.trial import run_trial, table
from tubelet.core.types import Clip, Prediction, Video, VideoSet
from tubelet.data import caching
from tubelet.data.clips import load_clip, load_tracks
from tubelet.data.sampling import Sample
from tubelet.evaluation.measures import measure
from tubelet.formats import davis, registry, ytvis
from tubelet.inference.predict import predict
from tubelet.inference.stitch import Stitcher
from tubelet.inference.tallies import Ledger
from tubelet.models.tags.inputs import draw_truth
from tubelet.models.tags.model import TagModel
from tubelet.recipes.experiment import AnyForm, Experiment, YouTubeVIS
from tubelet.recipes.small import TINY_CLIPS, tiny
from tubelet.recipes.tags import DAVIS_TRUNK, PAPER_GENERATED, ROWS, SMALL, row
from tubelet.synthetic import generator
from tubelet.synthetic.config import Synthetic

FIGURES = ("J&F", "J", "F", "AP", "IDF1", "train_s")
# objects that differ and are all seen all the time: what a thousandth of the model can learn in seconds
WORLD = Synthetic(
    height=96,
    width=160,
    frames=12,
    objects=(2, 3),
    size=(0.5, 0.75),
    look_alikes=0,
    occluders=(0, 0),
    leaving=0,
    camera=0,
    light=0,
    noise=0,
    blur=0,
)
# of the 17 sequences of DAVIS 2016's training split with one object, every third by the alphabet
HELD = ("breakdance-flare", "dance-jump", "elephant", "lucia", "rhino")


def overfit(iterations: int) -> None:
    """One clip of three objects, again and again: J at the tags' resolution and at the frame's."""
    world = WORLD.but(frames=8, objects=(3, 3))
    video = generator.generate(world, 3, 1).videos[0]
    clip = load_clip(video, Sample(tuple(range(8)), (True,) * 8), len(world.classes))
    torch.manual_seed(0)
    model = PAPER_GENERATED.model.build(world.classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    began = time.process_time()
    for done in range(1, iterations + 1):
        with torch.autocast("cpu", torch.bfloat16):
            losses = model([clip])
        optimizer.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        if done % 50 == 0:
            told = ", ".join(f"{name} {float(loss.detach()):.2f}" for name, loss in losses.items())
            print(f"{done:4d}: J {cell_overlap(model.eval(), clip):.3f} at the tags' resolution; {told}", flush=True)
            model.train()
    guess = predict(model.eval(), video, threshold=0.0)
    truth = VideoSet(videos=[video], classes=world.classes)
    most = ceiling(truth, model.config.input_size)["J"]
    reached = measure(truth.videos, [guess], ["jf"])["J"]
    print(f"J {reached:.3f} at the frame's resolution, where the ceiling is {most:.3f}")
    print(f"{time.process_time() - began:.0f} s of one core")


@torch.inference_mode()
def cell_overlap(model: TagModel, clip: Clip) -> float:
    """Mean over objects of the best mask's overlap with it, over the whole clip."""
    answer = model.look(clip)
    masks = model.group(answer).masks > 0.5
    owners = draw_truth(clip, (answer.tags.shape[-2], answer.tags.shape[-1])).owners
    best = []
    for n in owners[owners >= 0].unique():
        real = owners == n
        best.append(max((float((mask & real).sum() / (mask | real).sum()) for mask in masks), default=0.0))
    return sum(best) / len(best)


def ceiling(videos: VideoSet, size: tuple[int, int]) -> dict[str, float]:
    """The figures of the truth itself, scaled down to `size` and up again as predictions are."""
    return measure(videos.videos, [_scaled(video, size, videos.classes) for video in videos.videos], ["ap", "jf"])


def _scaled(video: Video, size: tuple[int, int], classes: Sequence[str]) -> Prediction:
    index = torch.arange(len(video))
    truth = load_tracks(video, range(len(video)), index, len(classes))
    small = F.interpolate(truth.masks.float(), size, mode="area")
    stitcher, ledger = Stitcher(video.size), Ledger()
    stitcher.add(type(truth)(ids=truth.ids, scores=truth.scores, masks=small, index=index))
    for frame in stitcher.rest():
        ledger.add(frame)
    return Prediction(video=video.id, size=video.size, length=len(video), tracks=ledger.tracks(len(video)))


def table3(out: Path, seeds: int, iterations: int, videos: int, rows: Sequence[str], *, unseen: bool) -> None:
    """The full system and each row, on the same generated videos."""
    sets = {"train": (100, videos), "unseen": (200, 8)} if unseen else {"train": (100, videos)}
    for name, (seed, count) in sets.items():
        if not (out / name).exists():
            generator.write(out / name, WORLD, seed, count)
    test = ytvis.read(out / ("unseen" if unseen else "train") / "instances.json")
    full = PAPER_GENERATED.but(
        model=tiny(SMALL),
        data=YouTubeVIS(annotations=str(out / "train" / "instances.json")),
        sampler=TINY_CLIPS,
        train=PAPER_GENERATED.train.but(
            iterations=iterations,
            precision="bf16",
            checkpoint_every=100_000,
            batch_size=1,
            workers=0,
            threads=1,
        ),
    )
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):  # seed by seed, so that a run that is cut short still compares all rows
        for name in rows:
            made = (full if name == "full" else row(full, name)).but(train=full.train.but(seed=seed))
            found.setdefault(name, []).append(run_trial(made, test, out / f"{name}-{seed}"))
            print(f"{name} {seed}: {found[name][-1]['J&F']:.3f}", flush=True)
    high, wide = full.model.input_size  # type: ignore[union-attr]
    most = ceiling(test, (high, wide))
    print(table(found, FIGURES))
    print(f"ceiling: J&F {most['J&F']:.3f}, J {most['J']:.3f}, F {most['F']:.3f}")


def davis2016(root: Path, out: Path, iterations: int, trunk: str | None, seed: int) -> None:
    """Train on real sequences, test on five of one object that were not seen."""
    listed = json.loads((root / "sequences.json").read_text())
    single = [entry["sequence"] for entry in listed if entry["objects2017"] == 1]
    videos = registry.open_set(root, "davis")
    training = [video for video in videos.videos if video.id not in HELD and (trunk or video.id in single)]
    held = VideoSet(videos=[video for video in videos.videos if video.id in HELD], classes=videos.classes)
    print(f"{len(training)} sequences to learn from, {len(held.videos)} to test: {', '.join(HELD)}")

    if trunk is None:
        made = davis_experiment(shrunk(training, out / "train", 120, videos.classes), iterations)
    else:
        made = trunk_experiment(shrunk(training, out / "train", 160, videos.classes), iterations, trunk)
    made = made.but(train=made.train.but(seed=seed))

    figures = run_trial(made, held, out / f"trial-{seed}")
    most = ceiling(held, made.model.input_size)  # type: ignore[union-attr]
    for name, numbers in (("ours", figures), ("ceiling", most)):
        print(f"{name:8s} J {100 * numbers['J']:.1f}  F {100 * numbers['F']:.1f}  J&F {100 * numbers['J&F']:.1f}")
    print(f"{figures['train_s']:.0f} s of training, {figures['fps']:.1f} frames a second at test")


def trunk_experiment(data: Path, iterations: int, trunk: str) -> Experiment:
    """The recipe with a pretrained trunk, in one process."""
    made = DAVIS_TRUNK.override(
        "train.precision=bf16",
        "train.workers=0",
        "train.threads=1",
        f"train.iterations={iterations}",
    )
    return made.but(data=AnyForm(path=str(data), form="davis"), init=trunk)


def davis_experiment(data: Path, iterations: int) -> Experiment:
    """The small model, on sequences of the ratio of DAVIS's."""
    made = PAPER_GENERATED.override(
        "model.window.length=32",
        "train.precision=bf16",
        "train.workers=0",
        "train.threads=1",
        "train.checkpoint_every=100000",
        f"train.iterations={iterations}",
        "sampler.drop=[1,5]",
        "sampler.stride=[1,5]",
    )
    return made.but(data=AnyForm(path=str(data), form="davis"))


def shrunk(videos: Sequence[Video], out: Path, short: int, classes: tuple[str, ...]) -> Path:
    """The sequences at `short` lines, written once: to read all of them would take most of the time."""
    if not out.exists():
        long = round(short * 16 / 9)
        small = caching.shrink(VideoSet(videos=videos, classes=classes), out.parent / "shrunk", short=short, long=long)
        davis.write(out, small)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("overfit")
    one.add_argument("--iterations", type=int, default=300)
    many = commands.add_parser("table")
    many.add_argument("--out", type=Path, required=True)
    many.add_argument("--seeds", type=int, default=3)
    many.add_argument("--iterations", type=int, default=400)
    many.add_argument("--videos", type=int, default=4)
    many.add_argument("--unseen", action="store_true")
    many.add_argument("--rows", nargs="*", default=["full", *ROWS])
    real = commands.add_parser("davis2016")
    real.add_argument("path", type=Path)
    real.add_argument("--out", type=Path, required=True)
    real.add_argument("--iterations", type=int, default=400)
    real.add_argument("--trunk", help="weights to start from")
    real.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "overfit":
        overfit(arguments.iterations)
    elif arguments.command == "table":
        seeds, iterations, videos = arguments.seeds, arguments.iterations, arguments.videos
        table3(arguments.out, seeds, iterations, videos, arguments.rows, unseen=arguments.unseen)
    else:
        davis2016(arguments.path, arguments.out, arguments.iterations, arguments.trunk, arguments.seed)


if __name__ == "__main__":
    main()
