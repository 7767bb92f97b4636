"""Fields of the network: sizes, a switch for each row of the paper's ablation, and ours beside them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tubelet.attention.tags import FrameReadingConfig, SelfReadingConfig
from tubelet.core.config import Config
from tubelet.models.tags import trunk  # noqa: F401 (an encoder that configs name by `kind`)
from tubelet.models.tags.encoder import ClipEncoderConfig, EncoderConfig
from tubelet.models.tags.heads import DecoderConfig, Upsampling, Width

Side = Annotated[int, Field(ge=32, le=2048, multiple_of=16)]


class NetworkConfig(Config):
    """Shapes and parts of the network. Defaults are the paper's where it gives them: 14 x 14 cells,
    256 channels, tags of 112 x 112.

    Example:
        >>> from tubelet.models.tags.config import NetworkConfig
        >>> NetworkConfig().override("upsampling=resize", "tag_dim=4").tag_dim
        4
    """

    # height, width of a landscape frame; (112, 112) goes with encoder.pool off
    input_size: tuple[Side, Side] = (224, 224)
    encoder: ClipEncoderConfig = EncoderConfig()
    loc_embed: bool = True  # two coordinate channels beside the encoder's
    spatio_temporal: FrameReadingConfig | None = FrameReadingConfig()  # null: a plain projection
    tag_attention: FrameReadingConfig | None = FrameReadingConfig()  # likewise
    self_attention: SelfReadingConfig | None = SelfReadingConfig()  # likewise
    tag_link: bool = True  # the result of tag attention is part of the decoder's input
    self_link: bool = True  # so is that of self-attention
    # null: the foreground comes from a head like the tag generator, and there are no classes
    decoder: DecoderConfig | None = DecoderConfig()
    channels: Width = 256  # of u, q, v and w
    bottleneck: Width = 512
    generator: Width = 64  # between the two layers of the tag generator
    tag_features: Width = 64  # of the tags, on the grid of cells
    tag_dim: int = Field(default=1, ge=1, le=64)  # numbers per tag
    tag_range: Literal["free", "sigmoid"] = "free"
    # "batch": running statistics. "clip": those of the clip itself, at test as well, for a random start with
    # one or two clips a batch, whose running statistics fit none of them
    norm: Literal["batch", "clip"] = "batch"

    # not in the paper: what makes it work on few videos
    upsampling: Upsampling = "transposed"  # in bottleneck, generator and decoder
    bottleneck_skip: bool = False  # add the bottleneck's input to its output
    finer_maps: bool = False  # add the encoder's finer maps in the decoder (and tag_decoder)
    tag_decoder: DecoderConfig | None = None  # tags from a decoder of their own; null: the two layers
    # x and y of the pixel are added to its tag; the longer side of the frame has this length. 0: nothing is
    tag_places: float = Field(default=0.0, ge=0, le=1000)

    @model_validator(mode="after")
    def _fits_together(self) -> NetworkConfig:
        if self.decoder is not None and not (self.tag_link or self.self_link):
            raise ValueError(
                "a decoder without tag_link and self_link has no input: expected one of them, or no decoder"
            )
        if self.norm == "clip" and min(self.input_size) <= 2 * self.encoder.stride:
            raise ValueError(
                f"input_size {list(self.input_size)} leaves one cell to take statistics of: use norm=batch"
            )
        if self.tag_places and (self.tag_dim < 2 or self.tag_range == "sigmoid"):
            raise ValueError("tag_places adds x and y to tags: expected tag_dim >= 2 and tag_range=free")
        return self
