"""VidEoMT (Norouzi et al., CVPR 2026): ViT-S, B and L on YouTube-VIS 2019, 2021, 2022 and OVIS.

tubelet train videomt/ytvis2019/s data.annotations=train.json init=segmenter.safetensors --out runs/s
tubelet train videomt/ytvis2021/l data.annotations=train.json init=tue-mps/coco_instance_eomt_large_640 --out runs/l

Figures are those of the authors' tables; S and B are published on YouTube-VIS 2019 alone. The set of 2022 is trained
as that of 2021 and measured on its long videos. The paper starts from an EoMT of images that was trained on frames of
the same data set, given as a pickle (docs/published-weights.md tells how to convert it). Its training also draws
pseudo-videos of COCO's images, as `data.kind=with_images` does. `train.batch_size` is of one process: on 8 devices
give 1.
"""

from __future__ import annotations

from tubelet.data.geometry import Geometry, HorizontalFlip, RandomCrop, ResizeShortSide
from tubelet.data.sampling import NearbyPair
from tubelet.models.videomt.encoder import ViTConfig
from tubelet.models.videomt.model import VidEoMTConfig
from tubelet.recipes.experiment import Evaluation, Experiment, YouTubeVIS
from tubelet.training.loop import TrainConfig
from tubelet.training.optim import AdamW, Polynomial

TOP = 10  # (query, class) pairs of a video that are handed in
SIDES = (320, 352, 392, 416, 448, 480, 512, 544, 576, 608, 640)  # of training frames, the short one
DECAY = 0.6  # of the learning rate from each layer of the encoder to the one before it

ENCODERS = {
    "s": ViTConfig(channels=384, layers=12, query_layers=3, heads=6),
    "b": ViTConfig(channels=768, layers=12, query_layers=3, heads=12),
    "l": ViTConfig(channels=1024, layers=24, query_layers=4, heads=16),
}
DATA_SETS = {
    "ytvis2019": "YouTube-VIS 2019",
    "ytvis2021": "YouTube-VIS 2021",
    "ytvis2022": "YouTube-VIS 2021, for the long videos of 2022",
    "ovis": "OVIS",
}
PAPER = {  # AP and AR10
    "ytvis2019/s": (52.8, 62.2),
    "ytvis2019/b": (58.2, 66.5),
    "ytvis2019/l": (68.6, 73.9),
    "ytvis2021/l": (63.1, 68.1),
    "ytvis2022/l": (42.6, 48.1),
    "ovis/l": (52.5, 57.5),
}
ITERATIONS = {"ytvis2019/s": 40_000, "ytvis2019/b": 40_000, "ytvis2019/l": 60_000}
OTHERWISE = 160_000  # iterations of the other rows

BODY = "network.backbone.body"
_START = "an EoMT of images with this encoder, in transformers' form; or DINOv2 with registers and init_partial=true"


def layer_rates(encoder: ViTConfig) -> dict[str, float]:
    """The rate of each part of an encoder, relative to that of the new parts: 0.6 times the next layer's.

    >>> from tubelet.recipes.videomt import ENCODERS, layer_rates
    >>> rates = layer_rates(ENCODERS["s"])
    >>> rates["network.backbone.body.blocks.11"], rates["network.backbone.body.blocks.10"]
    (1.0, 0.6)
    """
    last = encoder.layers - 1
    rates = {f"{BODY}.blocks.{n}": DECAY ** (last - n) for n in range(encoder.layers)}
    for part in ("patch_embed", "pos_embed", "cls_token", "reg_token"):
        rates[f"{BODY}.{part}"] = DECAY**encoder.layers
    return rates


def _row(data: str, size: str) -> Experiment:
    name = f"{data}/{size}"
    encoder = ENCODERS[size]
    figures = dict(zip(("AP", "AR10"), PAPER.get(name, ()), strict=False))
    return Experiment(
        about=f"VidEoMT, ViT-{size.upper()}, on {DATA_SETS[data]}" + ("" if figures else " (no published figure)"),
        model=VidEoMTConfig(encoder=encoder, save_memory=size != "s"),
        data=YouTubeVIS(),
        sampler=NearbyPair(frames=5, reach=2),
        transforms=(Geometry(steps=(ResizeShortSide(sides=SIDES, long=768), RandomCrop(), HorizontalFlip())),),
        init_needs=_START,
        optim=AdamW(
            lr=1e-4,
            weight_decay=0.05,
            warmup=500,
            warmup_from=0.0,
            warmups={BODY: 1000},
            schedule=Polynomial(power=0.9),
            parts=layer_rates(encoder),
        ),
        train=TrainConfig(
            iterations=ITERATIONS.get(name, OTHERWISE),
            batch_size=8,
            workers=4,
            precision="bf16",
            clip_norm=0.01,
        ),
        paper=figures,
        evaluations={"per video": Evaluation(top=TOP, paper=figures)},
    )


RECIPES = {f"videomt/{data}/{size}": _row(data, size) for data in DATA_SETS for size in ENCODERS}
