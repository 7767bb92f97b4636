"""Small versions of the systems, one budget for all: what `benchmarks/bench_learning_rcnn.py` compares.

tubelet train small/start --out runs/start
tubelet train small/compfeat init=runs/start/model.safetensors --out runs/compfeat

The papers start from a detector that has been trained; so do these. `small/start` learns generated videos of one seed
from nothing; every other row goes on from it for the same number of steps on videos of another.
"""

from __future__ import annotations

from tubelet.data.geometry import Geometry, HorizontalFlip
from tubelet.data.sampling import RandomPair
from tubelet.data.synthetic import Synthetic
from tubelet.models.backbones import BackboneConfig
from tubelet.models.rcnn.heads import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.inputs import InputConfig, KeepRatio
from tubelet.models.rcnn.model import MaskTrackConfig
from tubelet.models.rcnn.two_stage import TwoStageConfig
from tubelet.recipes.experiment import Experiment, Generated
from tubelet.training.loop import TrainConfig
from tubelet.training.optim import AdamW, Cosine

WORLD = Synthetic(height=96, width=160, frames=12, size=(0.3, 0.6), classes=("fish", "beetle", "duck", "car"))

_MODEL = MaskTrackConfig(
    detector=TwoStageConfig(
        input=InputConfig(resize=KeepRatio(long=160, short=96)),
        backbone=BackboneConfig(name="resnet18"),
        channels=32,
        box_channels=128,
        proposals_per_level=50,
        proposals=50,
        anchors_sampled=64,
        regions_sampled=64,
    ),
    mask=MaskHeadConfig(convs=2, channels=32),
    match=FullyConnectedMatchConfig(channels=64),
)

START = Experiment(
    about="the small detector that all small systems start from",
    model=_MODEL.override("detector.backbone.frozen_stages=0", "detector.backbone.frozen_norm=false"),
    data=Generated(videos=200, seed=1000, world=WORLD),
    sampler=RandomPair(context=0),
    transforms=(Geometry(steps=(HorizontalFlip(),)),),
    optim=AdamW(lr=1e-3, weight_decay=0.02, warmup=50, schedule=Cosine()),
    train=TrainConfig(iterations=600, batch_size=4, workers=0, clip_norm=10.0, checkpoint_every=200),
)

_MASKTRACK = Experiment(
    about="small MaskTrack R-CNN",
    model=_MODEL,
    data=Generated(videos=100, seed=2000, world=WORLD),
    sampler=RandomPair(),
    transforms=(Geometry(steps=(HorizontalFlip(),)),),
    optim=AdamW(lr=3e-4, weight_decay=0.02, warmup=20, schedule=Cosine()),
    train=TrainConfig(iterations=120, batch_size=4, workers=0, clip_norm=10.0, checkpoint_every=120),
)

_STA = 'model.neck={"kind": "sta", "levels": ["P2", "P3", "P4", "P5"]}'
_PROPAGATION = 'model.propagation={"channels": 32, "convs": 2}'
_SUPPORTS = ('sampler={"kind": "support_reference", "supports": 2}', "model.window.context=4")
_FRAME = (*_SUPPORTS, 'model.neck={"kind": "dual", "levels": ["P2", "P3", "P4", "P5"]}')
_OBJECT = (*_SUPPORTS, "model.regions={}")
_CORRELATION = 'model.match={"kind": "correlation", "level": "P3"}'


def _row(about: str, *overrides: str) -> Experiment:
    return _MASKTRACK.override(*overrides).model_copy(update={"about": f"small {about}"})


SYSTEMS = {
    "masktrack": _MASKTRACK,
    "sta": _row("STA", _STA),
    "objprop": _row("ObjProp", _PROPAGATION),
    "objprop-neck": _row("ObjProp with attention neck", _PROPAGATION, _STA, "model.neck.consumers=proposals"),
    "objprop-affinity": _row(
        "ObjProp with weighted affinity", _PROPAGATION, "model.propagation.affinity.weight=shared"
    ),
    "compfeat": _row("CompFeat", *_FRAME, *_OBJECT, _CORRELATION),
}
ABLATIONS = {
    "masktrack-ordered": _row("MaskTrack R-CNN, ordered pairs", 'sampler={"kind": "ordered_pair"}'),
    "compfeat-frame": _row("dual attention of frames", *_FRAME),
    "compfeat-object": _row("dual attention of objects", *_OBJECT),
    "compfeat-both": _row("dual attention of both", *_FRAME, *_OBJECT),
    "compfeat-correlation": _row("correlation tracker", _CORRELATION),
}

RECIPES = {"small/start": START} | {f"small/{name}": row for name, row in (SYSTEMS | ABLATIONS).items()}
