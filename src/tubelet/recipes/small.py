"""Small versions of the ten systems and of the ablations that carry the papers' claims: what `tubelet bench vis` runs.

tubelet train small/compfeat --out runs/compfeat

All learn from the same videos, see them as clips of the same size, and get the same time: their iterations are what one
core does in about the same number of seconds (docs/benchmark.md). All start from the trunk of the bundled model, which
stays as it is but for its last stage.
"""

from __future__ import annotations

from typing import Literal

from tubelet.attention.affinity import AffinityConfig
from tubelet.attention.ifr import RecurrentConfig
from tubelet.core.protocol import Window
from tubelet.data.geometry import Geometry, HorizontalFlip
from tubelet.data.sampling import DroppedClip, NearbyPair, OrderedPair, RandomPair, SupportReference
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import Fit, InputConfig, KeepRatio
from tubelet.models.mask2former.decoder import JointConfig
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.models.mask2former.model import Mask2FormerConfig
from tubelet.models.mask2former.pixel_decoder import PixelDecoderConfig
from tubelet.models.queries.criterion import CriterionConfig
from tubelet.models.rcnn.detectors.two_stage import TwoStageConfig
from tubelet.models.rcnn.heads.correlation import CorrelationMatchConfig
from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.model import MaskTrackConfig
from tubelet.models.rcnn.neck import DualNeckConfig, STANeckConfig
from tubelet.models.rcnn.propagation import PropagationConfig
from tubelet.models.rcnn.regions import DualRegionsConfig
from tubelet.models.tags.model import TagConfig
from tubelet.models.videomt.encoder import ViTConfig
from tubelet.models.videomt.model import VidEoMTConfig
from tubelet.recipes import tags
from tubelet.recipes.experiment import Experiment, Generated
from tubelet.synthetic.config import Synthetic
from tubelet.training.loop import TrainConfig
from tubelet.training.optim import AdamW, Cosine

HEIGHT = 96
WIDTH = 160

# the world that all systems learn from; the benchmark makes one thing of it hard at a time
PLAIN = Synthetic(
    height=HEIGHT,
    width=WIDTH,
    frames=12,
    classes=("fish", "beetle", "duck", "car"),
    objects=(1, 3),
    size=(0.3, 0.6),
    deformation=0.1,
    look_alikes=0,
    occluders=(0, 0),
    leaving=0,
    camera=0.2,
    light=0.05,
    blur=0.3,
)

_TRUNK = BackboneConfig(name="mobilenetv2_100", frozen_stages=4, pad_type="same")
_INPUT = InputConfig(resize=KeepRatio(long=WIDTH, short=HEIGHT), mean=(127.5,) * 3, std=(127.5,) * 3)
_VIDEOS = Generated(videos=140, seed=2000, world=PLAIN)
_FLIP = (Geometry(steps=(HorizontalFlip(),)),)


def _budget(iterations: int, clip_norm: float, *, batch_size: int = 4) -> TrainConfig:
    return TrainConfig(
        iterations=iterations,
        batch_size=batch_size,
        workers=0,
        precision="bf16",
        threads=1,
        clip_norm=clip_norm,
        checkpoint_every=10**6,
    )


_MODEL = MaskTrackConfig(
    detector=TwoStageConfig(
        input=_INPUT,
        backbone=_TRUNK,
        channels=32,
        box_channels=128,
        proposals_per_level=50,
        proposals=50,
        anchors_sampled=64,
        regions_sampled=64,
    ),
    # the trunk's maps come without ReLU or norm, four times a ResNet's; from Kaiming's start masks would be far off
    mask=MaskHeadConfig(convs=2, channels=32, logits_std=0.001),
    match=FullyConnectedMatchConfig(channels=64),
)
_MASKTRACK = Experiment(
    about="small MaskTrack R-CNN",
    model=_MODEL,
    data=_VIDEOS,
    sampler=RandomPair(),
    transforms=_FLIP,
    init="ssdlite",
    optim=AdamW(lr=1e-3, weight_decay=0.02, warmup=30, schedule=Cosine(), parts={"detector.backbone": 0.1}),
    train=_budget(500, 10.0),
)

_LEVELS: tuple[Literal["P2", "P3", "P4", "P5"], ...] = ("P2", "P3", "P4", "P5")
_STA = STANeckConfig(levels=_LEVELS)
_PROPAGATION = PropagationConfig(channels=32, convs=2)
_WEIGHTED = _PROPAGATION.but(affinity=AffinityConfig(weight="shared"))
_FRAME = DualNeckConfig(levels=_LEVELS)
_OBJECT = DualRegionsConfig()
# correlations are squares of the trunk's large values; with so small a start no detection begins as a sure match
_CORRELATION = CorrelationMatchConfig(level="P3", score_std=0.01)


def _row(about: str, iterations: int, **parts: object) -> Experiment:
    """MaskTrack R-CNN with what a paper adds."""
    return _MASKTRACK.but(
        about=f"small {about}",
        model=_MODEL.but(**parts),
        train=_MASKTRACK.train.but(iterations=iterations),
    )


def _supported(about: str, iterations: int, **parts: object) -> Experiment:
    """One that looks at support frames: two in training, four at test."""
    row = _row(about, iterations, window=Window(context=4), **parts)
    return row.but(sampler=SupportReference(supports=2))


_MASK2FORMER = Experiment(
    about="small Mask2Former-VIS",
    model=Mask2FormerConfig(
        backbone=_TRUNK,
        input=_INPUT,
        pixel_decoder=PixelDecoderConfig(channels=64, layers=1, feed_forward=128, groups=8),
        decoder=JointConfig(layers=3, heads=4, feed_forward=128),
        queries=10,
        criterion=CriterionConfig(points=256),
    ),
    data=_VIDEOS,
    sampler=NearbyPair(reach=6),
    transforms=_FLIP,
    init="ssdlite",
    optim=AdamW(lr=1e-3, warmup=30, schedule=Cosine(), parts={"backbone": 0.1}),
    train=_budget(305, 1.0),
)
_INTER_FRAME = InterFrameConfig(layers=3, layer=RecurrentConfig(heads=4, feed_forward=128))


def _ifr(cross_frame: float) -> Experiment:
    return _MASK2FORMER.but(
        about=f"small IFR, lambda_e {cross_frame:g}",
        model=_MASK2FORMER.model.but(decoder=_INTER_FRAME.but(cross_frame=cross_frame)),
        train=_MASK2FORMER.train.but(iterations=280),
    )


def tiny(model: TagConfig) -> TagConfig:
    """Shrink a model of the paper's shape to an eightieth of the paper's.

    >>> from tubelet.recipes import small, tags
    >>> small.tiny(tags.SMALL).channels
    32
    """
    assert model.spatio_temporal is not None
    assert model.tag_attention is not None
    assert model.decoder is not None
    return model.but(
        input_size=(48, 80),
        channels=32,
        bottleneck=48,
        generator=16,
        tag_features=16,
        encoder=model.encoder.but(width=8),
        decoder=model.decoder.but(widths=(32, 16, 8)),
        spatio_temporal=model.spatio_temporal.but(keys=16),
        tag_attention=model.tag_attention.but(keys=16),
        window=model.window.but(length=6),
    )


TINY_CLIPS = DroppedClip(frames=6, drop=(1, 2), stride=(1, 1))

_TAGS = tags.GENERATED.but(
    about="small tag-based system",
    data=_VIDEOS,
    train=_budget(700, 10.0, batch_size=1),
)

_VIDEOMT = Experiment(
    about="small VidEoMT",
    model=VidEoMTConfig(
        encoder=ViTConfig(
            channels=64,
            layers=4,
            query_layers=2,
            heads=4,
            patch=8,
            size=(HEIGHT, WIDTH),
            layer_scale=1.0,
            trunk=_TRUNK,
        ),
        input=InputConfig(resize=Fit(height=HEIGHT, width=WIDTH), mean=(127.5,) * 3, std=(127.5,) * 3),
        queries=10,
        criterion=CriterionConfig(points=256),
    ),
    data=_VIDEOS,
    sampler=NearbyPair(frames=2, reach=6),
    transforms=_FLIP,
    init="ssdlite",
    optim=AdamW(lr=1e-3, warmup=30, schedule=Cosine(), parts={"network.backbone.body.patch_embed.trunk": 0.1}),
    train=_budget(400, 1.0),
)

SYSTEMS = {
    "masktrack": _MASKTRACK,
    "sta": _row("STA", 430, neck=_STA),
    "objprop": _row("ObjProp", 450, propagation=_PROPAGATION),
    "objprop-neck": _row(
        "ObjProp with attention neck",
        370,
        propagation=_PROPAGATION,
        neck=_STA.but(consumers="proposals"),
    ),
    "objprop-affinity": _row("ObjProp with weighted affinity", 490, propagation=_WEIGHTED),
    "compfeat": _supported("CompFeat", 185, neck=_FRAME, regions=_OBJECT, match=_CORRELATION),
    "mask2former": _MASK2FORMER,
    "ifr": _ifr(0.3),
    "tags": _TAGS,
    "videomt": _VIDEOMT,
}
ABLATIONS = {
    "masktrack-ordered": _row("MaskTrack R-CNN, ordered pairs", 500).but(sampler=OrderedPair()),
    "compfeat-frame": _supported("dual attention of frames", 230, neck=_FRAME),
    "compfeat-object": _supported("dual attention of objects", 280, regions=_OBJECT),
    "compfeat-both": _supported("dual attention of both", 185, neck=_FRAME, regions=_OBJECT),
    "compfeat-correlation": _row("correlation tracker", 475, match=_CORRELATION),
    "ifr-without-cross-frame": _ifr(0),
    "ifr-more-cross-frame": _ifr(1),
}

RECIPES = {f"small/{name}": row for name, row in (SYSTEMS | ABLATIONS).items()}
