"""The network's fields: sizes, and one switch for each row of the paper's ablation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tubelet.attention.tags import FrameReadingConfig, SelfReadingConfig
from tubelet.core.config import Config
from tubelet.models.tags.encoder import EncoderConfig
from tubelet.models.tags.heads import DecoderConfig, Width

Side = Annotated[int, Field(ge=32, le=2048, multiple_of=16)]


class NetworkConfig(Config):
    """Defaults are the paper's shapes where it gives them: 14 x 14 cells, 256 channels, tags of 112 x 112."""

    input_size: tuple[Side, Side] = (224, 224)  # height, width of a lying frame; (112, 112) goes with encoder.pool off
    encoder: EncoderConfig = EncoderConfig()
    loc_embed: bool = True  # two coordinate channels beside the encoder's
    spatio_temporal: FrameReadingConfig | None = FrameReadingConfig()  # null: a plain projection
    tag_attention: FrameReadingConfig | None = FrameReadingConfig()  # likewise
    self_attention: SelfReadingConfig | None = SelfReadingConfig()  # likewise
    tag_link: bool = True  # what tags read is part of the decoder's input
    self_link: bool = True  # so is what frames read of themselves
    decoder: DecoderConfig | None = DecoderConfig()  # null: foreground from a head like the tags', and no classes
    channels: Width = 256  # of u, q, v and w
    bottleneck: Width = 512
    generator: Width = 64  # between the two layers of the tag generator
    tag_features: Width = 64  # of the tags, on the cells' grid
    tag_dim: int = Field(default=1, ge=1, le=64)  # numbers per tag
    tag_range: Literal["free", "sigmoid"] = "free"
    # "batch": running statistics. "clip": those of the clip itself, at test as well, for a random start with one or two
    # clips a batch, whose running statistics fit none of them
    norm: Literal["batch", "clip"] = "batch"

    @model_validator(mode="after")
    def _fits_together(self) -> NetworkConfig:
        if self.decoder is not None and not (self.tag_link or self.self_link):
            raise ValueError(
                "a decoder without tag_link and self_link has no input: expected one of them, or no decoder"
            )
        if self.norm == "clip" and min(self.input_size) <= 2 * (16 if self.encoder.pool else 8):
            raise ValueError(
                f"input_size {list(self.input_size)} leaves one cell to take statistics of: use norm=batch"
            )
        return self
