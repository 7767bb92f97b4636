"""ObjProp (Chakravarthy et al., 2021): MaskTrack R-CNN with a head that carries objects into frames that miss them.

tubelet train objprop/ytvis2019 data.annotations=train.json init=runs/masktrack/model.safetensors --out runs/objprop

It starts from a MaskTrack R-CNN that has been trained for its 12 epochs, and learns for 12 more.
"""

from __future__ import annotations

from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig
from tubelet.models.rcnn.propagation import PropagationConfig
from tubelet.recipes import masktrack

DETECTOR = masktrack.DETECTOR.but(
    proposals_per_level=1000,
    proposals=1000,
    score_threshold=0.001,
    max_detections=100,
)
MATCH = FullyConnectedMatchConfig(normalise_at_test=True)
PROPAGATION = PropagationConfig()
MODEL = masktrack.MODEL.but(detector=DETECTOR, match=MATCH, propagation=PROPAGATION, min_frames=2)

YTVIS2019 = masktrack.YTVIS2019.but(
    about="ObjProp, ResNet-50, on YouTube-VIS 2019; start it from a trained MaskTrack",
    model=MODEL,
    init=None,
    init_recipe="masktrack/ytvis2019",
    paper={"AP": 36.0},
)

_RELEASED = MODEL.but(
    propagation=PROPAGATION.but(at_test=False, renorm=False, norm_bias=1),
    match_average="all",
)

RECIPES = {
    "objprop/ytvis2019": YTVIS2019,
    "objprop/ytvis2019-released": YTVIS2019.but(
        about="ObjProp as its released code runs: nothing is propagated at test",
        model=_RELEASED,
        paper={},
    ),
}
