"""CompFeat (Fu et al., AAAI 2021): temporal and spatial attention at frame and object level, and a correlation tracker.

tubelet train compfeat/table5/compfeat data.videos.annotations=train.json data.images.annotations=coco.json \
    --out runs/compfeat

Tables 1 to 4 do without the cues of score, IoU and class; Table 5 has them. At test four support frames are spread over
the video, which reads the future; `window.causal=true` takes them from the past alone.
"""

from __future__ import annotations

from typing import Literal

from tubelet.core.protocol import Window
from tubelet.data.geometry import Geometry, HorizontalFlip, PseudoMotion, ResizeWithin
from tubelet.data.sampling import SupportReference
from tubelet.models.rcnn.heads.correlation import CorrelationMatchConfig
from tubelet.models.rcnn.neck import DualNeckConfig
from tubelet.models.rcnn.regions import DualRegionsConfig
from tubelet.recipes import masktrack
from tubelet.recipes.experiment import Evaluation, Experiment, WithImages
from tubelet.tracking.association import AssociationConfig
from tubelet.training.optim import SGD, Steps

# 12 epochs of MaskTrack's 45,000 steps of 16, in steps of 4 (two for each of two cards; the paper states no batch)
_ITERATIONS = 180_000

MODEL = masktrack.MODEL.but(association=AssociationConfig(cues=False))

_MASKTRACK = masktrack.YTVIS2019.but(
    model=MODEL,
    optim=SGD(lr=0.0125, schedule=Steps(at=(_ITERATIONS * 8 // 12, _ITERATIONS * 11 // 12))),
    train=masktrack.YTVIS2019.train.but(iterations=_ITERATIONS, batch_size=4),
)

_BASELINE = _MASKTRACK.but(
    data=WithImages(),
    transforms=(
        Geometry(steps=(PseudoMotion(),), only="stills"),
        Geometry(steps=(ResizeWithin(long=640, short=360), HorizontalFlip())),
    ),
)

_FRAME = DualNeckConfig()
_OBJECT = DualRegionsConfig()
_CORRELATION = CorrelationMatchConfig()
_TWO_SUPPORTS = SupportReference(supports=2)
_SUPPORTED = MODEL.but(window=Window(context=4))


def _row(
    about: str,
    figures: tuple[float, ...],
    *,
    frame: DualNeckConfig | None = None,
    object: DualRegionsConfig | None = None,
    tracker: CorrelationMatchConfig | None = None,
    cues: bool = False,
    supports: SupportReference = _TWO_SUPPORTS,
) -> Experiment:
    """A row with the paper's AP, AP50, AP75 and, where given, AR1 and AR10.

    `frame` and `object` are the attention at each level; with either, support frames are read in training and at test.
    """
    attends = frame is not None or object is not None
    model = (_SUPPORTED if attends else MODEL).but(neck=frame, regions=object, association=AssociationConfig(cues=cues))
    if tracker is not None:
        model = model.but(match=tracker)

    paper = dict(zip(("AP", "AP50", "AP75", "AR1", "AR10"), figures, strict=False))
    row = _BASELINE.but(about=about, model=model, paper=paper)
    return row.but(sampler=supports) if attends else row


def _without_images(row: Experiment) -> Experiment:
    """The same row, trained on videos alone."""
    return row.but(data=_MASKTRACK.data, transforms=_MASKTRACK.transforms)


TABLE_1 = {
    "masktrack": _without_images(_row("MaskTrack R-CNN, without cues", (20.9, 37.9, 21.6))),
    "baseline": _row("the same with COCO images as clips", (24.1, 42.6, 24.9)),
}
TABLE_2 = {
    "frame-temporal": _row("temporal attention of frames", (25.2, 43.9, 25.6), frame=_FRAME.but(spatial=False)),
    "frame-spatial": _row("spatial attention of frames", (24.9, 43.4, 25.2), frame=_FRAME.but(temporal=False)),
    "frame": _row("both, of frames", (25.8, 44.5, 27.0), frame=_FRAME),
    "object-temporal": _row("temporal attention of objects", (25.4, 44.4, 25.9), object=_OBJECT.but(spatial=False)),
    "object-spatial": _row("spatial attention of objects", (24.8, 43.3, 25.1), object=_OBJECT.but(temporal=False)),
    "object": _row("both, of objects", (26.1, 45.6, 26.7), object=_OBJECT),
    "frame-object": _row("both, of frames and objects", (27.5, 46.1, 28.9), frame=_FRAME, object=_OBJECT),
}
TABLE_3 = {
    "cm": _row("the correlation tracker", (25.1, 44.3, 26.7), tracker=_CORRELATION),
    "cm+fda": _row("with attention of frames", (26.3, 45.3, 27.1), tracker=_CORRELATION, frame=_FRAME),
    "cm+oda": _row("with attention of objects", (26.7, 45.9, 27.3), tracker=_CORRELATION, object=_OBJECT),
    "cm+fda+oda": _row("with both", (28.4, 47.4, 30.7), tracker=_CORRELATION, frame=_FRAME, object=_OBJECT),
}


def _supports(
    spread: Literal["uniform", "random"], number: int, figures: tuple[float, float, float, float]
) -> Experiment:
    """A row of Table 4, tested with 2 to 5 support frames (its column heads say 2, 3, 3, 4: a misprint)."""
    ways = {
        f"{count} supports": Evaluation(window=Window(context=count), paper={"AP": ap})
        for count, ap in zip((2, 3, 4, 5), figures, strict=True)
    }
    row = _row(
        f"{number} support frames in training, {'spread evenly' if spread == 'uniform' else 'drawn at random'}",
        (figures[2],),  # tested with four
        tracker=_CORRELATION,
        frame=_FRAME,
        object=_OBJECT,
        supports=SupportReference(supports=number, spread=spread),
    )
    return row.but(evaluations=ways)


TABLE_4 = {
    "uniform-2": _supports("uniform", 2, (27.1, 27.4, 27.8, 27.3)),
    "uniform-3": _supports("uniform", 3, (26.2, 26.6, 26.6, 26.8)),
    "random-2": _supports("random", 2, (27.3, 27.7, 28.4, 27.4)),
    "random-3": _supports("random", 3, (26.1, 26.8, 26.8, 26.7)),
}
TABLE_5 = {
    "masktrack": _without_images(
        _row("MaskTrack R-CNN as published", (30.3, 51.1, 32.6, 31.0, 35.5), cues=True),
    ),
    "baseline": _row("the same with COCO images as clips", (32.2, 52.1, 34.6, 31.8, 37.2), cues=True),
    "compfeat": _row(
        "the whole system",
        (35.3, 56.0, 38.6, 33.1, 40.3),
        cues=True,
        tracker=_CORRELATION,
        frame=_FRAME,
        object=_OBJECT,
    ),
}

RECIPES = {
    f"compfeat/table{number}/{name}": row
    for number, table in enumerate((TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5), start=1)
    for name, row in table.items()
}
