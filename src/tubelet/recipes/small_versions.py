"""Any row of a paper's table at the size of `small.py`: what a table in minutes on a CPU is made of.

What a row changes stays; numbers of channels, proposals and queries shrink. All rows but those of tags have the small
trunk, whatever backbone their paper names, and start from it: rows that differ in the backbone alone are the same.
"""

from __future__ import annotations

from tubelet import recipes
from tubelet.models.mask2former.decoder import QueryDecoderConfig
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.models.mask2former.model import Mask2FormerConfig
from tubelet.models.rcnn.detectors.two_stage import TwoStageConfig
from tubelet.models.rcnn.heads.correlation import CorrelationMatchConfig
from tubelet.models.rcnn.heads.standard import MaskHeadConfig
from tubelet.models.rcnn.model import MaskTrackConfig
from tubelet.models.tags.model import TagConfig
from tubelet.models.videomt.model import VidEoMTConfig
from tubelet.recipes import tags
from tubelet.recipes.experiment import Experiment
from tubelet.recipes.small import SYSTEMS

_LEVELS = ("P2", "P3", "P4", "P5")  # P6 of so small a frame is a few cells


def small_version(name: str, iterations: int) -> Experiment:
    """The small version of a recipe, trained for so many iterations.

    Raises ConfigError if there is no such recipe.

    Example:
        >>> from tubelet.recipes.small_versions import small_version
        >>> row = small_version("objprop_attention/table1/tuning-1", iterations=10)
        >>> row.model.detector.box_layers, row.model.detector.channels
        (4, 32)
    """
    row = recipes.find(name)
    if isinstance(row.model, MaskTrackConfig):
        small = SYSTEMS["masktrack"].but(model=_rcnn(row.model), sampler=row.sampler)
    elif isinstance(row.model, Mask2FormerConfig):
        small = SYSTEMS["mask2former"].but(model=_queries(row.model), sampler=row.sampler)
    elif isinstance(row.model, VidEoMTConfig):
        small = SYSTEMS["videomt"]
    else:
        small = tags.PAPER_GENERATED.but(data=SYSTEMS["tags"].data, model=_tags(name))

    return small.but(
        about=f"{row.about}, small",
        train=small.train.but(iterations=iterations),
        paper=row.paper,
        evaluations=row.evaluations,
    )


def _rcnn(model: MaskTrackConfig) -> MaskTrackConfig:
    small = SYSTEMS["masktrack"].model
    assert isinstance(small, MaskTrackConfig)
    assert isinstance(small.detector, TwoStageConfig)
    assert isinstance(small.mask, MaskHeadConfig)
    assert isinstance(model.mask, MaskHeadConfig)

    detector = model.detector.but(
        input=small.detector.input,
        backbone=small.detector.backbone,
        channels=small.detector.channels,
        box_channels=small.detector.box_channels,
        proposals_per_level=small.detector.proposals_per_level,
        proposals=small.detector.proposals,
        anchors_sampled=small.detector.anchors_sampled,
        regions_sampled=small.detector.regions_sampled,
    )
    mask = model.mask.but(
        channels=small.mask.channels,
        convs=model.mask.convs // 2,
        logits_std=small.mask.logits_std,
    )
    correlation = SYSTEMS["compfeat"].model
    assert isinstance(correlation, MaskTrackConfig)
    has_correlation = isinstance(model.match, CorrelationMatchConfig)
    match = correlation.match if has_correlation else model.match.but(channels=64)
    neck = None if model.neck is None else model.neck.but(levels=_LEVELS)
    propagation = None if model.propagation is None else model.propagation.but(channels=32, convs=2)
    return model.but(detector=detector, mask=mask, match=match, neck=neck, propagation=propagation)


def _queries(model: Mask2FormerConfig) -> Mask2FormerConfig:
    recurrent = isinstance(model.decoder, InterFrameConfig)
    small = SYSTEMS["ifr" if recurrent else "mask2former"].model
    assert isinstance(small, Mask2FormerConfig)

    decoder: QueryDecoderConfig = small.decoder
    if isinstance(model.decoder, InterFrameConfig):
        decoder = decoder.but(cross_frame=model.decoder.cross_frame)
    return small.but(decoder=decoder, queries=model.queries // 10)


def _tags(name: str) -> TagConfig:
    """A small network of the paper's shape, without what a row of Table III takes away."""
    change = tags.ROWS.get(name.rpartition("/")[2])
    return tags.SMALL if change is None else change(tags.SMALL)
