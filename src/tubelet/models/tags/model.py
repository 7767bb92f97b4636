"""The bottom-up system: tags for all pixels of a clip at once, grouped into objects; no boxes, no proposals.

Source: Tag-based attention guided bottom-up approach for video instance segmentation (docs/papers/tags.md).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal, NamedTuple

import torch
from pydantic import model_validator
from torch import Tensor, nn

from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Traits, Window, check_clips
from tubelet.core.types import Clip, Losses, Tracks
from tubelet.models.tags.clustering import ClusteringConfig, cluster
from tubelet.models.tags.config import NetworkConfig
from tubelet.models.tags.inputs import draw_truth, prepare
from tubelet.models.tags.losses import TagLossConfig, cross_entropy, tagging_losses
from tubelet.models.tags.network import TagNetwork, TagOutput
from tubelet.tracking.linking import LinkingConfig, Links, link


class TagConfig(NetworkConfig):
    """The network, what it learns from, and how its tags become objects."""

    kind: Literal["tags"] = "tags"
    agnostic: bool = False  # one class, "object", whatever the data set's (DAVIS)
    loss: TagLossConfig = TagLossConfig()
    clustering: ClusteringConfig = ClusteringConfig()
    window: Window = Window(length=32, spread=True)  # or length=32 stride=16: all frames, and clips that are linked
    linking: LinkingConfig = LinkingConfig(overlap=0.3, windows=1)  # of clips, by masks: tags of two clips differ

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
        return TagModel(self, classes)


class Found(NamedTuple):
    """The objects of one clip, at the resolution of its tags."""

    masks: Tensor  # soft, [N, T, h, w]
    scores: Tensor  # [N, K]


class TagModel(nn.Module):
    """A VideoSegmenter and a SemanticSegmenter; a clip has any number of frames, one too."""

    def __init__(self, config: TagConfig, classes: tuple[str, ...]) -> None:
        if not classes:
            raise ConfigError("a model needs at least one class")
        super().__init__()
        self.config, self.classes, self.window = config, classes, config.window
        self.precision = torch.float32  # of the network in `step`; training has its own setting
        self.traits = Traits(semantic=True)
        self.network = TagNetwork(config, 1 if config.agnostic else len(classes))

    # training

    def forward(self, clips: list[Clip]) -> Losses:
        """Eq. 1-7, means over clips; those of another length or orientation go through the network by themselves."""
        check_clips(clips)
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        pixels = [self._pixels(clip) for clip in clips]
        for n, one in enumerate(pixels):
            alike[tuple(one.shape)].append(n)
        totals: dict[str, Tensor] = {}
        for members in alike.values():
            answer: TagOutput = self.network(torch.stack([pixels[n] for n in members]))
            for k, n in enumerate(members):
                for name, loss in self._losses(answer, k, clips[n]).items():
                    totals[name] = totals.get(name, 0) + loss / len(clips)
        return totals

    def _losses(self, answer: TagOutput, k: int, clip: Clip) -> Losses:
        truth = draw_truth(clip, (answer.tags.shape[-2], answer.tags.shape[-1]))
        semantic = cross_entropy(answer.logits[k], truth, agnostic=self.config.agnostic)
        return tagging_losses(answer.tags[k], truth.owners, self.config.loss) | {"semantic": semantic}

    # inference

    def start(self) -> Links:
        """Nothing is known before the first clip."""
        return Links()

    def step(self, state: Links, clip: Clip) -> tuple[Links, Tracks]:
        """Objects of the clip's key frames, soft masks at the tags' resolution; linked to those of the clip before."""
        found = self.group(self.look(clip))
        ids = torch.zeros(len(found.masks), dtype=torch.int64, device=clip.index.device)
        tracks = Tracks(ids=ids, scores=found.scores, masks=found.masks, index=clip.index)
        return link(state, tracks.at(clip.key), self.config.linking, clip.shot)

    def semantic_maps(self, clip: Clip) -> Tensor:
        """Class probabilities of the clip's key frames, [T, K + 1, h, w], background first: the decoder's own answer.

        A class-agnostic model has two maps, background and object.
        """
        return self.look(clip).logits[0, :, clip.key].softmax(0).transpose(0, 1)

    def look(self, clip: Clip) -> TagOutput:
        """The network's answer to one clip, B = 1."""
        pixels, fast = self._pixels(clip)[None], self.precision == torch.bfloat16
        if fast:  # pays in bfloat16 and costs in float32 (benchmarks/bench_tags.py)
            pixels = pixels.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=fast):
            answer: TagOutput = self.network(pixels)
        return answer

    def group(self, answer: TagOutput) -> Found:
        """Objects of an answer, B = 1.

        An object's mask is, at its cells, the probability of the best class against the background (above 1/2 exactly
        where that class is the most probable), and 0 elsewhere: thresholded it is the object, and between two frames it
        can be blended. Its score is the mean class probability times the compactness of its tags.
        """
        tags, probabilities = answer.tags[0], answer.logits[0].softmax(0)  # [D, T, h, w], [K + 1, T, h, w]
        best = probabilities[1:].amax(0)
        inside = best > probabilities[0]
        clusters = cluster(tags.movedim(0, -1)[inside], self.config.loss.gap, self.config.clustering)
        owners = torch.full(inside.shape, -1, device=tags.device)
        owners[inside] = clusters.owners
        soft = best / (best + probabilities[0])
        numbers = torch.arange(len(clusters.centres), device=tags.device)
        masks = torch.where(owners[None] == numbers.view(-1, 1, 1, 1), soft, 0.0)
        return Found(masks, self._scores(probabilities, owners, clusters.compactness))

    def _scores(self, probabilities: Tensor, owners: Tensor, compactness: Tensor) -> Tensor:
        """Mean class probabilities over each object's cells times compactness, [N, K]."""
        means = [probabilities[1:, owners == n].mean(1) for n in range(len(compactness))]
        if not means:
            return probabilities.new_zeros(0, len(self.classes))
        scores = torch.stack(means) * compactness[:, None]
        return scores.expand(-1, len(self.classes)) if self.config.agnostic else scores

    def _pixels(self, clip: Clip) -> Tensor:
        return prepare(clip.frames, self.config.input_size)
