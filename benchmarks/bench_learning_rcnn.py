"""Does each idea help where it should? Short trainings on generated videos, one budget for all, several seeds.

    python benchmarks/bench_learning_rcnn.py [--out runs/learning] [--seeds 3] [--videos 24]

All systems go on from one small detector (`small/start`, trained once into OUT/start) for the same number of steps.
Two worlds, each with training and test videos of its own:
- shaken: a third of the frames is smeared between clear ones (STA, CompFeat's dual attention; for ObjProp's propagation
  these are the frames in which the detector misses objects);
- look-alikes: every video has two creatures that look the same and cross (the correlation tracker).
Prints mean and deviation over the seeds; what is done already in OUT is not done again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tubelet.data.synthetic import Synthetic, write
from tubelet.inference.predict import predict
from tubelet.models import weights
from tubelet.recipes import find
from tubelet.recipes.experiment import Experiment, Generated, YouTubeVIS
from tubelet.recipes.small import WORLD
from tubelet.recipes.trial import measure, run_trial, table

SHAKEN = WORLD.override("shakes=0.5", "shake_blur=2.5", "look_alikes=0")
ALIKE = WORLD.override("look_alikes=1", "objects=[2, 3]")
WORLDS: dict[str, tuple[Synthetic, tuple[str, ...]]] = {
    "shaken": (SHAKEN, ("masktrack", "sta", "compfeat-both", "objprop")),
    "look-alikes": (ALIKE, ("masktrack", "compfeat-correlation")),
}
TRAIN_SEED, TEST_SEED = 2000, 9000
SHOWN = ("AP", "AP50", "IDF1", "IDF1_best", "IDs", "J&F")


def written(out: Path, world: Synthetic, seed: int, videos: int) -> YouTubeVIS:
    """The videos as files: drawing them anew for every clip would cost as much as learning from them."""
    if not out.is_dir():
        write(out, world, seed, videos)
    return YouTubeVIS(annotations=str(out / "instances.json"))


def trained(name: str, data: YouTubeVIS, start: Path, seed: int, precision: str) -> Experiment:
    """A small system on a world of its own, from the common start."""
    recipe = find(f"small/{name}").override(f"train.seed={seed}", f"train.precision={precision}", f"init={start}")
    return recipe.model_copy(update={"data": data})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=24, help="of each test set")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out, start = arguments.out, arguments.out / "start"
    if not (start / "model.safetensors").is_file():
        recipe = find("small/start").override(f"train.precision={arguments.precision}")
        assert isinstance(recipe.data, Generated)
        data = written(out / "videos" / "start", recipe.data.world, recipe.data.seed, recipe.data.videos)
        recipe.model_copy(update={"data": data}).run(start, resume=(start / "checkpoints").is_dir(), device="cpu")
    for world_name, (world, systems) in WORLDS.items():
        train = written(out / "videos" / world_name, world, TRAIN_SEED, 100)
        test = written(out / "videos" / f"{world_name}-test", world, TEST_SEED, arguments.videos).read()
        rows: dict[str, list[dict[str, float]]] = {}
        for seed in range(arguments.seeds):
            for system in systems:
                run = arguments.out / world_name / f"{system}-{seed}"
                recipe = trained(system, train, start, seed, arguments.precision)
                rows.setdefault(system, []).append(run_trial(recipe, test, run))
                if system == "objprop":
                    model = weights.load(run, device="cpu")
                    assert model.propagation is not None
                    model.propagation.config = model.propagation.config.override("at_test=false")
                    guesses = [predict(model, video, threshold=0.0) for video in test.videos]
                    rows.setdefault("objprop, nothing propagated", []).append(measure(test, guesses))
                print(world_name, system, seed, {k: round(v, 3) for k, v in rows[system][-1].items()}, flush=True)
        print(f"\n{world_name}\n\n{table(rows, SHOWN)}\n", flush=True)


if __name__ == "__main__":
    main()
