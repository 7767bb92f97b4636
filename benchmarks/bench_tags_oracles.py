"""What each stage of a tag-based model costs: replace it by truth, predict again, measure again.

    python benchmarks/bench_tags_oracles.py MODEL INSTANCES [--set FIELD=VALUE ...] [--rows ROW ...]

MODEL is the folder of a training, INSTANCES a YouTube-VIS JSON with masks, such as the test videos of
`tubelet bench vis` (OUT/sets/generated-test/instances.json). Rows:

    prediction           the model as it is
    true classes         object probability of each cell all on the class of the object that it shows
    true foreground      background probability from the masks, averaged over each cell
    true tags            the number of the object in the cell, or of the nearest object, times the gap
    foreground and tags  both; what is lost is lost by resolution, reading and linking
    all three            likewise, with classes

Columns: AP and AP of any class, J&F; IoU of the foreground at the resolution of the tags; and how many
objects are found in a clip against how many it shows: right, too few, too many (share of clips).
`--set` changes fields that matter at test, such as window.length=12 or clustering.least=0.05.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.core.types import Clip, Video, VideoSet
from tubelet.data.clips import load_tracks
from tubelet.evaluation import ytvis as average_precision
from tubelet.evaluation.measures import measure
from tubelet.evaluation.tables import Sheet, markdown
from tubelet.formats import ytvis
from tubelet.inference.predict import predict
from tubelet.models import weights
from tubelet.models.tags.inputs import draw_truth
from tubelet.models.tags.model import Found, TagConfig, TagModel
from tubelet.models.tags.network import TagOutput

ROWS: dict[str, frozenset[str]] = {
    "prediction": frozenset(),
    "true classes": frozenset({"classes"}),
    "true foreground": frozenset({"foreground"}),
    "true tags": frozenset({"tags"}),
    "foreground and tags": frozenset({"foreground", "tags"}),
    "all three": frozenset({"foreground", "tags", "classes"}),
}
COLUMNS = ("", "AP", "AP, any class", "J&F", "foreground IoU", "count right", "too few", "too many")
ALMOST = 1e-4  # probabilities are kept this far from 0 and 1


@dataclass
class Tally:
    """Counts over all clips of all videos."""

    shared: int = 0  # cells of the foreground, predicted and true
    either: int = 0  # predicted or true
    counts: list[tuple[int, int]] = field(default_factory=list)  # objects found and shown, of each clip

    def foreground(self) -> float:
        """Intersection over union of the foreground."""
        return self.shared / max(self.either, 1)

    def share(self, sign: int) -> float:
        """Share of clips with too few (-1), right (0) or too many (1) objects."""
        signs = [(objects > shown) - (objects < shown) for objects, shown in self.counts]
        return signs.count(sign) / max(len(signs), 1)


class Oracle(TagModel):
    """A model some of whose stages are replaced by the truth of `video`."""

    video: Video
    replaced: frozenset[str]
    tally: Tally
    clip: Clip

    def look(self, clip: Clip) -> TagOutput:
        """The network's output, or the truth."""
        self.clip = self.truth(clip)
        if {"foreground", "tags"} <= self.replaced:
            output = self.blank(clip)
        else:
            output = super().look(clip)

        size = (output.tags.shape[-2], output.tags.shape[-1])
        owners = draw_truth(self.clip, size).owners
        shown = self.foreground(size)
        tags, logits = output.tags, output.logits
        if "foreground" in self.replaced:
            logits = with_foreground(logits, shown)
        if "classes" in self.replaced and not self.config.agnostic:
            logits = with_classes(logits, owners, self.labels())
        if "tags" in self.replaced:
            tags = true_tags(owners, self.config.tag_dim, self.config.loss.gap)

        predicted = 1 - logits[0].softmax(0)[0] > 0.5
        self.tally.shared += int((predicted & (shown > 0.5)).sum())
        self.tally.either += int((predicted | (shown > 0.5)).sum())
        return TagOutput(tags, logits)

    def group(self, output: TagOutput) -> Found:
        """Group, and count the objects found and shown."""
        found = super().group(output)
        owners = draw_truth(self.clip, (output.tags.shape[-2], output.tags.shape[-1])).owners
        self.tally.counts.append((len(found.masks), len(owners[owners >= 0].unique())))
        return found

    def truth(self, clip: Clip) -> Clip:
        """The clip with the video's objects."""
        tracks = load_tracks(self.video, clip.index.tolist(), clip.index, len(self.classes))
        every = torch.ones(len(clip.index), dtype=torch.bool)
        return Clip(frames=clip.frames, index=clip.index, key=every, tracks=tracks)

    def blank(self, clip: Clip) -> TagOutput:
        """An output without a network, at the resolution that it would have."""
        height, width = self._pixels(clip).shape[-2:]
        scale = 8 / self.config.encoder.stride
        size = (len(clip.index), int(height * scale), int(width * scale))
        classes = 1 if self.config.agnostic else len(self.classes)
        return TagOutput(torch.zeros(1, self.config.tag_dim, *size), torch.zeros(1, classes + 1, *size))

    def foreground(self, size: tuple[int, int]) -> Tensor:
        """Share of each cell that objects cover, [T, h, w]."""
        assert self.clip.tracks is not None
        covered = self.clip.tracks.binary.any(0)
        return F.interpolate(covered[None].float(), size, mode="area")[0]

    def labels(self) -> Tensor:
        """Classes of the objects by row."""
        assert self.clip.tracks is not None
        return self.clip.tracks.labels


def with_foreground(logits: Tensor, shown: Tensor) -> Tensor:
    """Logits [1, K + 1, T, h, w] whose background has the probability of 1 - shown; class shares stay."""
    shown = shown.clamp(ALMOST, 1 - ALMOST)
    classes = logits[0, 1:].log_softmax(0) + shown.log()
    return torch.cat([(1 - shown).log()[None], classes])[None]


def with_classes(logits: Tensor, owners: Tensor, labels: Tensor) -> Tensor:
    """Logits whose object probability is all on the class of the object that the cell, or the nearest, shows."""
    probabilities = logits[0].softmax(0)
    objects = probabilities[1:].sum(0).clamp(ALMOST, 1 - ALMOST)
    label = nearest_owner(owners)
    known = label >= 0
    label[known] = labels[label[known]]
    hot = F.one_hot(label.clamp(min=0), len(probabilities) - 1).movedim(-1, 0).float()
    hot = torch.where(known, hot, 1 / len(hot))
    return torch.cat([1 - objects[None], objects * hot.clamp(min=ALMOST)]).log()[None]


def true_tags(owners: Tensor, dimensions: int, gap: float) -> Tensor:
    """The number of the object that each cell, or the nearest one, shows, times the gap: [1, D, T, h, w]."""
    numbers = gap * nearest_owner(owners).float()
    return torch.cat([numbers[None], numbers.new_zeros(dimensions - 1, *numbers.shape)])[None]


def nearest_owner(owners: Tensor) -> Tensor:
    """Owners [T, h, w] with the background filled from the nearest object of its frame, -1 without one."""
    from scipy.ndimage import distance_transform_edt

    filled = owners.clone()
    for frame in filled:
        empty = (frame < 0).numpy()
        if empty.all():
            frame.fill_(-1)
            continue
        rows, columns = distance_transform_edt(empty, return_distances=False, return_indices=True)
        frame.copy_(frame[torch.from_numpy(rows).long(), torch.from_numpy(columns).long()])
    return filled


def report(run: Path, test: VideoSet, overrides: Sequence[str] = (), rows: Sequence[str] = tuple(ROWS)) -> None:
    """Print the table, row by row as they come, then as Markdown."""
    trained = weights.load(run, device="cpu")
    assert isinstance(trained, TagModel), f"{run}: expected a tag-based model"
    config = trained.config.override(*overrides)
    lines = []
    for name in rows:
        model = oracle(config, trained, ROWS[name])
        line = [name, *cells(model, test)]
        print(*line, sep="  ", flush=True)
        lines.append(line)
    print(markdown(Sheet(columns=COLUMNS, rows=tuple(tuple(line) for line in lines))))


def oracle(config: TagConfig, trained: TagModel, replaced: frozenset[str]) -> Oracle:
    """The trained model as an oracle."""
    model = Oracle(config, trained.classes).eval()
    model.load_state_dict(trained.state_dict())
    model.precision = trained.precision
    model.replaced = replaced
    model.tally = Tally()
    return model


def cells(model: Oracle, test: VideoSet) -> list[str]:
    """The figures of a row."""
    predictions = []
    for video in test.videos:
        model.video = video
        predictions.append(predict(model, video, threshold=0.0))
    figures = measure(test.videos, predictions, ["ap", "jf"])
    agnostic = average_precision.evaluate(test.videos, predictions, agnostic=True)["AP"]
    tally = model.tally
    counts = [tally.share(sign) for sign in (0, -1, 1)]
    shares = [figures["AP"], agnostic, figures["J&F"], tally.foreground(), *counts]
    return [f"{100 * share:.1f}" for share in shares]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("instances", type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report(arguments.model, ytvis.read(arguments.instances), arguments.set, arguments.rows)


if __name__ == "__main__":
    main()
