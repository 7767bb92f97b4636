"""STA on MaskTrack R-CNN: spatio-temporal attention between backbone and heads, and the baseline that it is put on.

tubelet train sta/ytvis2019 data.annotations=train.json --out runs/sta

The paper's only pair of figures, of the test set, is 29.3 and 40.0; backbone, data and schedule of the second are not
stated, so the difference is not attention's alone (docs/papers/sta.md). There is no ablation table; the rows under
`sta/ablation` are the readings that it leaves open.
"""

from __future__ import annotations

from tubelet.data.sampling import OrderedPair
from tubelet.models.rcnn.neck import STANeckConfig
from tubelet.recipes.experiment import Experiment
from tubelet.recipes.masktrack import MODEL
from tubelet.recipes.masktrack import YTVIS2019 as MASKTRACK


def _row(about: str, neck: STANeckConfig, **changes: object) -> Experiment:
    """STA as published but for what is given; no figures of its own."""
    return MASKTRACK.but(about=about, model=MODEL.but(neck=neck), paper={}, **changes)


_STA = STANeckConfig()
_ALL_LEVELS = ("P2", "P3", "P4", "P5", "P6")

YTVIS2019 = _row("STA on MaskTrack R-CNN (test set)", _STA).but(
    paper={"AP": 40.0, "AP50": 57.8, "AP75": 44.9, "AR1": 39.6, "AR10": 45.2}
)

RECIPES = {
    "sta/baseline": MASKTRACK.but(
        about="MaskTrack R-CNN as STA's paper quotes it (test set)",
        paper={"AP": 29.3},
    ),
    "sta/ytvis2019": YTVIS2019,
    "sta/ablation/value-from-previous": _row("values of the previous frame", _STA.but(value_from="previous")),
    "sta/ablation/scaled": _row("logits divided by the root of the channels", _STA.but(scale="sqrt")),
    "sta/ablation/gamma-half": _row("gamma starts at 0.5", _STA.but(gamma_init=0.5)),
    "sta/ablation/proposals-only": _row("only the RPN reads the refined maps", _STA.but(consumers="proposals")),
    "sta/ablation/all-levels": _row("P2 too", _STA.but(levels=_ALL_LEVELS)),
    "sta/ablation/narrow": _row("64 channels in the match", _STA.but(channels=64)),
    "sta/ablation/first-frame-plain": _row("the first frame is left alone", _STA.but(first_frame="identity")),
    "sta/ablation/reference-self": _row("references look at themselves", _STA.but(reference="self")),
    "sta/ablation/ordered-pairs": _row("the reference is the frame before", _STA, sampler=OrderedPair()),
}
