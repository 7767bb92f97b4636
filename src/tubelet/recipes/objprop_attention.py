"""ObjProp with an attention neck, weighted inter-frame affinity and ordered pairs: all rows of its Table 1.

tubelet train objprop_attention/table1/attention-neck data.annotations=train.json init=runs/masktrack/model.safetensors

Every row is ObjProp (`recipes/objprop.py`) but for what its name says; the paper's figures are single runs.
"""

from __future__ import annotations

from tubelet.models.rcnn.neck import STANeckConfig
from tubelet.recipes.experiment import Experiment
from tubelet.recipes.objprop import YTVIS2019 as OBJPROP

# section 3.2 and 5.2: between backbone and RPN, which alone reads it
_NECK = STANeckConfig(gamma_init=0.5, init="xavier", consumers="proposals").model_dump_json()
_ORDERED = 'sampler={"kind": "ordered_pair"}'


def _row(about: str, figures: tuple[float, float, float, float, float], *overrides: str) -> Experiment:
    """A row of the table; figures in its order."""
    paper = dict(zip(("AP50", "AP75", "AR1", "AR10", "AP"), figures, strict=True))
    return OBJPROP.override(*overrides).model_copy(update={"about": about, "paper": paper})


TABLE_1 = {
    "baseline": _row("ObjProp, trained again", (57.34, 39.07, 37.5, 45.19, 35.51)),
    "tuning-1": _row(
        "ResNet-101, four layers in box and match head, six convolutions in the mask head",
        (50.56, 34.58, 34.4, 39.2, 31.39),
        "model.detector.backbone.name=resnet101",
        "model.detector.box_layers=4",
        "model.match.layers=4",
        "model.mask.convs=6",
    ),
    "tuning-2": _row(
        "classification weighs 1.5, and a region needs an overlap of 0.6 to be its object's",
        (53.62, 36.66, 35.32, 41.91, 33.58),
        "model.detector.class_weight=1.5",
        "model.detector.positive_overlap=0.6",
    ),
    "ordered-pairs": _row("the reference is the frame before", (53.89, 37.54, 35.41, 41.89, 33.5), _ORDERED),
    "additional-training": _row(
        "six more epochs at the last learning rate",
        (57.22, 41.23, 37.48, 44.29, 36.03),
        f"train.iterations={OBJPROP.train.iterations * 18 // 12}",
    ),
    "attention-neck": _row("STA before the RPN", (52.23, 36.5, 36.24, 42.8, 32.91), f"model.neck={_NECK}"),
    "attention-neck-ordered": _row(
        "STA before the RPN, and the reference is the frame before",
        (56.43, 36.75, 37.21, 43.18, 34.37),
        f"model.neck={_NECK}",
        _ORDERED,
    ),
    "weighted-affinity": _row(
        "a learned matrix between the features of the two frames",
        (51.19, 33.12, 34.02, 39.98, 30.82),
        "model.propagation.affinity.weight=shared",
    ),
}

RECIPES = {f"objprop_attention/table1/{name}": row for name, row in TABLE_1.items()}
