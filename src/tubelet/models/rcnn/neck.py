"""The neck: refine a frame's pyramid by other frames, before proposals or heads read it.

The socket (`NeckConfig`, `NeckPlug`) and its two plugs. STA, also the attention neck of ObjProp,
attends to the previous frame; CompFeat's dual attention attends to support frames. Both attention
modules have one signature, refine(current [B, C, H, W], context [B, S, C, H, W]), so most of a neck
is shared.
Source: docs/papers/sta.md, docs/papers/compfeat.md. Letters: B images, S support frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from tubelet.attention.dual import Dual, DualConfig
from tubelet.attention.sta import STA, STAConfig
from tubelet.core.errors import ConfigError
from tubelet.core.plugs import PlugConfig
from tubelet.core.protocol import Glance
from tubelet.models.rcnn.context import Context, FrameFeatures, Size, inside, positions
from tubelet.models.rcnn.detectors.detector import Detector, Features
from tubelet.models.rcnn.glances import Point, cell_at, glances_over
from tubelet.models.rcnn.targets import Partners

LevelNames = tuple[Literal["P2", "P3", "P4", "P5", "P6"], ...]
PYRAMID: LevelNames = ("P3", "P4", "P5", "P6")  # by default, all but the finest


class NeckConfig(PlugConfig):
    """Base of configs for the socket `neck`."""

    reads_supports: ClassVar[bool] = False  # attends to the window's support frames; off: to the last frame

    @abstractmethod
    def attach(self, detector: Detector) -> NeckPlug:
        """Build the neck for this detector.

        Raises:
            ConfigError: The detector's pyramid does not fit.
        """


class NeckPlug(nn.Module, ABC):
    """Base of modules that refine the features of frames by the raw maps of other frames."""

    has_glances: bool = False  # whether `glances` returns anything

    @abstractmethod
    def refine_batch(self, raw: Features, sizes: list[Size], partners: Partners) -> Features:
        """Refine a training batch; `partners` says which frames each frame attends to."""

    @abstractmethod
    def refine_frame(self, raw: Features, frame: FrameFeatures, past: list[FrameFeatures]) -> Features:
        """Refine one frame of a stream by `past` frames, which are none for the first frame."""

    def glances(self, raw: Features, frame: FrameFeatures, past: list[FrameFeatures], at: Point) -> list[Glance]:
        """Return the attention weights of a point of the frame; none by default."""
        return []


class AttentionNeck(NeckPlug):
    """Apply one attention module, with shared weights, to the levels that its config names."""

    name: str  # of the attention in the paper's words
    attention: STA | Dual

    def __init__(self, config: STANeckConfig | DualNeckConfig, detector: Detector) -> None:
        super().__init__()
        if config.consumers == "proposals" and not detector.proposes_from_maps:
            raise ConfigError('consumers="proposals" needs a detector whose proposals come from the pyramid')
        self.levels = positions(config.levels, detector.all_strides)
        self.only_proposals = config.consumers == "proposals"
        self.at_test = config.at_test
        self.has_glances = config.at_test

    @abstractmethod
    def pairs(self, partners: Partners) -> dict[int, list[int]]:
        """Map each frame of a training batch that is refined to the frames that it attends to."""

    @abstractmethod
    def attend(self, maps: Tensor, others: Tensor, valid: Tensor | None, current: Tensor | None) -> Tensor:
        """Refine maps [B, C, H, W] by others [B, S, C, h, w].

        `valid` [B, S, h, w] and `current` [B, H, W] are True for image and False for padding, None
        without padding.
        """

    def forward(self, features: Features, context: Context, sizes: list[Size]) -> Features:
        """Refine the maps of B images; only those that `consumers` names are replaced."""
        maps = list(features.maps)
        for level, stride in self.levels.items():
            others, valid = context.at(level, stride)
            shape = (maps[level].shape[-2], maps[level].shape[-1])
            current = inside([sizes], shape, stride, others.device)
            maps[level] = self.attend(maps[level], others, valid, None if current is None else current[0])

        if self.only_proposals:
            return replace(features, taps=maps)
        return replace(features, maps=maps, taps=maps if features.taps is features.maps else features.taps)

    def refine_batch(self, raw: Features, sizes: list[Size], partners: Partners) -> Features:
        features = raw
        pairs = self.pairs(partners)
        for rows in _of_equal_length(pairs):
            context = Context.of_batch(raw.maps, sizes, [pairs[i] for i in rows])
            features = features.with_rows(rows, self(raw.at(*rows), context, [sizes[i] for i in rows]))
        return features

    def refine_frame(self, raw: Features, frame: FrameFeatures, past: list[FrameFeatures]) -> Features:
        if not self.at_test:
            return raw
        refined: Features = self(raw, Context.of_frames(past or [frame]), [frame.size])
        return refined

    def glances(self, raw: Features, frame: FrameFeatures, past: list[FrameFeatures], at: Point) -> list[Glance]:
        if not self.at_test:
            return []
        glances = []
        context = Context.of_frames(past or [frame])
        for level, stride in self.levels.items():
            maps = raw.maps[level]
            others, valid = context.at(level, stride)
            weights = self.attention.look(maps, others, cell_at(at, maps, stride), valid)
            if weights is not None:
                glances += glances_over(f"{self.name}, stride {stride}", weights[0], past or [frame], stride)
            glances += self.further_glances(maps, frame, stride)
        return glances

    def further_glances(self, maps: Tensor, frame: FrameFeatures, stride: int) -> list[Glance]:
        """Return attention weights within the frame itself; none by default."""
        return []


class STANeckConfig(STAConfig, NeckConfig):
    """Settings of STA before the heads.

    Example:
        >>> from tubelet.models.rcnn.model import MaskTrackConfig
        >>> from tubelet.models.rcnn.neck import STANeckConfig
        >>> MaskTrackConfig(neck=STANeckConfig(consumers="proposals")).neck.consumers
        'proposals'
    """

    kind: Literal["sta"] = "sta"
    levels: LevelNames = Field(default=PYRAMID, min_length=1)
    consumers: Literal["all", "proposals"] = "all"  # proposals: only the RPN reads the refined maps
    first_frame: Literal["self", "identity"] = "self"  # with no previous frame: attend to itself, or do nothing
    reference: Literal["raw", "self"] = "raw"  # maps that reference objects are described from; self: self-attended
    at_test: bool = True

    def attach(self, detector: Detector) -> STANeck:
        return STANeck(self, detector)


class STANeck(AttentionNeck):
    """Attend to the previous frame, in training to the reference frame."""

    name = "STA"

    def __init__(self, config: STANeckConfig, detector: Detector) -> None:
        super().__init__(config, detector)
        self.config = config
        self.attention = STA(config, detector.channels)

    def pairs(self, partners: Partners) -> dict[int, list[int]]:
        """Key frames attend to their reference; references to themselves, or they stay raw."""
        pairs = {i: [partners.reference[i]] for i in partners.key}
        if self.config.reference == "self":
            pairs |= {i: [i] for i in partners.references}
        return pairs

    def attend(self, maps: Tensor, others: Tensor, valid: Tensor | None, current: Tensor | None) -> Tensor:
        refined: Tensor = self.attention(maps, others, valid)
        return refined

    def refine_frame(self, raw: Features, frame: FrameFeatures, past: list[FrameFeatures]) -> Features:
        if not past and self.config.first_frame == "identity":
            return raw
        return super().refine_frame(raw, frame, past)


class DualNeckConfig(DualConfig, NeckConfig):
    """Settings of CompFeat's dual attention before the heads.

    Example:
        >>> from tubelet.models.rcnn.neck import DualNeckConfig
        >>> DualNeckConfig(levels=("P4",)).reads_supports
        True
    """

    reads_supports: ClassVar[bool] = True

    kind: Literal["dual"] = "dual"
    levels: LevelNames = Field(default=PYRAMID, min_length=1)
    consumers: Literal["all", "proposals"] = "all"  # proposals: only the RPN reads the refined maps
    at_test: bool = True

    def attach(self, detector: Detector) -> DualNeck:
        return DualNeck(self, detector)


class DualNeck(AttentionNeck):
    """Attend to support frames, and to the frame's own cells."""

    name = "temporal attention of frames"
    attention: Dual

    def __init__(self, config: DualNeckConfig, detector: Detector) -> None:
        super().__init__(config, detector)
        self.attention = Dual(config, detector.channels)

    def pairs(self, partners: Partners) -> dict[int, list[int]]:
        """References are refined too, because at test the memory holds refined objects."""
        return {i: partners.supports[i] for i in sorted([*partners.key, *partners.references])}

    def attend(self, maps: Tensor, others: Tensor, valid: Tensor | None, current: Tensor | None) -> Tensor:
        refined: Tensor = self.attention(maps, others, valid, current)
        return refined

    def further_glances(self, maps: Tensor, frame: FrameFeatures, stride: int) -> list[Glance]:
        """Return the spatial attention weights, which all positions share."""
        spatial: Any = self.attention.spatial
        if spatial is None:
            return []
        logits = spatial.weigh(maps.float())
        weights = logits.flatten(1).softmax(1).view(logits.shape[1:])  # [1, h, w]
        return glances_over(f"spatial attention, stride {stride}", weights, [frame], stride)


def _of_equal_length(rows: dict[int, list[int]]) -> list[list[int]]:
    """Group keys whose values have one length, so that each group makes one batch."""
    groups: dict[int, list[int]] = {}
    for key, values in rows.items():
        groups.setdefault(len(values), []).append(key)
    return list(groups.values())
