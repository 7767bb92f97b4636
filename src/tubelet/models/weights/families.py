"""The families of models that a file can hold, told apart by the `kind` of their configs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tubelet.models.hub_segmenter.model import HubSegmenter
from tubelet.models.mask2former.model import Mask2Former, Mask2FormerConfig
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.models.tags.model import TagConfig, TagModel
from tubelet.models.videomt.model import VidEoMT, VidEoMTConfig

ModelConfig = Annotated[MaskTrackConfig | Mask2FormerConfig | TagConfig | VidEoMTConfig, Field(discriminator="kind")]
AnyModel = MaskTrackRCNN | Mask2Former | TagModel | VidEoMT | HubSegmenter
