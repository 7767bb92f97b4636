"""Mask2Former-VIS (Cheng et al., 2021): every row of its Tables 1 and 2, on YouTube-VIS 2019 and 2021.

The figures are those that the IFR paper prints of it; recall is not among them.

tubelet train mask2former_vis/table1/swin-t data.annotations=train.json --out runs/swin-t
tubelet train mask2former_vis/table1/r50 data.annotations=train.json init=coco_r50.safetensors --out runs/r50

All start from a Mask2Former of COCO: Swin's are fetched by name, ResNet's are the authors' pickles, to be converted
(docs/published-weights.md). `train.batch_size` is of one process: on 8 devices give 2.
"""

from __future__ import annotations

from collections.abc import Mapping

from tubelet.data.geometry import Geometry, HorizontalFlip, ResizeShortSide
from tubelet.data.sampling import NearbyPair
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import InputConfig, KeepRatio
from tubelet.models.mask2former.decoder import JointConfig, QueryDecoderConfig
from tubelet.models.mask2former.model import Mask2FormerConfig
from tubelet.recipes.experiment import Evaluation, Experiment, YouTubeVIS
from tubelet.training.loop import TrainConfig
from tubelet.training.optim import AdamW, Steps

TOP = 10  # (query, class) pairs of a video that are handed in

BACKBONES = {  # the name in the tables -> timm's, short side at test, and the COCO model it starts from
    "r50": ("resnet50", 360, None),
    "r101": ("resnet101", 360, None),
    "swin-t": ("swin_tiny_patch4_window7_224", 480, "facebook/mask2former-swin-tiny-coco-instance"),
    "swin-s": ("swin_small_patch4_window7_224", 480, "facebook/mask2former-swin-small-coco-instance"),
    "swin-b": ("swin_base_patch4_window12_384", 480, "facebook/mask2former-swin-base-IN21k-coco-instance"),
    "swin-l": ("swin_large_patch4_window12_384", 480, "facebook/mask2former-swin-large-coco-instance"),
}
_CONVERTED = "a Mask2Former of COCO with this ResNet, converted as docs/published-weights.md says"
SCHEDULES = {2019: (6000, 4000), 2021: (8000, 5500)}  # iterations, and where the rate falls to a tenth


def row(
    system: str,
    backbone: str,
    year: int,
    paper: Mapping[str, float],
    *,
    decoder: QueryDecoderConfig,
    queries: int = 100,
    evaluations: Mapping[str, Evaluation] | None = None,
) -> Experiment:
    """One row: what differs is the decoder, the backbone, the number of queries and the data set."""
    name, short, init = BACKBONES[backbone]
    iterations, fall = SCHEDULES[year]
    return Experiment(
        about=f"{system}, {backbone}, {queries} queries, on YouTube-VIS {year}",
        model=Mask2FormerConfig(
            backbone=BackboneConfig(name=name, frozen_stages=0),
            input=InputConfig(resize=KeepRatio(long=1333, short=short)),
            decoder=decoder,
            queries=queries,
        ),
        data=YouTubeVIS(),
        sampler=NearbyPair(frames=2, reach=20),
        transforms=(Geometry(steps=(ResizeShortSide(sides=(360, 480)), HorizontalFlip())),),
        init=init,
        init_needs=_CONVERTED if init is None else "",
        optim=AdamW(
            lr=1e-4,
            weight_decay=0.05,
            decay_all=True,
            spared=("norms", "embeddings"),
            warmup=10,
            warmup_from=1.0,  # the original's warm-up begins at the full rate
            schedule=Steps(at=(fall,)),
            parts={"backbone": 0.1},
        ),
        train=TrainConfig(iterations=iterations, batch_size=16, workers=4, precision="bf16", clip_norm=0.01),
        paper=dict(paper),
        evaluations={"per video": Evaluation(top=TOP, paper=dict(paper)), **(evaluations or {})},
    )


FIGURES = ("AP", "AP50", "AP75", "AR1", "AR10")  # in the order of the tables


def published(*figures: float) -> dict[str, float]:
    """The figures of a row by name; rows without recall stop before it."""
    return dict(zip(FIGURES, figures, strict=False))


def backbone_and_queries(label: str) -> tuple[str, int]:
    """`swin-l-200` is Swin-L with 200 queries; others have 100."""
    if label.endswith("-200"):
        return label.removesuffix("-200"), 200
    return label, 100


def _rows(table: str, year: int, papers: Mapping[str, Mapping[str, float]]) -> dict[str, Experiment]:
    rows = {}
    for label, paper in papers.items():
        backbone, queries = backbone_and_queries(label)
        rows[f"mask2former_vis/{table}/{label}"] = row(
            "Mask2Former-VIS", backbone, year, paper, decoder=JointConfig(), queries=queries
        )
    return rows


RECIPES = {
    **_rows(
        "table1",
        2019,
        {
            "r50": published(46.4, 68.0, 50.0),
            "r101": published(49.2, 72.8, 54.2),
            "swin-t": published(51.5, 75.0, 56.6),
            "swin-s": published(54.3, 79.0, 58.8),
            "swin-b": published(59.5, 84.3, 67.2),
            "swin-l-200": published(60.4, 84.4, 67.0),
        },
    ),
    **_rows(
        "table2",
        2021,
        {
            "r50": published(40.6, 60.9, 41.8),
            "r101": published(42.4, 65.9, 45.8),
            "swin-t": published(45.9, 68.7, 50.7),
            "swin-s": published(48.6, 77.2, 52.0),
            "swin-b": published(52.0, 76.5, 54.2),
            "swin-l-200": published(52.6, 76.4, 57.2),
        },
    ),
}
