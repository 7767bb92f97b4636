"""What IFR learns beside Mask2Former-VIS: small versions, one budget, videos in which look-alikes cross and come back.

    python benchmarks/bench_learning_ifr.py --out runs/bench-ifr --backbone mobilenetv2_coco.safetensors \
        [--seeds 0 1 2] [--iterations 220] [--rows ROW ...]

The trunk is a pretrained MobileNetV2 (timm's names; its input is 2 x / 255 - 1 with TensorFlow's padding), held but for
its last stage; all else starts at random. Every row sees the same clips, as often, and is tested on the same unseen
videos; a trial that is finished is only read, so that seeds may be run apart and shown together at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tubelet.attention.recurrent import RecurrentConfig
from tubelet.data import synthetic, ytvis
from tubelet.data.geometry import Geometry, HorizontalFlip
from tubelet.data.sampling import NearbyPair
from tubelet.models.backbones import BackboneConfig
from tubelet.models.mask2former.criterion import CriterionConfig
from tubelet.models.mask2former.decoder import JointConfig
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.models.mask2former.model import DecoderConfig, Mask2FormerConfig
from tubelet.models.mask2former.pixel_decoder import PixelDecoderConfig
from tubelet.models.rcnn.inputs import InputConfig, KeepRatio
from tubelet.recipes.experiment import Experiment, YouTubeVIS
from tubelet.recipes.trial import run_trial, table
from tubelet.training.loop import TrainConfig
from tubelet.training.optim import AdamW, Cosine

FIGURES = ("AP", "AP50", "AP75", "J&F", "IDF1_best", "IDF1", "IDs", "HOTA", "fps", "train_s")
WORLD = synthetic.Synthetic(
    height=96,
    width=160,
    frames=12,
    classes=("fish", "beetle"),
    objects=(2, 3),
    size=(0.4, 0.7),
    look_alikes=1,
    leaving=0.5,
    camera=0.2,
    occluders=(0, 1),
    light=0,
    blur=0,
    noise=2,
)
JOINT = JointConfig(layers=3, heads=4, feed_forward=128)
INTER = InterFrameConfig(layers=3, layer=RecurrentConfig(heads=4, feed_forward=128))
ROWS: dict[str, DecoderConfig] = {
    "Mask2Former-VIS": JOINT,
    "IFR, lambda_e 0": INTER.override("cross_frame=0"),
    "IFR, lambda_e 0.3": INTER,
    "IFR, lambda_e 1": INTER.override("cross_frame=1"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=220)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, seed, count in (("train", 1, 100), ("test", 99, 24)):
        if not (arguments.out / name).exists():
            synthetic.write(arguments.out / name, WORLD, seed, count)
    test = ytvis.read(arguments.out / "test" / "instances.json")
    found: dict[str, list[dict[str, float]]] = {}
    for seed in arguments.seeds:  # seed by seed, so that a run that is cut short still compares all rows
        for name in arguments.rows:
            made = experiment(ROWS[name], arguments.out / "train", arguments.backbone, seed, arguments.iterations)
            place = arguments.out / f"{name.lower().replace(', ', '-').replace(' ', '-')}-{seed}"
            found.setdefault(name, []).append(run_trial(made, test, place))
            print(f"{name}, seed {seed}: AP {found[name][-1]['AP']:.3f}", flush=True)
    print(table(found, FIGURES))


def experiment(decoder: DecoderConfig, videos: Path, backbone: Path, seed: int, iterations: int) -> Experiment:
    """A small system on a folder of generated videos."""
    model = Mask2FormerConfig(
        backbone=BackboneConfig(name="mobilenetv2_100", frozen_stages=4, pad_type="same"),
        input=InputConfig(resize=KeepRatio(long=160, short=96), mean=(127.5,) * 3, std=(127.5,) * 3),
        pixel_decoder=PixelDecoderConfig(channels=64, layers=1, feed_forward=128, groups=8),
        decoder=decoder,
        queries=10,
        criterion=CriterionConfig(points=256),
    )
    return Experiment(
        about="a small mask transformer on look-alikes that cross and come back",
        model=model,
        data=YouTubeVIS(annotations=str(videos / "instances.json")),
        sampler=NearbyPair(reach=6),
        transforms=(Geometry(steps=(HorizontalFlip(),)),),
        init=str(backbone),
        optim=AdamW(lr=1e-3, warmup=20, schedule=Cosine(), parts={"backbone": 0.1}),
        train=TrainConfig(
            iterations=iterations, batch_size=4, workers=0, clip_norm=1.0, checkpoint_every=10**6, seed=seed, threads=1
        ),
    )


if __name__ == "__main__":
    main()
