"""The bottom-up system: tags for all pixels of a clip at once, grouped into objects; no boxes, no proposals.

Source: Tag-based attention guided bottom-up approach for video instance segmentation
(docs/papers/tags.md).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Glance, Traits, Window, check_clips
from tubelet.core.types import Clip, Losses, Tracks
from tubelet.engines.graph import Graph
from tubelet.models.tags.clustering import ClusteringConfig, cluster
from tubelet.models.tags.config import NetworkConfig
from tubelet.models.tags.glances import Point, glances, has_attention, inputs_of_attentions
from tubelet.models.tags.inputs import draw_truth, prepare
from tubelet.models.tags.interpolation import as_distances
from tubelet.models.tags.losses import TagLossConfig, cross_entropy, tagging_losses
from tubelet.models.tags.network import TagNetwork, TagOutput
from tubelet.tracking.linking import LinkingConfig, Links, link


class TagConfig(NetworkConfig):
    """The network, its losses, and how tags become objects.

    Example:
        >>> from tubelet.core.protocol import Window
        >>> from tubelet.models.tags.model import TagConfig
        >>> TagConfig(agnostic=True, window=Window(length=8, stride=4)).window.length
        8
    """

    kind: Literal["tags"] = "tags"
    agnostic: bool = False  # one class, "object", whatever the data set's (DAVIS)
    loss: TagLossConfig = TagLossConfig()
    clustering: ClusteringConfig = ClusteringConfig()
    # 32 frames spread over the video; length=32 stride=16 reads all frames in clips that are linked
    window: Window = Window(length=32, spread=True)
    # of clips, by masks: tags of two clips differ
    linking: LinkingConfig = LinkingConfig(overlap=0.3, windows=1)
    # "not_background": where the background's probability is below 1/2. "best_class": where one class is
    # more probable than the background, of which there is less the more classes share an object
    foreground: Literal["not_background", "best_class"] = "not_background"
    # cells beside an object that are not foreground keep their probability, so that enlarged masks end
    # between two cells; off: it is 0
    soft_edges: bool = True
    # of frames that a spread window skips: a linear blend of masks, or of distances to their outlines
    interpolation: Literal["linear", "signed_distance"] = "linear"

    @model_validator(mode="after")
    def _can_be_met(self) -> TagConfig:
        if self.decoder is None and not self.agnostic:
            raise ValueError("without a decoder there are no classes: expected agnostic=true")
        room = self.loss.gap * (self.clustering.most - 1)
        if self.tag_range == "sigmoid" and room > 1:
            raise ValueError(
                f"{self.clustering.most} objects with tags {self.loss.gap:g} apart do not fit between 0 and 1: "
                f"expected loss.gap of {1 / (self.clustering.most - 1):.3g} or less, or tag_range=free"
            )
        return self

    def build(self, classes: tuple[str, ...]) -> TagModel:
        """Build the model with random weights."""
        return TagModel(self, classes)


class Found(NamedTuple):
    """The objects of one clip, at the resolution of its tags.

    Example:
        >>> from tubelet.models.tags.model import Found
        >>> Found(masks=torch.zeros(2, 4, 8, 8), scores=torch.zeros(2, 3)).scores.shape
        torch.Size([2, 3])
    """

    masks: Tensor  # soft, [N, T, h, w]
    scores: Tensor  # [N, K]


class TagModel(nn.Module):
    """A VideoSegmenter and a SemanticSegmenter; a clip may have any number of frames.

    Raises ConfigError without classes.

    Example:
        >>> from tubelet.models.tags.model import TagConfig
        >>> config = TagConfig().override("encoder.width=4", "channels=8", "bottleneck=8", "input_size=[32, 48]")
        >>> model = config.build(("dog", "cat")).eval()
        >>> tubelet.predict(model, np.zeros((3, 60, 90, 3), np.uint8)).length
        3
    """

    def __init__(self, config: TagConfig, classes: tuple[str, ...]) -> None:
        if not classes:
            raise ConfigError("a model needs at least one class")
        super().__init__()
        self.config = config
        self.classes = classes
        self.window = config.window
        self.precision = torch.float32  # of the network in `step`; training has its own setting
        blends_distances = config.interpolation == "signed_distance"
        self.network = TagNetwork(config, 1 if config.agnostic else len(classes))
        self.traits = Traits(
            semantic=True,
            average="logits" if blends_distances else "probabilities",
            attention=has_attention(self.network),
        )

    def graphs(self) -> list[Graph]:
        """Return the parts that an engine can compute: none yet."""
        return []

    # training

    def forward(self, clips: list[Clip]) -> Losses:
        """Eq. 1-7, means over clips.

        Clips of another length or orientation than the others go through the network by themselves.
        """
        check_clips(clips)
        pixels = [self._pixels(clip) for clip in clips]
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for n, clip_pixels in enumerate(pixels):
            by_shape[tuple(clip_pixels.shape)].append(n)

        totals: dict[str, Tensor] = {}
        for members in by_shape.values():
            output: TagOutput = self.network(torch.stack([pixels[n] for n in members]))
            for k, n in enumerate(members):
                for name, loss in self._losses(output, k, clips[n]).items():
                    totals[name] = totals.get(name, 0) + loss / len(clips)
        return totals

    def _losses(self, output: TagOutput, k: int, clip: Clip) -> Losses:
        truth = draw_truth(clip, (output.tags.shape[-2], output.tags.shape[-1]))
        semantic = cross_entropy(output.logits[k], truth, agnostic=self.config.agnostic)
        return tagging_losses(output.tags[k], truth.owners, self.config.loss) | {"semantic": semantic}

    # inference

    def start(self) -> Links:
        """The state before the first clip."""
        return Links()

    def step(self, state: Links, clip: Clip) -> tuple[Links, Tracks]:
        """Objects of the clip's key frames, soft masks at the tags' resolution, linked to those of the clip before."""
        objects = self.group(self.look(clip))
        ids = torch.zeros(len(objects.masks), dtype=torch.int64, device=objects.masks.device)
        tracks = Tracks(ids=ids, scores=objects.scores, masks=objects.masks, index=clip.index)
        return link(state, tracks.at(clip.key), self.config.linking, clip.shot)

    def semantic_maps(self, clip: Clip) -> Tensor:
        """Class probabilities of the clip's key frames, [T, K + 1, h, w], background first: the decoder's output.

        A class-agnostic model has two maps, background and object.
        """
        return self.look(clip).logits[0, :, clip.key].softmax(0).transpose(0, 1)

    def look(self, clip: Clip) -> TagOutput:
        """The network's output for one clip, B = 1."""
        pixels = self._pixels(clip)[None]
        is_bf16 = self.precision == torch.bfloat16
        if is_bf16:  # pays in bfloat16 and costs in float32 (benchmarks/bench_tags.py)
            pixels = pixels.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=is_bf16):
            output: TagOutput = self.network(pixels)
        return output

    def attend(self, state: Links, clip: Clip, frame: int, at: tuple[float, float]) -> list[Glance]:
        """Return what the attentions attend to, for a point of a key frame; the state is not needed."""
        height, width = clip.size
        point = Point(t=clip.index.tolist().index(frame), x=at[0] / width, y=at[1] / height)
        with torch.no_grad(), inputs_of_attentions(self.network) as inputs:
            self.look(clip)
            return glances(self.network, inputs, point, clip.index)

    def group(self, output: TagOutput) -> Found:
        """Objects of an output, B = 1.

        An object's mask is, at its cells, the probability that they are foreground (above 1/2), and 0
        elsewhere, but for cells beside it (`soft_edges`). So thresholded it is the object, and two frames
        can be blended. Its score is the mean class probability times the compactness of its tags.
        """
        tags = output.tags[0]  # [D, T, h, w]
        probabilities = output.logits[0].softmax(0)  # [K + 1, T, h, w]
        soft = self._foreground(probabilities)
        inside = soft > 0.5

        clusters = cluster(tags.movedim(0, -1)[inside], self.config.loss.gap, self.config.clustering)
        owners = torch.full(inside.shape, -1, device=tags.device)
        owners[inside] = clusters.owners
        numbers = torch.arange(len(clusters.centres), device=tags.device)
        owned = owners[None] == numbers.view(-1, 1, 1, 1)
        if self.config.soft_edges:
            owned = owned | (_grown(owned) & ~inside)

        masks = torch.where(owned, soft, 0.0)
        if self.config.interpolation == "signed_distance":
            masks = as_distances(masks)
        return Found(masks, self._scores(probabilities, owners, clusters.compactness))

    def _foreground(self, probabilities: Tensor) -> Tensor:
        """Probability of an object in each cell, [T, h, w], from those of classes [K + 1, T, h, w]."""
        background = probabilities[0]
        if self.config.foreground == "not_background":
            return 1 - background
        best = probabilities[1:].amax(0)
        return best / (best + background)

    def _scores(self, probabilities: Tensor, owners: Tensor, compactness: Tensor) -> Tensor:
        """Mean class probabilities over each object's cells times compactness, [N, K]."""
        if not len(compactness):
            return probabilities.new_zeros(0, len(self.classes))
        means = [probabilities[1:, owners == n].mean(1) for n in range(len(compactness))]
        scores = torch.stack(means) * compactness[:, None]
        return scores.expand(-1, len(self.classes)) if self.config.agnostic else scores

    def _pixels(self, clip: Clip) -> Tensor:
        return prepare(clip.frames, self.config.input_size, self.config.encoder.pixels)


def _grown(masks: Tensor) -> Tensor:
    """Masks [N, T, h, w] and the eight neighbours of their cells."""
    if not len(masks):
        return masks
    return F.max_pool2d(masks.float().flatten(0, 1), 3, 1, 1).unflatten(0, masks.shape[:2]) > 0
