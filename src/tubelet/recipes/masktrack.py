"""MaskTrack R-CNN (Yang et al., ICCV 2019): the baseline on YouTube-VIS, and a small one that learns in minutes.

tubelet train masktrack/ytvis2019 data.annotations=train.json --out runs/r50
tubelet train masktrack/generated --out runs/first
"""

from __future__ import annotations

from tubelet.data.geometry import Geometry, HorizontalFlip, ResizeWithin
from tubelet.data.sampling import RandomPair
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import InputConfig, KeepRatio
from tubelet.models.rcnn.detectors.two_stage import TwoStageConfig
from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.model import MaskTrackConfig
from tubelet.recipes.experiment import Experiment, Generated, YouTubeVIS
from tubelet.synthetic.config import Synthetic
from tubelet.training.loop import TrainConfig
from tubelet.training.optim import SGD, AdamW, Cosine, Steps

# 12 epochs of the 2,238 training videos, about 27 annotated frames each, 16 pairs at a time
_ITERATIONS = 45_000

DETECTOR = TwoStageConfig()
RESNET101 = DETECTOR.backbone.but(name="resnet101")
MODEL = MaskTrackConfig(detector=DETECTOR)

YTVIS2019 = Experiment(
    about="MaskTrack R-CNN, ResNet-50, on YouTube-VIS 2019 as published",
    model=MODEL,
    data=YouTubeVIS(),
    sampler=RandomPair(),
    per="frame",
    transforms=(Geometry(steps=(ResizeWithin(long=640, short=360), HorizontalFlip())),),
    init="torchvision/maskrcnn_resnet50_fpn",  # of COCO
    optim=SGD(lr=0.005, schedule=Steps(at=(_ITERATIONS * 8 // 12, _ITERATIONS * 11 // 12))),
    train=TrainConfig(iterations=_ITERATIONS, batch_size=16, workers=4),
    paper={"AP": 30.3, "AP50": 51.1, "AP75": 32.6, "AR1": 31.0, "AR10": 35.5},
)

# from a random start, so nothing is frozen; small enough for two CPU cores
_SMALL = MaskTrackConfig(
    detector=TwoStageConfig(
        input=InputConfig(resize=KeepRatio(long=320, short=180)),
        backbone=BackboneConfig(name="resnet18", frozen_stages=0, frozen_norm=False),
        channels=64,
        box_channels=256,
        proposals_per_level=100,
        proposals=100,
    ),
    mask=MaskHeadConfig(convs=2, channels=64),
    match=FullyConnectedMatchConfig(channels=128),
)

RECIPES = {
    "masktrack/ytvis2019": YTVIS2019,
    "masktrack/ytvis2019-r101": YTVIS2019.but(
        about="MaskTrack R-CNN, ResNet-101, on YouTube-VIS 2019",
        model=MODEL.but(detector=DETECTOR.but(backbone=RESNET101)),
        init="torchvision/resnet101",  # of ImageNet: torchvision has no such detector
        paper={},
    ),
    "masktrack/generated": Experiment(
        about="a small MaskTrack R-CNN on generated videos: nothing to download, minutes on two cores",
        model=_SMALL,
        data=Generated(videos=100, world=Synthetic()),
        sampler=RandomPair(context=0),
        transforms=(Geometry(steps=(HorizontalFlip(),)),),
        init="none",
        optim=AdamW(lr=5e-4, weight_decay=0.02, warmup=50, schedule=Cosine()),
        train=TrainConfig(iterations=1000, batch_size=2, clip_norm=10.0, checkpoint_every=250),
    ),
}
