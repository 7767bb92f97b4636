"""ObjProp with an attention neck, weighted inter-frame affinity and ordered pairs: all rows of its Table 1, and ours.

tubelet train objprop_attention/table1/attention-neck data.annotations=train.json init=runs/masktrack/model.safetensors

Every row is ObjProp (`recipes/objprop.py`) but for what its name says; the paper's figures are single runs.
"""

from __future__ import annotations

from tubelet.attention.affinity import AffinityConfig
from tubelet.data.sampling import OrderedPair
from tubelet.models.rcnn.heads.standard import MaskHeadConfig
from tubelet.models.rcnn.neck import STANeckConfig
from tubelet.recipes.experiment import Experiment
from tubelet.recipes.masktrack import RESNET101
from tubelet.recipes.objprop import DETECTOR, MATCH, MODEL, PROPAGATION
from tubelet.recipes.objprop import YTVIS2019 as OBJPROP

# section 3.2 and 5.2: between backbone and RPN, which alone reads it
_NECK = STANeckConfig(gamma_init=0.5, init="xavier", consumers="proposals")

_TUNED = MODEL.but(
    detector=DETECTOR.but(backbone=RESNET101, box_layers=4),
    match=MATCH.but(layers=4),
    mask=MaskHeadConfig(convs=6),
)
_STRICTER = MODEL.but(detector=DETECTOR.but(class_weight=1.5, positive_overlap=0.6))
_WITH_NECK = MODEL.but(neck=_NECK)
# as published, a matrix for each place in the batch, left out at test; ours is one matrix, kept at test
_AFFINITY_AS_PUBLISHED = MODEL.but(propagation=PROPAGATION.but(affinity=AffinityConfig(weight="per_slot")))
_SHARED_AFFINITY = MODEL.but(propagation=PROPAGATION.but(affinity=AffinityConfig(weight="shared")))

_LONGER = OBJPROP.train.but(iterations=OBJPROP.train.iterations * 18 // 12)


def _row(
    about: str,
    figures: tuple[float, float, float, float, float] | None,
    **changes: object,
) -> Experiment:
    """A row of the table, with the paper's AP50, AP75, AR1, AR10 and AP; None for a row of ours."""
    paper = {} if figures is None else dict(zip(("AP50", "AP75", "AR1", "AR10", "AP"), figures, strict=True))
    return OBJPROP.but(about=about, paper=paper, **changes)


TABLE_1 = {
    "baseline": _row("ObjProp, trained again", (57.34, 39.07, 37.5, 45.19, 35.51)),
    "tuning-1": _row(
        "ResNet-101, four layers in box and match head, six convolutions in the mask head",
        (50.56, 34.58, 34.4, 39.2, 31.39),
        model=_TUNED,
        init_recipe="masktrack/ytvis2019-r101",
    ),
    "tuning-2": _row(
        "classification weighs 1.5, and a region needs an overlap of 0.6 to be its object's",
        (53.62, 36.66, 35.32, 41.91, 33.58),
        model=_STRICTER,
    ),
    "ordered-pairs": _row(
        "the reference is the frame before",
        (53.89, 37.54, 35.41, 41.89, 33.5),
        sampler=OrderedPair(),
    ),
    "additional-training": _row(
        "six more epochs at the last learning rate",
        (57.22, 41.23, 37.48, 44.29, 36.03),
        train=_LONGER,
    ),
    "attention-neck": _row(
        "STA before the RPN",
        (52.23, 36.5, 36.24, 42.8, 32.91),
        model=_WITH_NECK,
    ),
    "attention-neck-ordered": _row(
        "STA before the RPN, and the reference is the frame before",
        (56.43, 36.75, 37.21, 43.18, 34.37),
        model=_WITH_NECK,
        sampler=OrderedPair(),
    ),
    "weighted-affinity": _row(
        "a learned matrix between the features of the two frames: one for each place in the batch, none at test",
        (51.19, 33.12, 34.02, 39.98, 30.82),
        model=_AFFINITY_AS_PUBLISHED,
    ),
    "weighted-affinity-shared": _row(
        "our reading: one learned matrix for all, kept at test",
        None,
        model=_SHARED_AFFINITY,
    ),
}

RECIPES = {f"objprop_attention/table1/{name}": row for name, row in TABLE_1.items()}
