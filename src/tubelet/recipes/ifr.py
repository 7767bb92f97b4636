"""Inter-frame recurrent attention (IFR): every row of Tables 1, 2 and 4 and of Figure 4.

tubelet train ifr/table1/swin-t data.annotations=train.json --out runs/swin-t
tubelet train ifr/figure4/0.3 data.annotations=train_less_400.json init=coco_r50.safetensors train.seed=3 --out runs/3

Figures are means of five runs: `train.seed` from 0 to 4. Table 4 and test-time augmentation are evaluations of trained
rows. Figure 4 is measured on 400 videos held out of the training set of 2019 (`tubelet data split`). Starts and batch
sizes are as in `mask2former.py`, but less than half of a model of COCO fits (`init_partial`); Swin-L's 100 queries
start at random, because COCO's model has 200.
"""

from __future__ import annotations

from collections.abc import Mapping

from tubelet.core.protocol import Window
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.recipes.experiment import Evaluation, Experiment
from tubelet.recipes.mask2former import TOP, row

SWEEP = (0.0, 0.1, 0.3, 0.5, 1.0)  # of lambda_e; the paper's values are only in its picture, where 0.3 is best


def _augmented(ap: float) -> dict[str, Evaluation]:
    return {"test-time augmentation": Evaluation(views=4, top=TOP, paper={"AP": ap})}


def _per_clip(**published: float) -> dict[str, Evaluation]:
    """Table 4: windows of T frames, one frame on each time, linked by their masks."""
    return {
        f"table4/{name}": Evaluation(window=Window(length=int(name[1:])), top=TOP, paper={"AP": ap})
        for name, ap in published.items()
    }


def _rows(
    table: str,
    year: int,
    published: Mapping[str, Mapping[str, float]],
    evaluations: Mapping[str, Evaluation],
) -> dict[str, Experiment]:
    rows = {}
    for label, paper in published.items():
        backbone, queries = (label.removesuffix("-200"), 200) if label.endswith("-200") else (label, 100)
        rows[f"ifr/{table}/{label}"] = row(
            "IFR",
            backbone,
            year,
            paper,
            decoder=InterFrameConfig(),
            queries=queries,
            evaluations=evaluations if label == "swin-l" else None,
        ).but(init_partial=True)
    return rows


def _sweep() -> dict[str, Experiment]:
    rows = {}
    for weight in SWEEP:
        base = row("IFR", "r50", 2019, {}, decoder=InterFrameConfig(cross_frame=weight))
        about = f"{base.about}, lambda_e = {weight:g}"
        rows[f"ifr/figure4/{weight:g}"] = base.but(about=about, init_partial=True)
    return rows


RECIPES = {
    **_rows(
        "table1",
        2019,
        {
            "r50": {"AP": 46.5},
            "r101": {"AP": 49.3},
            "swin-t": {"AP": 52.8},
            "swin-s": {"AP": 56.2},
            "swin-b": {"AP": 61.3},
            "swin-l": {"AP": 62.1, "AP50": 84.9, "AP75": 69.2, "AR1": 55.1, "AR10": 67.1},
            "swin-l-200": {"AP": 61.2},
        },
        _augmented(62.6) | _per_clip(T2=61.6, T5=61.8),
    ),
    **_rows(
        "table2",
        2021,
        {
            "r50": {"AP": 41.8},
            "r101": {"AP": 42.9},
            "swin-t": {"AP": 47.4},
            "swin-s": {"AP": 49.4},
            "swin-b": {"AP": 53.9},
            "swin-l": {"AP": 54.7},
            "swin-l-200": {"AP": 54.0},
        },
        _augmented(55.6) | _per_clip(T2=56.6, T5=56.3),
    ),
    **_sweep(),
}
