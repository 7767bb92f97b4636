"""VidEoMT: an online segmenter in one plain ViT, whose queries go from frame to frame.

Source: Norouzi et al., VidEoMT: Your ViT is Secretly Also a Video Segmentation Model, CVPR 2026
(docs/papers/videomt.md). Letters: B clips, T frames, Q queries, K classes, S tokens of a frame, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from tubelet.core.config import Config
from tubelet.core.errors import InputError
from tubelet.core.protocol import Glance, Traits, Window, check_clips
from tubelet.core.types import Clip, Losses, Tracks
from tubelet.engines.graph import Graph
from tubelet.models.frames import join_frames
from tubelet.models.inputs import Fit, Images, InputConfig
from tubelet.models.queries.criterion import CriterionConfig
from tubelet.models.queries.looks import QueryLook, to_glances, with_share
from tubelet.models.queries.outputs import STRIDE, cut_padding, query_at
from tubelet.models.videomt.criterion import ClipCriterion, ClipTarget
from tubelet.models.videomt.encoder import ViTConfig
from tubelet.models.videomt.identities import Identities, IdentityConfig, identify
from tubelet.models.videomt.masking import MaskingConfig
from tubelet.models.videomt.network import FrameOutput, VidEoMTNetwork


class VidEoMTConfig(Config):
    """Settings of VidEoMT; by default ViT-S with 200 queries at 640 x 640.

    Example:
        >>> from tubelet.models.videomt.encoder import ViTConfig
        >>> from tubelet.models.videomt.model import VidEoMTConfig
        >>> large = ViTConfig(channels=1024, layers=24, query_layers=4, heads=16)
        >>> VidEoMTConfig(encoder=large).window.length
        1
    """

    kind: Literal["videomt"] = "videomt"
    encoder: ViTConfig = ViTConfig()
    input: InputConfig = InputConfig(resize=Fit(height=640, width=640))  # in training too
    queries: int = Field(default=200, ge=1, le=10_000)
    criterion: CriterionConfig = CriterionConfig()
    masking: MaskingConfig = MaskingConfig()
    identities: IdentityConfig = IdentityConfig()
    window: Window = Window()
    frames_at_a_time: int = Field(default=8, ge=1)  # through the encoder at test, where clips have more
    save_memory: bool = False  # in training, recompute the encoder's layers in the backward pass

    @model_validator(mode="after")
    def _frames_fit_the_encoder(self) -> VidEoMTConfig:
        height, width = self.encoder.size
        for shape in ((720, 1280), (1280, 720), (1000, 1000)):
            rows, columns = (_round_up(side, self.input.resize.multiple) for side in self.input.resize.target(*shape))
            if rows > height or columns > width:
                expected = f"input.resize: expected frames within encoder.size {height}x{width}"
                raise ValueError(f"{expected}, got {rows}x{columns} of a frame of {shape[0]}x{shape[1]}")
        return self

    def build(self, classes: tuple[str, ...]) -> VidEoMT:
        """Build the model for these classes, with random weights."""
        return VidEoMT(self, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class VidEoMTState:
    """What is known of a video after frame `time`; its size does not depend on the number of frames.

    Example:
        >>> from tubelet.models.videomt.model import VidEoMTState
        >>> VidEoMTState().queries is None  # before the first frame
        True
    """

    queries: Tensor | None = None  # [1, Q, D], propagated from the last frame; None at the start of a shot
    identities: Identities | None = None
    time: int = -1
    shot: int = 0


class VidEoMT(nn.Module):
    """A VideoSegmenter: each query is one object, from frame to frame."""

    def __init__(self, config: VidEoMTConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        self.window = config.window
        self.precision = torch.float32  # of the network in `step`; training has its own setting
        self.traits = Traits(vote="mean", average="logits", attention=True)
        self.network = VidEoMTNetwork(config.encoder, config.queries, len(classes), config.masking)
        self.tokens = Graph("tokens", self.network.backbone, self._tokens)
        self.criterion = ClipCriterion(config.criterion.build("ce"))

    def graphs(self) -> list[Graph]:
        """Return the parts that an engine can compute: the layers before the queries enter."""
        return [self.tokens]

    def _tokens(self, pixels: Tensor) -> tuple[Tensor]:
        tokens: Tensor = self.network.backbone(pixels)
        return (tokens,)

    # training

    def forward(self, clips: list[Clip]) -> Losses:
        """Compute the losses of clips of one length, frame after frame; gradients flow back through the queries.

        All frames count, key or not. Frames are resized as at test.
        Raises InputError if the clips differ in length or have no annotated objects.
        """
        check_clips(clips)
        length = len(clips[0])
        if any(len(clip) != length for clip in clips):
            raise InputError(f"clips of a batch must have one length, got {[len(clip) for clip in clips]} frames")

        images = self._prepare([clip.frames for clip in clips])
        targets = [self._target(clip, images, n * length) for n, clip in enumerate(clips)]
        save_memory = self.config.save_memory and self.training
        tokens = self.network.backbone(images.pixels, save_memory=save_memory).unflatten(0, (-1, length))

        frames: list[list[FrameOutput]] = []
        queries: Tensor | None = None
        for t in range(length):
            predictions, queries = self.network(tokens[:, t], queries, every=True)
            frames.append(predictions)
        if self.training:
            self.network.masking.advance()
        return self.criterion(frames, targets)

    def _prepare(self, frames: Sequence[Tensor]) -> Images:
        """Resize and normalise frames, and pad them to the encoder's size."""
        images = self.config.input.prepare(frames)
        height, width = self.config.encoder.size
        rows, columns = images.pixels.shape[-2:]
        pixels = F.pad(images.pixels, (0, width - columns, 0, height - rows))
        return replace(images, pixels=pixels)

    def _target(self, clip: Clip, images: Images, first: int) -> ClipTarget:
        """Objects with a pixel in the clip, without crowds; `first` is the clip's first image."""
        if clip.tracks is None:
            raise InputError("a clip without annotated objects cannot be learnt from")

        is_crowd = clip.tracks.scores.sum(1) <= 0
        tracks = clip.tracks[~is_crowd & clip.tracks.present.any(1)]
        height, width = images.sizes[first]
        padded = images.pixels.shape
        return ClipTarget(
            labels=tracks.labels,
            masks=tracks.masks.float(),
            padding=torch.tensor([padded[-1] / width, padded[-2] / height], device=images.pixels.device),
            no_object=len(self.classes),
        )

    # inference

    def start(self) -> VidEoMTState:
        """Return the state before the first frame of a video."""
        return VidEoMTState()

    @torch.no_grad()
    def step(self, state: VidEoMTState, clip: Clip) -> tuple[VidEoMTState, Tracks]:
        """Find the objects of the clip's key frames, one frame after the other.

        Key frames up to the last frame of the state are skipped. At a cut the queries start anew, and so do the ids.
        """
        new = clip.at(clip.key & (clip.index > state.time))
        if len(new) == 0:
            return state, Tracks.empty(new.index, len(self.classes), clip.size)

        state = self._entered(state, clip.shot)
        frames: list[Tracks] = []
        for chunk, times in self._chunks(new.frames, new.index):
            images, tokens = self._encode(chunk)
            for t, time in enumerate(times):
                state, tracks = self._step_frame(state, tokens[[t]], images.sizes[t], time)
                frames.append(tracks)
        return state, join_frames(frames)

    def _chunks(self, frames: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor]]:
        """A few frames at a time, and their numbers."""
        count = self.config.frames_at_a_time
        return list(zip(frames.split(count), index.split(count), strict=True))

    def _encode(self, frames: Tensor) -> tuple[Images, Tensor]:
        """The images of frames, and their tokens [T, S, D]."""
        images = self._prepare([frames])
        with self._autocast(frames):
            (tokens,) = self.tokens(images.pixels)
            return images, tokens

    def _entered(self, state: VidEoMTState, shot: int) -> VidEoMTState:
        """The state for a frame of a shot: new identities where it is another shot than before."""
        if state.identities is not None and state.shot == shot:
            return state
        next_id = 1 if state.identities is None else state.identities.next_id
        height, width = self.config.encoder.size
        fresh = Identities.of(
            queries=self.config.queries,
            channels=self.config.encoder.channels,
            grid=(height // STRIDE, width // STRIDE),
            device=self.network.query.weight.device,
            next_id=next_id,
        )
        return replace(state, queries=None, identities=fresh, shot=shot)

    def _step_frame(
        self, state: VidEoMTState, tokens: Tensor, size: tuple[int, int], time: Tensor
    ) -> tuple[VidEoMTState, Tracks]:
        """Find the objects of one frame, whose tokens are [1, S, D] and which has `size` in the network input."""
        assert state.identities is not None
        prediction, queries = self._decode(state, tokens)
        probabilities = prediction.logits[0].softmax(-1)[:, :-1]
        masks = prediction.mask_logits[0]  # [Q, h, w] over the padded input
        identities, shown = identify(
            state.identities,
            probabilities,
            masks > 0,
            queries[0],
            int(time),
            self.config.identities,
        )
        tracks = Tracks(
            ids=identities.ids[shown],
            scores=probabilities[shown],
            masks=cut_padding(masks[shown, None], size).sigmoid(),
            index=time[None],
        )
        return replace(state, queries=queries, identities=identities, time=int(time)), tracks

    def _decode(self, state: VidEoMTState, tokens: Tensor) -> tuple[FrameOutput, Tensor]:
        """The last prediction for one frame, and the queries for the next."""
        with self._autocast(tokens):
            predictions, queries = self.network(tokens, state.queries, every=False)
        return predictions[-1], queries.float()

    def _autocast(self, tensor: Tensor) -> torch.autocast:
        use_bf16 = self.precision == torch.bfloat16
        return torch.autocast(tensor.device.type, torch.bfloat16, enabled=use_bf16)

    @torch.no_grad()
    def attend(self, state: VidEoMTState, clip: Clip, frame: int, at: tuple[float, float]) -> list[Glance]:
        """Return what the query of the object at a point of a key frame attends to, in each of the query layers.

        The query is the one with the largest class probability times mask probability at the point. Weights are those
        of the frame's patches, a mean over heads; a name tells their share of all weights.
        """
        if bool((clip.index[clip.key] < frame).any()):
            state, _ = self.step(state, clip.up_to(frame - 1))
        state = self._entered(state, clip.shot)
        is_frame = clip.key & (clip.index == frame)
        images, tokens = self._encode(clip.frames[is_frame])
        prediction, _ = self._decode(state, tokens)

        size = images.sizes[0]
        masks = cut_padding(prediction.mask_logits[0][:, None], size)[:, 0]
        query = query_at(prediction.logits[0].softmax(-1)[:, :-1], masks, at, clip.size)
        with self._autocast(tokens):
            weights = self.network.attention(tokens, state.queries, query)

        patches = self.config.encoder.grid[0] * self.config.encoder.grid[1]
        first = self.config.encoder.layers - self.config.encoder.query_layers
        looks = []
        for number, row in enumerate(weights):
            of_patches = row[-patches:]
            name = with_share(f"query {query}, layer {first + number}", of_patches.sum())
            looks.append(QueryLook(name, 0, of_patches))
        padded = (images.pixels.shape[-2], images.pixels.shape[-1])
        return to_glances(looks, clip.index[is_frame], padded, self.config.encoder.grid, size)


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
