"""CompFeat (Fu et al., AAAI 2021): temporal and spatial attention at frame and object level, and a correlation tracker.

tubelet train compfeat/table5/compfeat data.videos.annotations=train.json data.images.annotations=coco.json \
    init=torchvision/maskrcnn_resnet50_fpn --out runs/compfeat

Tables 1 to 4 do without the cues of score, IoU and class; Table 5 has them. At test four support frames are spread over
the video, which reads the future; `window.causal=true` takes them from the past alone.
"""

from __future__ import annotations

from tubelet.core.protocol import Window
from tubelet.data.geometry import Geometry, HorizontalFlip, PseudoMotion, ResizeWithin
from tubelet.recipes.experiment import Evaluation, Experiment, WithImages
from tubelet.recipes.masktrack import YTVIS2019 as MASKTRACK
from tubelet.training.optim import SGD, Steps

# 12 epochs of MaskTrack's 45,000 steps of 16, in steps of 4 (two for each of two cards; the paper states no batch)
_ITERATIONS = 180_000

_MASKTRACK = MASKTRACK.override("model.association.cues=false").model_copy(
    update={
        "optim": SGD(lr=0.0125, schedule=Steps(at=(_ITERATIONS * 8 // 12, _ITERATIONS * 11 // 12))),
        "train": MASKTRACK.train.override(f"iterations={_ITERATIONS}", "batch_size=4"),
    }
)

_BASELINE = _MASKTRACK.model_copy(
    update={
        "data": WithImages(),
        "transforms": (
            Geometry(steps=(PseudoMotion(),), only="stills"),
            Geometry(steps=(ResizeWithin(long=640, short=360), HorizontalFlip())),
        ),
    }
)

_SUPPORTS = ('sampler={"kind": "support_reference", "supports": 2}', "model.window.context=4")
_CORRELATION = 'model.match={"kind": "correlation"}'


def _dual(socket: str, *branches: str) -> tuple[str, ...]:
    """Dual attention with the named branches in a socket, and the support frames that it reads."""
    temporal, spatial = (str(branch in branches).lower() for branch in ("temporal", "spatial"))
    return (*_SUPPORTS, f'model.{socket}={{"kind": "dual", "temporal": {temporal}, "spatial": {spatial}}}')


_FRAME = _dual("neck", "temporal", "spatial")
_OBJECT = _dual("regions", "temporal", "spatial")
_FULL = (*_FRAME, *_OBJECT, _CORRELATION)


def _row(about: str, figures: tuple[float, ...], *overrides: str, base: Experiment = _BASELINE) -> Experiment:
    """A row with the paper's AP, AP50, AP75 and, where given, AR1 and AR10."""
    paper = dict(zip(("AP", "AP50", "AP75", "AR1", "AR10"), figures, strict=False))
    return base.override(*overrides).model_copy(update={"about": about, "paper": paper})


TABLE_1 = {
    "masktrack": _row("MaskTrack R-CNN, without cues", (20.9, 37.9, 21.6), base=_MASKTRACK),
    "baseline": _row("the same with COCO images as clips", (24.1, 42.6, 24.9)),
}
TABLE_2 = {
    "frame-temporal": _row("temporal attention of frames", (25.2, 43.9, 25.6), *_dual("neck", "temporal")),
    "frame-spatial": _row("spatial attention of frames", (24.9, 43.4, 25.2), *_dual("neck", "spatial")),
    "frame": _row("both, of frames", (25.8, 44.5, 27.0), *_FRAME),
    "object-temporal": _row("temporal attention of objects", (25.4, 44.4, 25.9), *_dual("regions", "temporal")),
    "object-spatial": _row("spatial attention of objects", (24.8, 43.3, 25.1), *_dual("regions", "spatial")),
    "object": _row("both, of objects", (26.1, 45.6, 26.7), *_OBJECT),
    "frame-object": _row("both, of frames and objects", (27.5, 46.1, 28.9), *_FRAME, *_OBJECT),
}
TABLE_3 = {
    "cm": _row("the correlation tracker", (25.1, 44.3, 26.7), _CORRELATION),
    "cm+fda": _row("with attention of frames", (26.3, 45.3, 27.1), _CORRELATION, *_FRAME),
    "cm+oda": _row("with attention of objects", (26.7, 45.9, 27.3), _CORRELATION, *_OBJECT),
    "cm+fda+oda": _row("with both", (28.4, 47.4, 30.7), *_FULL),
}


def _supports(spread: str, number: int, aps: tuple[float, float, float, float]) -> Experiment:
    """A row of Table 4, tested with 2 to 5 support frames (its column heads say 2, 3, 3, 4: a misprint)."""
    ways = {
        f"{n} supports": Evaluation(window=Window(context=n), paper={"AP": ap})
        for n, ap in zip((2, 3, 4, 5), aps, strict=True)
    }
    row = _row(
        f"{number} support frames in training, {'spread evenly' if spread == 'uniform' else 'drawn at random'}",
        (aps[2],),  # tested with four
        *_FULL,
        f'sampler={{"kind": "support_reference", "supports": {number}, "spread": "{spread}"}}',
    )
    return row.model_copy(update={"evaluations": ways})


TABLE_4 = {
    "uniform-2": _supports("uniform", 2, (27.1, 27.4, 27.8, 27.3)),
    "uniform-3": _supports("uniform", 3, (26.2, 26.6, 26.6, 26.8)),
    "random-2": _supports("random", 2, (27.3, 27.7, 28.4, 27.4)),
    "random-3": _supports("random", 3, (26.1, 26.8, 26.8, 26.7)),
}
_CUES = "model.association.cues=true"
TABLE_5 = {
    "masktrack": _row("MaskTrack R-CNN as published", (30.3, 51.1, 32.6, 31.0, 35.5), _CUES, base=_MASKTRACK),
    "baseline": _row("the same with COCO images as clips", (32.2, 52.1, 34.6, 31.8, 37.2), _CUES),
    "compfeat": _row("the whole system", (35.3, 56.0, 38.6, 33.1, 40.3), _CUES, *_FULL),
}

RECIPES = {
    f"compfeat/table{number}/{name}": row
    for number, table in enumerate((TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5), start=1)
    for name, row in table.items()
}
