"""Small versions of the nine systems and of the ablations that carry the papers' claims: what `tubelet bench vis` runs.

tubelet train small/compfeat --out runs/compfeat

All learn from the same videos, see them as clips of the same size, and get the same time: their iterations are what one
core does in about the same number of seconds (docs/benchmark.md). The R-CNNs and mask transformers start from the trunk
of the bundled model, which stays as it is but for its last stage; the tag-based system has three-dimensional
convolutions, for which there is no such start, and begins from nothing.
"""

from __future__ import annotations

from tubelet.attention.recurrent import RecurrentConfig
from tubelet.data.geometry import Geometry, HorizontalFlip
from tubelet.data.graded import HEIGHT, PLAIN, WIDTH
from tubelet.data.sampling import NearbyPair, RandomPair
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import InputConfig, KeepRatio
from tubelet.models.mask2former.criterion import CriterionConfig
from tubelet.models.mask2former.decoder import JointConfig
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.models.mask2former.model import Mask2FormerConfig
from tubelet.models.mask2former.pixel_decoder import PixelDecoderConfig
from tubelet.models.rcnn.heads import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.model import MaskTrackConfig
from tubelet.models.rcnn.two_stage import TwoStageConfig
from tubelet.recipes import tags
from tubelet.recipes.experiment import Experiment, Generated
from tubelet.training.loop import TrainConfig
from tubelet.training.optim import AdamW, Cosine

_TRUNK = BackboneConfig(name="mobilenetv2_100", frozen_stages=4, pad_type="same")
_INPUT = InputConfig(resize=KeepRatio(long=WIDTH, short=HEIGHT), mean=(127.5,) * 3, std=(127.5,) * 3)
_VIDEOS = Generated(videos=140, seed=2000, world=PLAIN)
_FLIP = (Geometry(steps=(HorizontalFlip(),)),)


def _budget(iterations: int, clip_norm: float, **further: int) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "iterations": iterations,
            "batch_size": 4,
            "workers": 0,
            "precision": "bf16",
            "threads": 1,
            "clip_norm": clip_norm,
            "checkpoint_every": 10**6,
        }
        | further
    )


_MASKTRACK = Experiment(
    about="small MaskTrack R-CNN",
    model=MaskTrackConfig(
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
        mask=MaskHeadConfig(convs=2, channels=32),
        match=FullyConnectedMatchConfig(channels=64),
    ),
    data=_VIDEOS,
    sampler=RandomPair(),
    transforms=_FLIP,
    init="default",
    optim=AdamW(lr=1e-3, weight_decay=0.02, warmup=30, schedule=Cosine(), parts={"detector.backbone": 0.1}),
    train=_budget(500, 10.0),
)

_STA = 'model.neck={"kind": "sta", "levels": ["P2", "P3", "P4", "P5"]}'
_PROPAGATION = 'model.propagation={"channels": 32, "convs": 2}'
_SUPPORTS = ('sampler={"kind": "support_reference", "supports": 2}', "model.window.context=4")
_FRAME = (*_SUPPORTS, 'model.neck={"kind": "dual", "levels": ["P2", "P3", "P4", "P5"]}')
_OBJECT = (*_SUPPORTS, "model.regions={}")
_CORRELATION = 'model.match={"kind": "correlation", "level": "P3"}'


def _row(about: str, iterations: int, *overrides: str) -> Experiment:
    row = _MASKTRACK.override(f"train.iterations={iterations}", *overrides)
    return row.model_copy(update={"about": f"small {about}"})


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
    init="default",
    optim=AdamW(lr=1e-3, warmup=30, schedule=Cosine(), parts={"backbone": 0.1}),
    train=_budget(305, 1.0),
)
_INTER_FRAME = InterFrameConfig(layers=3, layer=RecurrentConfig(heads=4, feed_forward=128))


def _ifr(cross_frame: float, iterations: int = 280) -> Experiment:
    decoder = _INTER_FRAME.model_copy(update={"cross_frame": cross_frame})
    row = _MASK2FORMER.override(f"train.iterations={iterations}")
    update = {
        "about": f"small IFR, lambda_e {cross_frame:g}",
        "model": row.model.model_copy(update={"decoder": decoder}),
    }
    return row.model_copy(update=update)


TINY = (  # an eightieth of the paper's tag-based model
    "model.input_size=[48,80]",
    "model.channels=32",
    "model.bottleneck=48",
    "model.generator=16",
    "model.tag_features=16",
    "model.encoder.width=8",
    "model.decoder.widths=[32,16,8]",
    "model.spatio_temporal.keys=16",
    "model.tag_attention.keys=16",
    "model.window.length=6",
    "sampler.frames=6",
)
# at a weight of 1, the tagging loss keeps so small a network from learning what is foreground
_TAGS = tags.GENERATED.override(*TINY, "model.loss.weight=0.02").model_copy(
    update={"about": "small tag-based system", "data": _VIDEOS, "train": _budget(1400, 10.0, batch_size=1)}
)

SYSTEMS = {
    "masktrack": _MASKTRACK,
    "sta": _row("STA", 430, _STA),
    "objprop": _row("ObjProp", 450, _PROPAGATION),
    "objprop-neck": _row("ObjProp with attention neck", 370, _PROPAGATION, _STA, "model.neck.consumers=proposals"),
    "objprop-affinity": _row(
        "ObjProp with weighted affinity", 490, _PROPAGATION, "model.propagation.affinity.weight=shared"
    ),
    "compfeat": _row("CompFeat", 185, *_FRAME, *_OBJECT, _CORRELATION),
    "mask2former": _MASK2FORMER,
    "ifr": _ifr(0.3),
    "tags": _TAGS,
}
ABLATIONS = {
    "masktrack-ordered": _row("MaskTrack R-CNN, ordered pairs", 500, 'sampler={"kind": "ordered_pair"}'),
    "compfeat-frame": _row("dual attention of frames", 230, *_FRAME),
    "compfeat-object": _row("dual attention of objects", 280, *_OBJECT),
    "compfeat-both": _row("dual attention of both", 185, *_FRAME, *_OBJECT),
    "compfeat-correlation": _row("correlation tracker", 475, _CORRELATION),
    "ifr-without-cross-frame": _ifr(0),
    "ifr-more-cross-frame": _ifr(1),
}

RECIPES = {f"small/{name}": row for name, row in (SYSTEMS | ABLATIONS).items()}
