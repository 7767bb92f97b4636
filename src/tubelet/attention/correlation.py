"""CompFeat's correlation tracker: how well a detection matches a reference, object to object and object to frame.

    (a)  v1_ij = sum_p r_j(p) x_i(p) / r^2                 depth-wise: one number per channel
    (b)  M_j   = ReLU(Conv1(r_j * f))                      r_j correlated depth-wise over the whole map, same padding
         m_j   = Conv2(M_j)                                the correlation map, learned towards a Gaussian at the object
         v2_ij = mean of M_j over the box of x_i
    (c)  score_ij = W2 ReLU(W1 (v1_ij + v2_ij))            two 1x1 convolutions: linear layers over pairs

    x_i     current     regions of N detections          N C r r
    r_j     known       regions of M references          M C r r
    f       frame       the map of the current frame     C H W
    M_j     refined     C channels                       M C H W

Source: docs/papers/compfeat.md, figure 4 of the paper. Boxes are in cells of `frame`: cell (x, y) covers [x, x + 1).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from tubelet.core.config import Config

CHUNK = 32  # references whose maps are made at once: 31 MB at 256 channels of 24 x 40 cells


def object_object(detections: Float[Tensor, "N C r r"], references: Float[Tensor, "M C r r"]) -> Float[Tensor, "N M C"]:
    """(a): depth-wise correlation of a region over one of its size, an average of products per channel."""
    cells = detections.shape[-1] * detections.shape[-2]
    return torch.einsum("nchw,mchw->nmc", detections, references) / cells


def object_frame(references: Float[Tensor, "M C r r"], frame: Float[Tensor, "C H W"]) -> Float[Tensor, "M C H W"]:
    """(b): depth-wise correlation of each reference over the frame, zeros beyond its border; channels do not mix."""
    number, channels = references.shape[:2]
    if not number:
        return frame.new_zeros(0, *frame.shape) * references.sum()
    kernels = references.transpose(0, 1).flatten(0, 1)[:, None]  # [C M, 1, r, r]
    before, after = (references.shape[-1] - 1) // 2, references.shape[-1] // 2
    padded = F.pad(frame[None], (before, after, before, after))
    maps = F.conv2d(padded, kernels, groups=channels)  # [1, C M, H, W]
    return maps[0].unflatten(0, (channels, number)).transpose(0, 1)


def gaussian(boxes: Float[Tensor, "M 4"], size: tuple[int, int]) -> Float[Tensor, "M H W"]:
    """The target of the correlation map: exactly 1 in the cell that holds the box's centre; zeros for an empty box.

    Its deviation is a sixth of the box's width and height, at least one cell, so the box spans three of them each way.
    """
    corner, opposite = boxes[:, :2], boxes[:, 2:]
    extent = opposite - corner
    limit = boxes.new_tensor([size[1] - 1, size[0] - 1])
    centre = torch.minimum(((corner + opposite) / 2).floor().clamp(min=0), limit)
    sigma = (extent / 6).clamp(min=1)
    x = torch.arange(size[1], device=boxes.device) - centre[:, :1]  # [M, W]
    y = torch.arange(size[0], device=boxes.device) - centre[:, 1:]  # [M, H]
    exponent = (y / sigma[:, 1:]).square()[:, :, None] + (x / sigma[:, :1]).square()[:, None]
    return (-exponent / 2).exp() * (extent > 0).all(1)[:, None, None]


def box_average(maps: Float[Tensor, "M C H W"], boxes: Float[Tensor, "N 4"], samples: int) -> Float[Tensor, "N M C"]:
    """(b), v2: the mean over a box of samples x samples bilinear readings, as an aligned RoIAlign takes them.

    A bilinear mean is a product of one weight per row and one per column, so N boxes read M maps in two products.
    """
    across = _line_weights(boxes[:, 0], boxes[:, 2], maps.shape[3], samples)  # [N, W]
    down = _line_weights(boxes[:, 1], boxes[:, 3], maps.shape[2], samples)  # [N, H]
    rows = torch.einsum("mchw,nw->nmch", maps, across)
    return torch.einsum("nmch,nh->nmc", rows, down)


def _line_weights(start: Tensor, stop: Tensor, length: int, samples: int) -> Tensor:
    """How much each of `length` cells counts in the mean of evenly spaced readings from start to stop, [N, length]."""
    steps = (torch.arange(samples, device=start.device) + 0.5) / samples
    points = start[:, None] + steps * (stop - start)[:, None] - 0.5  # [N, samples], in units of cell centres
    inside = (points >= -1) & (points <= length)  # beyond that, RoIAlign reads zeros
    cells = torch.arange(length, device=start.device)
    weights = (1 - (points.clamp(0, length - 1)[..., None] - cells).abs()).clamp(min=0)  # [N, samples, length]
    return (weights * inside[..., None]).mean(1)


class CorrelationMatch(nn.Module):
    """Match logits between detections and known objects; takes the place of a match head of fully connected layers."""

    def __init__(self, config: CorrelationConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        width = config.channels or channels
        # conv1 keeps the channels, because v2 is added to v1
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1) if config.frame_branch else None
        self.conv2 = nn.Conv2d(channels, 1, 1) if config.frame_branch else None
        self.score = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, 1))

    def describe(self, regions: Float[Tensor, "N C r r"]) -> Float[Tensor, "N C r r"]:
        """What memory keeps of an object: its region as it is."""
        return regions

    def refine(self, known: Float[Tensor, "M C r r"], frame: Float[Tensor, "C H W"]) -> Float[Tensor, "M C H W"]:
        """(b), M_j, for `forward` and `map_loss` to share. Only with the frame branch."""
        assert self.conv1 is not None
        with torch.autocast(frame.device.type, enabled=False):
            maps = object_frame(known.float(), frame.float())
            if self.config.average_frame:
                maps = maps / (known.shape[-1] * known.shape[-2])
            return F.relu(self.conv1(maps))

    def forward(
        self,
        current: Float[Tensor, "N C r r"],
        known: Float[Tensor, "M C r r"],
        frame: Float[Tensor, "C H W"],
        boxes: Float[Tensor, "N 4"],
        refined: Float[Tensor, "M C H W"] | None = None,
    ) -> Float[Tensor, "N M+1"]:
        """Match logits in float32; column 0 is exactly 0 and stands for a new object.

        `boxes` are the detections' in cells of `frame`, the map of their own frame. `refined` is what `refine` gave for
        the same references, where it is at hand.
        """
        with torch.autocast(current.device.type, enabled=False):
            pairs = object_object(current.float(), known.float())  # [N, M, C]
            if self._reads_frame():
                pairs = pairs + self._read(known, frame, boxes.float(), refined)
            scores = self.score(pairs)[..., 0]
            return torch.cat([scores.new_zeros(len(current), 1), scores], 1)

    def _reads_frame(self) -> bool:
        return self.config.frame_branch and (self.training or self.config.frame_branch_at_test)

    def _read(self, known: Tensor, frame: Tensor, boxes: Tensor, refined: Tensor | None) -> Tensor:
        samples = 2 * self.config.resolution  # two readings a bin each way, as for regions
        if refined is not None:
            return box_average(refined.float(), boxes, samples)
        # at test only the averages are kept, so that a large memory of objects costs no more maps than a chunk
        parts = known.split(CHUNK) if len(known) else (known,)
        return torch.cat([box_average(self.refine(part, frame), boxes, samples) for part in parts], 1)

    def map_loss(
        self,
        known: Float[Tensor, "M C r r"],
        frame: Float[Tensor, "C H W"],
        boxes: Float[Tensor, "M 4"],
        refined: Float[Tensor, "M C H W"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean squared error of the correlation maps after a sigmoid, times `map_weight`; 0 without references.

        `boxes` are the references' boxes in the current frame, in cells; zeros where the object is absent.
        """
        if self.conv2 is None:
            return frame.new_zeros((), dtype=torch.float32)
        with torch.autocast(frame.device.type, enabled=False):
            maps = self.conv2(self.refine(known, frame) if refined is None else refined.float())[:, 0]  # [M, H, W]
            error = (maps.sigmoid() - gaussian(boxes.float(), (frame.shape[-2], frame.shape[-1]))).square()
            return self.config.map_weight * error.sum() / max(error.numel(), 1)


class CorrelationConfig(Config):
    """The tracker's readings of unclear points; `level` and `resolution` say what the host cuts regions from."""

    kind: Literal["correlation"] = "correlation"
    channels: int | None = Field(default=None, ge=1)  # between the two 1x1 convolutions; None: as many as the maps have
    resolution: int = Field(default=7, ge=1, le=64)  # cells of a region
    level: Literal["P3", "P4", "P5"] = "P4"  # the map that references are correlated over
    frame_branch: bool = True  # off: object to object alone
    frame_branch_at_test: bool = True  # off: the frame helps in training only
    average_frame: bool = False  # divide the frame's correlation by r^2 too, as the objects' is
    map_weight: float = Field(default=1.0, ge=0)

    def build(self, channels: int) -> CorrelationMatch:
        """For maps of that many channels."""
        return CorrelationMatch(self, channels)
