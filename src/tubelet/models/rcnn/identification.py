"""Who the detections of a frame are: matched with the objects in memory, stored as them, and named by their votes.

Letters: N detections, M objects in memory.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from tubelet.models.rcnn.detectors.detector import Detections
from tubelet.models.rcnn.heads.sockets import MatchPlug, View
from tubelet.models.rcnn.memory import Memory, forget, match_scores, newest, remember
from tubelet.models.rcnn.naming import NamingConfig, named, votes_of
from tubelet.models.rcnn.recall import NO_SEARCH, RecallConfig, Search, recent
from tubelet.tracking.association import (
    AssociationConfig,
    associate,
    drop_shadows,
    take_wholes,
)


class IdentifyingConfig(Protocol):
    """What of the model's settings says who a detection is; `MaskTrackConfig` tells each."""

    @property
    def association(self) -> AssociationConfig: ...

    @property
    def persistence(self) -> float: ...

    @property
    def recall(self) -> RecallConfig | None: ...

    @property
    def naming(self) -> NamingConfig | None: ...


def identify(
    config: IdentifyingConfig, match: MatchPlug, memory: Memory, view: View, detections: Detections, time: int
) -> tuple[Memory, Tensor, Detections, Search]:
    """Give ids to detections and store them; returns memory, ids [N], the N detections, and where others may be.

    Detections that the association drops are left out. What detections and objects look like is
    compared all at once on the device, before it is known which objects are detected: the
    decisions, on the CPU, wait for it once.
    """
    association = config.association
    memory = forget(memory, time, association.keep, association.cut_keep, association.weak_keep)
    memory = replace(memory, time=time)
    searched = torch.zeros(0, dtype=torch.int64)
    if config.recall is not None:
        searched = recent(memory, config.recall).nonzero()[:, 0]

    boxes = torch.cat([detections.boxes, memory.boxes[searched]])
    if len(boxes) == 0:
        return memory, memory.ids[:0], detections, NO_SEARCH

    count = len(detections)
    descriptors = match.describe(view.cells(boxes, match.resolution))
    logits = _compare(match, memory, view, boxes, descriptors, count)
    known = len(memory.ids)
    table = logits[:count, : known + 1]
    if known:
        table = match_scores(memory, detections, table, association)
    decided = associate(table, detections.confidence, association)
    if memory.areas is not None:
        decided = take_wholes(decided, detections.boxes, detections.labels, memory.areas, association)
    decided = drop_shadows(decided, detections.boxes, detections.labels, association.shadow)

    # an object that is detected looks like its detection from now on
    columns = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + newest(decided, known)])
    search = Search(searched, logits[count:, columns] if len(searched) else logits[count:], detections)
    return *remember_as(config, memory, descriptors[:count], detections, decided, time), search


def remember_as(
    config: IdentifyingConfig, memory: Memory, descriptors: Tensor, detections: Detections, decided: Tensor, time: int
) -> tuple[Memory, Tensor, Detections]:
    """Store detections as `decided` [N] says; returns memory, ids [N] and the N that are stored."""
    votes = None
    if config.naming is not None and memory.size is not None:
        votes = votes_of(detections, memory.size, config.naming.size)
    association = config.association
    return remember(
        memory,
        descriptors,
        detections,
        decided,
        time,
        config.persistence,
        votes,
        weak=detections.confidence < association.birth,
        areas=association.shrunk > 0,
    )


def named_by_votes(config: IdentifyingConfig, memory: Memory, ids: Tensor, detections: Detections) -> Detections:
    """Let the votes of all frames name the objects with these ids [N]."""
    if config.naming is None or memory.votes is None:
        return detections
    return named(detections, memory.votes[memory.rows(ids)], config.naming.floor)


def _compare(match: MatchPlug, memory: Memory, view: View, boxes: Tensor, descriptors: Tensor, count: int) -> Tensor:
    """Match logits of boxes on the CPU: column 0 is a new object, then come the M known objects.

    Where there are more boxes than the `count` of the detections, these follow as columns.
    """
    if len(memory.ids) == 0:
        return boxes.new_zeros(len(boxes), 1)
    known = memory.descriptors
    if len(boxes) > count:
        known = torch.cat([known, descriptors[:count]])
    return match.compare(view.features, boxes, descriptors, known).cpu()
