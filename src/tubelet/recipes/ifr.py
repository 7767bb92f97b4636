"""Inter-frame recurrent attention (IFR): every row of Tables 1 to 4 and of Figure 4.

tubelet train ifr/table1/swin-t data.annotations=train.json --out runs/swin-t
tubelet train ifr/figure4/0.3 data.annotations=train_less_400.json init=coco_r50.safetensors train.seed=3 --out runs/3

Figures are means of five runs: `train.seed` from 0 to 4. Table 4 and test-time augmentation are evaluations of trained
rows. Figure 4 and Table 3 are measured on 400 videos held out of the training set of 2019 (`tubelet data split`); how
many are held out of 2021 is not stated. Table 3 is about identities (metric `mot`): one track for each query, with its
best class. Starts and batch sizes are as in `mask2former.py`, but less than half of a model of COCO fits
(`init_partial`); Swin-L's 100 queries start at random, because COCO's model has 200.
"""

from __future__ import annotations

from collections.abc import Mapping

from tubelet.core.protocol import Window
from tubelet.models.mask2former.decoder import JointConfig
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.recipes.experiment import Evaluation, Experiment
from tubelet.recipes.mask2former import TOP, backbone_and_queries, published, row

SWEEP = (0.0, 0.1, 0.3, 0.5, 1.0)  # of lambda_e; the paper's values are only in its picture, where 0.3 is best


def _augmented(*figures: float) -> dict[str, Evaluation]:
    return {"test-time augmentation": Evaluation(views=4, top=TOP, paper=published(*figures))}


def _per_clip(**figures: float) -> dict[str, Evaluation]:
    """Table 4: windows of T frames, one frame on each time, linked by their masks."""
    return {
        f"table4/{name}": Evaluation(window=Window(length=int(name[1:])), top=TOP, paper={"AP": ap})
        for name, ap in figures.items()
    }


def _rows(
    table: str,
    year: int,
    papers: Mapping[str, Mapping[str, float]],
    evaluations: Mapping[str, Evaluation],
) -> dict[str, Experiment]:
    rows = {}
    for label, paper in papers.items():
        backbone, queries = backbone_and_queries(label)
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


def _identities(year: int, papers: Mapping[str, tuple[float, float, float, float, int]]) -> dict[str, Experiment]:
    """Table 3: IDF1, MOTA, IDP, IDR and the number of switches, on videos held out of the training set."""
    rows = {}
    for label, figures in papers.items():
        system, _, network = label.partition("-")
        backbone, queries = backbone_and_queries(network)
        decoder = InterFrameConfig() if system == "ifr" else JointConfig()
        name = "IFR" if system == "ifr" else "Mask2Former-VIS"
        trained = row(name, backbone, year, {}, decoder=decoder, queries=queries)
        paper = dict(zip(("IDF1", "MOTA", "IDP", "IDR", "IDs"), figures, strict=True))
        rows[f"ifr/table3/{year}-{label}"] = trained.but(
            about=f"{trained.about} less the held-out videos, whose identities are measured",
            paper=paper,
            evaluations={},
            init_partial=system == "ifr",
        )
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
            "r50": published(46.5, 68.4, 50.1, 46.3, 55.9),
            "r101": published(49.3, 75.2, 59.7, 48.5, 58.2),  # AP50 and AP75 are printed as those of Swin-T
            "swin-t": published(52.8, 75.2, 59.7, 50.3, 61.7),
            "swin-s": published(56.2, 79.9, 62.3, 52.5, 63.8),
            "swin-b": published(61.3, 84.6, 68.4, 54.3, 66.7),
            "swin-l": published(62.1, 84.9, 69.2, 55.1, 67.1),
            "swin-l-200": published(61.2, 84.6, 69.3, 54.8, 67.3),
        },
        _augmented(62.6, 84.8, 69.3, 55.5, 68.0) | _per_clip(T2=61.6, T5=61.8),
    ),
    **_rows(
        "table2",
        2021,
        {
            "r50": published(41.8, 63.0, 44.9, 39.2, 48.8),
            "r101": published(42.9, 64.7, 46.2, 40.0, 50.5),
            "swin-t": published(47.4, 69.2, 52.5, 41.7, 54.3),
            "swin-s": published(49.4, 71.2, 54.0, 43.5, 55.9),
            "swin-b": published(53.9, 76.4, 60.2, 45.1, 58.8),
            "swin-l": published(54.7, 76.8, 61.2, 44.4, 58.6),
            "swin-l-200": published(54.0, 75.8, 60.1, 45.2, 58.8),
        },
        _augmented(55.6, 77.3, 61.8, 45.7, 59.6) | _per_clip(T2=56.6, T5=56.3),
    ),
    **_identities(
        2019,
        {
            "mask2former-r50": (62.4, 14.6, 54.7, 74.3, 202),
            "mask2former-swin-l-200": (66.7, 23.0, 57.1, 80.3, 218),
            "ifr-r50": (72.2, 47.6, 74.7, 70.0, 50),
            "ifr-swin-l": (77.8, 57.5, 78.2, 77.4, 48),
            "ifr-swin-l-200": (78.3, 58.7, 79.2, 77.4, 26),
        },
    ),
    **_identities(
        2021,
        {
            "mask2former-r50": (55.1, -1.6, 47.3, 66.2, 790),
            "mask2former-swin-l-200": (61.7, 14.5, 53.0, 73.9, 729),
            "ifr-r50": (64.1, 36.4, 70.1, 59.1, 141),
            "ifr-swin-l": (70.8, 47.5, 74.5, 67.4, 123),
            "ifr-swin-l-200": (71.1, 48.7, 76.4, 66.4, 94),
        },
    ),
    **_sweep(),
}
