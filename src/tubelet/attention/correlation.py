"""CompFeat's correlation tracker: match scores from object to object and object to frame.

    (a)  v1_ij = sum_p r_j(p) x_i(p) / r^2                 depth-wise: one number per channel
    (b)  M_j   = ReLU(Conv1((r_j * f) / r^2))              r_j correlated depth-wise over the whole map, same padding
         m_j   = Conv2(M_j)                                the correlation map, learned towards a Gaussian at the object
         v2_ij = mean of M_j over the box of x_i
    (c)  score_ij = W2 ReLU(W1 (v1_ij + v2_ij))            two 1x1 convolutions: linear layers over pairs

    x_i     current     regions of N detections          N C r r
    r_j     known       regions of M references          M C r r
    f       frame       the map of the current frame     C H W
    M_j     refined     C channels                       M C H W

Source: docs/papers/compfeat.md, figure 4 of the paper. Boxes are in cells of `frame`: cell (x, y)
covers [x, x + 1).
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


def object_object(
    detections: Float[Tensor, "N C r r"],
    references: Float[Tensor, "M C r r"],
) -> Float[Tensor, "N M C"]:
    """Correlate each detection with each reference, channel by channel: (a).

    Example:
        >>> from tubelet.attention.correlation import object_object
        >>> object_object(torch.full((1, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), 2.0))
        tensor([[[6.],
                 [6.]]])
    """
    cells = detections.shape[-1] * detections.shape[-2]
    return torch.einsum("nchw,mchw->nmc", detections, references) / cells


def object_frame(
    references: Float[Tensor, "M C r r"],
    frame: Float[Tensor, "C H W"],
) -> Float[Tensor, "M C H W"]:
    """Correlate each reference with every position of the frame: (b), before Conv1.

    The frame is padded with zeros.

    Example:
        >>> from tubelet.attention.correlation import object_frame
        >>> object_frame(torch.ones(2, 4, 3, 3), torch.ones(4, 5, 6)).shape
        torch.Size([2, 4, 5, 6])
    """
    num_references, channels = references.shape[:2]
    if not num_references:
        return frame.new_zeros(0, *frame.shape) * references.sum()

    kernels = references.transpose(0, 1).flatten(0, 1)[:, None]  # [C M, 1, r, r]
    before = (references.shape[-1] - 1) // 2
    after = references.shape[-1] // 2
    padded = F.pad(frame[None], (before, after, before, after))
    maps = F.conv2d(padded, kernels, groups=channels)  # [1, C M, H, W]
    return maps[0].unflatten(0, (channels, num_references)).transpose(0, 1)


def gaussian(boxes: Float[Tensor, "M 4"], size: tuple[int, int]) -> Float[Tensor, "M H W"]:
    """Draw the target of the correlation map: a Gaussian at the centre of each box.

    It is exactly 1 in the cell that contains the centre, and zero everywhere for an empty box. Its
    standard deviation is a sixth of the box's width and height, but at least one cell.

    Args:
        boxes: (x1, y1, x2, y2) in cells.
        size: Height and width in cells.

    Example:
        >>> from tubelet.attention.correlation import gaussian
        >>> (target,) = gaussian(torch.tensor([[1.0, 0.0, 4.0, 1.0]]), size=(1, 4))
        >>> target
        tensor([[0.1353, 0.6065, 1.0000, 0.6065]])
    """
    corner = boxes[:, :2]
    opposite = boxes[:, 2:]
    extent = opposite - corner
    limit = boxes.new_tensor([size[1] - 1, size[0] - 1])
    centre = torch.minimum(((corner + opposite) / 2).floor().clamp(min=0), limit)
    sigma = (extent / 6).clamp(min=1)

    x = torch.arange(size[1], device=boxes.device) - centre[:, :1]  # [M, W]
    y = torch.arange(size[0], device=boxes.device) - centre[:, 1:]  # [M, H]
    exponent = (y / sigma[:, 1:]).square()[:, :, None] + (x / sigma[:, :1]).square()[:, None]
    return (-exponent / 2).exp() * (extent > 0).all(1)[:, None, None]


def box_average(
    maps: Float[Tensor, "M C H W"],
    boxes: Float[Tensor, "N 4"],
    samples: int,
) -> Float[Tensor, "N M C"]:
    """Average each map over each box: v2 of (b).

    The mean of samples x samples bilinear readings, as an aligned RoIAlign takes them. It is a
    product of one weight per row and one per column, so N boxes read M maps in two matrix products.

    Example:
        >>> from tubelet.attention.correlation import box_average
        >>> maps = torch.arange(4.0).expand(1, 1, 4, 4)  # each cell's column
        >>> box_average(maps, torch.tensor([[1.0, 0.0, 3.0, 4.0]]), samples=2)
        tensor([[[1.5000]]])
    """
    column_weights = _line_weights(boxes[:, 0], boxes[:, 2], maps.shape[3], samples)  # [N, W]
    row_weights = _line_weights(boxes[:, 1], boxes[:, 3], maps.shape[2], samples)  # [N, H]
    rows = torch.einsum("mchw,nw->nmch", maps, column_weights)
    return torch.einsum("nmch,nh->nmc", rows, row_weights)


def _line_weights(start: Tensor, stop: Tensor, length: int, samples: int) -> Tensor:
    """Weight of each cell in the mean of evenly spaced readings from start to stop, [N, length]."""
    steps = (torch.arange(samples, device=start.device) + 0.5) / samples
    points = start[:, None] + steps * (stop - start)[:, None] - 0.5  # [N, samples], in units of cell centres
    inside = (points >= -1) & (points <= length)  # beyond that, RoIAlign reads zeros
    cells = torch.arange(length, device=start.device)
    weights = (1 - (points.clamp(0, length - 1)[..., None] - cells).abs()).clamp(min=0)  # [N, samples, length]
    return (weights * inside[..., None]).mean(1)


class CorrelationMatch(nn.Module):
    """Match head: logits between detections and known objects, from correlations.

    Example:
        >>> from tubelet.attention.correlation import CorrelationConfig
        >>> head = CorrelationConfig().build(channels=8)
        >>> current, known = torch.rand(2, 8, 7, 7), torch.rand(3, 8, 7, 7)
        >>> frame = torch.rand(8, 12, 20)
        >>> boxes = torch.tensor([[1.0, 1.0, 5.0, 5.0], [2.0, 3.0, 9.0, 8.0]])
        >>> head(current, known, frame, boxes).shape
        torch.Size([2, 4])
    """

    def __init__(self, config: CorrelationConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        width = config.channels or channels
        # conv1 keeps the channels, because v2 is added to v1
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1) if config.frame_branch else None
        self.conv2 = nn.Conv2d(channels, 1, 1) if config.frame_branch else None
        first = nn.Linear(channels, width)
        last = nn.Linear(width, 1)
        self.score = nn.Sequential(first, nn.ReLU(), last)
        if config.score_std is not None:
            nn.init.normal_(last.weight, std=config.score_std)
            nn.init.zeros_(last.bias)

    def describe(self, regions: Float[Tensor, "N C r r"]) -> Float[Tensor, "N C r r"]:
        """Return what memory stores of each object: its region, unchanged."""
        return regions

    def refine(
        self,
        known: Float[Tensor, "M C r r"],
        frame: Float[Tensor, "C H W"],
    ) -> Float[Tensor, "M C H W"]:
        """Compute M_j of (b), for `forward` and `map_loss`; only with the frame branch."""
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
        """Compute match logits in float32; column 0 is exactly 0 and stands for a new object.

        Args:
            current: Regions of the detections.
            known: Regions of the references.
            frame: The map of the detections' frame.
            boxes: The detections' boxes in cells of `frame`.
            refined: Result of `refine` for the same references, if it is already computed.
        """
        with torch.autocast(current.device.type, enabled=False):
            pairs = object_object(current.float(), known.float())  # [N, M, C]
            if self._uses_frame():
                pairs = pairs + self._box_averages(known, frame, boxes.float(), refined)
            scores = self.score(pairs)[..., 0]
            return torch.cat([scores.new_zeros(len(current), 1), scores], 1)

    def _uses_frame(self) -> bool:
        return self.config.frame_branch and (self.training or self.config.frame_branch_at_test)

    def _box_averages(
        self,
        known: Tensor,
        frame: Tensor,
        boxes: Tensor,
        refined: Tensor | None,
    ) -> Tensor:
        """v2 of every detection and reference, [N, M, C]."""
        samples = 2 * self.config.resolution  # two readings a bin each way, as for regions
        if refined is not None:
            return box_average(refined.float(), boxes, samples)

        # chunk by chunk, so that memory does not grow with the number of references
        parts = known.split(CHUNK) if len(known) else (known,)
        averages = [box_average(self.refine(part, frame), boxes, samples) for part in parts]
        return torch.cat(averages, 1)

    def map_loss(
        self,
        known: Float[Tensor, "M C r r"],
        frame: Float[Tensor, "C H W"],
        boxes: Float[Tensor, "M 4"],
        refined: Float[Tensor, "M C H W"] | None = None,
    ) -> Float[Tensor, ""]:
        """Compute the mean squared error of the maps after a sigmoid, times `map_weight`.

        0 without references or without the frame branch.

        Args:
            known: Regions of the references.
            frame: The map of the current frame.
            boxes: The references' boxes in the current frame, in cells; zeros where the object is
                absent.
            refined: Result of `refine` for the same references, if it is already computed.
        """
        if self.conv2 is None:
            return frame.new_zeros((), dtype=torch.float32)
        with torch.autocast(frame.device.type, enabled=False):
            features = self.refine(known, frame) if refined is None else refined.float()
            maps = self.conv2(features)[:, 0]  # [M, H, W]
            target = gaussian(boxes.float(), (frame.shape[-2], frame.shape[-1]))
            error = (maps.sigmoid() - target).square()
            return self.config.map_weight * error.sum() / max(error.numel(), 1)


class CorrelationConfig(Config):
    """Settings of the correlation tracker; the host cuts regions of `resolution` from map `level`.

    Example:
        >>> from tubelet.attention.correlation import CorrelationConfig
        >>> CorrelationConfig(frame_branch=False).build(channels=8).conv1 is None
        True
    """

    kind: Literal["correlation"] = "correlation"
    channels: int | None = Field(default=None, ge=1)  # between the two 1x1 convolutions; None: as many as the maps have
    resolution: int = Field(default=7, ge=1, le=64)  # cells of a region
    level: Literal["P3", "P4", "P5"] = "P4"  # the map that references are correlated over
    frame_branch: bool = True  # off: object to object alone
    frame_branch_at_test: bool = True  # off: the frame branch helps in training only
    average_frame: bool = True  # divide by r^2 in (b) as in (a), so that v1 and v2 have one scale; off: a plain sum
    score_std: float | None = Field(default=None, gt=0)  # of the score's last layer's start; None: torch's own
    map_weight: float = Field(default=1.0, ge=0)

    def build(self, channels: int) -> CorrelationMatch:
        """Build the match head for maps of this many channels."""
        return CorrelationMatch(self, channels)
