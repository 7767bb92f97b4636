"""Where the family's attention modules look, for one point of one frame: what `tubelet attend` draws.

Nothing is computed for this in training or prediction; it asks the same modules with the same inputs once more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tubelet.attention.correlation import CorrelationMatch
from tubelet.attention.dual import Dual
from tubelet.attention.sta import STA
from tubelet.core.protocol import Glance
from tubelet.models.inputs import Images
from tubelet.models.rcnn.detector import Features
from tubelet.models.rcnn.memory import Memory
from tubelet.models.rcnn.neck import Context, Kept
from tubelet.models.rcnn.propagation import STRIDE, Propagation

if TYPE_CHECKING:
    from tubelet.models.rcnn.model import MaskTrackRCNN

Point = tuple[float, float]  # x, y in input pixels


def glances(
    model: MaskTrackRCNN,
    state: Memory,
    images: Images,
    raw: Features,
    refined: Features,
    frame: Kept,
    past: list[Kept],
    at: Point,
) -> list[Glance]:
    """Of every attention module, in the order in which they come; `past` is what neck and regions look at."""
    out = _neck(model, raw, frame, past, at)
    box = _box(model, refined, images, at)
    if box is not None and model.config.regions is not None:
        out += _regions(model, refined, past, box)
    if box is not None and isinstance(model.match, CorrelationMatch):
        out += _correlation(model, model.match, state, refined, frame, box)
    if model.propagation is not None:
        out += _propagation(model.propagation, state, refined, frame, at)
    return out


def _neck(model: MaskTrackRCNN, raw: Features, frame: Kept, past: list[Kept], at: Point) -> list[Glance]:
    neck = model.neck
    if neck is None or not neck.config.at_test:
        return []
    name = "STA" if isinstance(neck.attention, STA) else "temporal attention of frames"
    out, context = [], Context.of_kept(past)
    for level, stride in neck.levels.items():
        maps = raw.maps[level]
        others, valid = context.at(level, stride)
        weights = neck.attention.look(maps, others, _cell(at, maps, stride), valid)
        if weights is not None:
            out += _over(f"{name}, stride {stride}", weights[0], past, stride)
        if isinstance(neck.attention, Dual) and neck.attention.spatial is not None:
            out += _over(f"spatial attention, stride {stride}", _spatial(neck.attention, maps), [frame], stride)
    return out


def _spatial(attention: Dual, maps: Tensor) -> Tensor:
    """The one weighting of cells that all positions share, [1, h, w]."""
    assert attention.spatial is not None
    logits = attention.spatial.weigh(maps.float())
    return logits.flatten(1).softmax(1).view(logits.shape[1:])


def _box(model: MaskTrackRCNN, features: Features, images: Images, at: Point) -> Tensor | None:
    """The best detection [1, 4] around the point."""
    (found,) = model.detector.detect(features, images)
    x, y = at
    boxes = found.boxes
    around = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
    rows = around.nonzero()[:, 0]
    return boxes[rows[:1]] if len(rows) else None


def _regions(model: MaskTrackRCNN, features: Features, past: list[Kept], box: Tensor) -> list[Glance]:
    attention = model.detector.attention
    if not isinstance(attention, Dual) or model.config.regions is None or not model.config.regions.at_test:
        return []
    cells = model.detector.regions(features.maps, [box], 7)  # [1, C, 7, 7]
    level, stride = model.object_level
    others, valid = Context.of_kept(past).at(level, stride)
    every = torch.arange(cells.shape[-1] * cells.shape[-2], device=cells.device)
    weights = attention.look(cells, others, every, valid)
    return [] if weights is None else _over("temporal attention of the object", weights.mean(0), past, stride)


def _correlation(
    model: MaskTrackRCNN, match: CorrelationMatch, state: Memory, features: Features, frame: Kept, box: Tensor
) -> list[Glance]:
    """The correlation map of the known object that the detection fits best."""
    if match.conv2 is None or len(state.ids) == 0:
        return []
    described = match.describe(model.detector.cells(features, [box], match.config.resolution))
    best = model.match_logits(features, box, described, state.descriptors)[0, 1:].argmax()
    view, _ = model.match_view(features, box)
    refined = match.refine(state.descriptors[best][None], view)
    level = model.match_level[1]
    return _over(f"correlation map of object {int(state.ids[best])}", match.conv2(refined)[0].sigmoid(), [frame], level)


def _propagation(propagation: Propagation, state: Memory, features: Features, frame: Kept, at: Point) -> list[Glance]:
    """The affinity's column: which places of the last frame the present place looks like."""
    current = propagation.fuse(features.maps)[0]
    history = state.history.fitting((*current.shape[-2:], *frame.size))
    if not history.sights:
        return []
    place = current.flatten(1).T[_cell(at, current[None], STRIDE)]
    weights = propagation.affinity.look(history.sights[-1].features, place).view(1, *current.shape[-2:])
    return _over("inter-frame affinity", weights, [replace(frame, index=state.time)], STRIDE)


def _cell(at: Point, maps: Tensor, stride: int) -> Tensor:
    """The number, row by row, of the cell of a map that holds the point, [1]."""
    height, width = maps.shape[-2:]
    x, y = min(int(at[0] / stride), width - 1), min(int(at[1] / stride), height - 1)
    return torch.tensor([y * width + x], device=maps.device)


def _over(name: str, weights: Tensor, frames: list[Kept], stride: int) -> list[Glance]:
    """Weights [S, h, w] over padded maps, cut to what shows image."""
    out = []
    for values, frame in zip(weights, frames, strict=True):
        height, width = (-(-side // stride) for side in frame.size)
        out.append(Glance(name=name, frame=frame.index, values=values[:height, :width].float()))
    return out
