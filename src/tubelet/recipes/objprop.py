"""ObjProp (Chakravarthy et al., 2021): MaskTrack R-CNN with a head that carries objects into frames that miss them.

tubelet train objprop/ytvis2019 data.annotations=train.json init=runs/masktrack/model.safetensors --out runs/objprop

It starts from a MaskTrack R-CNN that has been trained for its 12 epochs, and learns for 12 more.
"""

from __future__ import annotations

from tubelet.recipes.masktrack import YTVIS2019 as MASKTRACK

YTVIS2019 = MASKTRACK.override(
    "model.propagation={}",
    "model.detector.proposals_per_level=1000",
    "model.detector.proposals=1000",
    "model.detector.score_threshold=0.001",
    "model.detector.max_detections=100",
    "model.match.normalise_at_test=true",
    "model.min_frames=2",
).model_copy(
    update={
        "about": "ObjProp, ResNet-50, on YouTube-VIS 2019; start it from a trained MaskTrack",
        "paper": {"AP": 36.0},
    }
)

RECIPES = {
    "objprop/ytvis2019": YTVIS2019,
    "objprop/ytvis2019-released": YTVIS2019.override(
        "model.propagation.at_test=false",
        "model.propagation.renorm=false",
        "model.propagation.norm_bias=1",
        "model.match_average=all",
    ).model_copy(update={"about": "ObjProp as its released code runs: nothing is propagated at test", "paper": {}}),
}
