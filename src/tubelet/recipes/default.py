"""The bundled models: detectors of COCO, kept as they are, with masks and identities learned on pseudo-videos made from
annotated images. Sized for two CPU cores, for the training too.

`ssdlite`, the first generation, learns in two stages. First the pyramid, the match head and, to teach the pyramid what
an outline is, a coarse mask head; then the mask head that looks at pixels, on top of what the first stage left:

    tubelet train ssdlite-start init=ssdlite_mobilenetv2_coco.safetensors data.annotations=instances.json \
        data.split=split.json --out runs/start
    tubelet train ssdlite init=runs/start data.annotations=instances.json data.split=split.json --out runs/ssdlite

`default`, the second, has a better detector, whose own pyramid the heads of the first learn to read:

    python -m tubelet.recipes.join nanodet_plus_m15_coco.safetensors ssdlite runs/start.safetensors
    tubelet train default init=runs/start.safetensors data.annotations=instances.json --out runs/default
"""

from __future__ import annotations

from tubelet.data.geometry import Geometry, HorizontalFlip, PseudoMotion, RandomScaleCrop
from tubelet.data.pasting import PasteObjects
from tubelet.data.sampling import NearbyPair, Repeat
from tubelet.data.transforms import AnyTransform, ColourJitter
from tubelet.models.rcnn.detectors.nanodet import NanoDetConfig
from tubelet.models.rcnn.detectors.ssdlite import SSDLiteConfig
from tubelet.models.rcnn.heads.crops import CropMaskConfig
from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.model import MaskTrackConfig
from tubelet.models.rcnn.naming import NamingConfig
from tubelet.models.rcnn.recall import RecallConfig
from tubelet.recipes.experiment import COCO, Experiment, YouTubeVIS
from tubelet.recipes.validation import ValidationConfig
from tubelet.tracking.association import AssociationConfig
from tubelet.training.loop import TrainConfig
from tubelet.training.optim import AdamW, Cosine

# Association and recall were chosen on the 13 sequences of DAVIS 2016's training split whose masks merge several
# objects, by how well one or two tracks cover them; the calibration was fitted to the detector's answers on the
# training images (docs/papers/masktrack_rcnn.md tells what these fields do). Neither changes a weight.
START = MaskTrackConfig(
    detector=SSDLiteConfig(
        frozen=True,
        calibration=(2.13, 0.87),
        score_threshold=0.022,
        suppress="across_classes",
        max_detections=20,
        jittered=8,
        found=8,
    ),
    mask=MaskHeadConfig(convs=3, channels=128, class_agnostic=True, norm=True, margin=0.15),
    match=FullyConnectedMatchConfig(channels=256, cosine=0.1),
    association=AssociationConfig(
        iou_weight=6.0, label_weight=4.0, doubt=2.4, assignment="optimal", birth=0.28, leash=0.4, shadow=0.5, keep=30
    ),
    persistence=0.98,
    recall=RecallConfig(agreement=0.3, overlap=0.7, change=3.0),
    vote="score",
)
# The margins were chosen by the masks' overlap with the truth: in those sequences, where a detection fits the merged
# mask, and on the training images; the trust in masks by the average precision on these (docs/papers/default.md).
SSDLITE = START.but(
    mask=CropMaskConfig(size=128, margins=(0.15, 0.3), several=3, trust=2.0, typical=0.85),
    detector=START.detector.but(frozen_pyramid=True),
)
MODEL = SSDLITE.but(
    detector=NanoDetConfig(
        frozen=True,
        calibration=(2.675, 0.474),
        score_threshold=0.022,
        suppress="across_classes",
        max_detections=20,
        jittered=8,
        found=8,
    ),
    association=SSDLITE.association.but(weak_keep=30, shrunk=0.6),
    naming=NamingConfig(),
)


def pseudo_videos(size: int) -> tuple[AnyTransform, ...]:
    """Two views of an image, `size` pixels wide and high, with objects of other images passing through."""
    zoomed = RandomScaleCrop(height=size, width=size, zoom=(0.6, 1.6))
    return (
        Geometry(steps=(PseudoMotion(), zoomed, HorizontalFlip())),
        PasteObjects(count=(0, 2)),
        ColourJitter(),
    )


_FIRST_STAGE = Experiment(
    about="the first stage of the bundled model ssdlite: pyramid and match head behind SSDLite of COCO",
    model=START,
    data=COCO(),
    sampler=Repeat(frames=2),
    transforms=pseudo_videos(300),  # what the detector reads
    init_needs="the public SSDLite detector of COCO (ssdlite_mobilenetv2_coco.safetensors)",
    optim=AdamW(lr=6e-4, weight_decay=0.02, warmup=100, schedule=Cosine()),
    train=TrainConfig(iterations=1600, batch_size=4, precision="bf16", clip_norm=5.0, checkpoint_every=200, ema=0.998),
)

# the match head stays as the first stage left it
_PARTS = {"mask.encoder": 0.25, "match": 0.0}

_SSDLITE = Experiment(
    about="the bundled model ssdlite: SSDLite of COCO with masks and identities, for CPUs",
    model=SSDLITE,
    data=COCO(),
    sampler=Repeat(frames=2),
    transforms=pseudo_videos(448),  # crops are cut at the images' own resolution
    init_recipe="ssdlite-start",
    optim=AdamW(lr=8e-4, weight_decay=0.02, warmup=50, schedule=Cosine(), parts=_PARTS),
    train=TrainConfig(iterations=5600, batch_size=3, precision="bf16", clip_norm=5.0, checkpoint_every=50, ema=0.999),
)

DEFAULT = _SSDLITE.but(
    about="the bundled default model: NanoDet-Plus of COCO with masks and identities, for CPUs",
    model=MODEL,
    init_recipe=None,
    init_needs="NanoDet-Plus of COCO with the heads of ssdlite, joined by `python -m tubelet.recipes.join`",
    optim=_SSDLITE.optim.but(parts={"mask.encoder": 0.25}),
    train=_SSDLITE.train.but(iterations=4400),
)

# The detector's norms are folded into its convolutions, and its stem reads pixels of up to 255: at a rate of 6e-4 five
# steps of all of it ended what it knew. So its trunk stays, and the rest moves slowly.
FINETUNE = DEFAULT.but(
    about="the bundled default model, all but the trunk of its detector, on videos (or images) and classes of your own",
    model=MODEL.but(detector=MODEL.detector.but(frozen=False, frozen_trunk=True)),
    data=YouTubeVIS(any_form=True),
    sampler=NearbyPair(),
    init="default",
    optim=DEFAULT.optim.but(lr=3e-4, parts={}),
    train=DEFAULT.train.but(iterations=1000, ema=0.998, checkpoint_every=200),
    validation=ValidationConfig(start=True),
)

# Results that a person has mended teach names, and what is no object: outlines and boxes are mostly the model's own.
# Where all of it learned, those became worse, and more was forgotten (docs/mending.md).
TEACH = FINETUNE.but(
    about="what scores the classes in the bundled default model, on results that were mended, of classes that it knows",
    optim=FINETUNE.optim.but(
        lr=1e-4,
        parts={"mask": 0.0, "match": 0.0, "detector": 0.0, "detector.heads": 1.0, "detector.classes": 1.0},
    ),
)

RECIPES = {"ssdlite-start": _FIRST_STAGE, "ssdlite": _SSDLITE, "default": DEFAULT, "finetune": FINETUNE, "teach": TEACH}
