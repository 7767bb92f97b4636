"""What the attentions of the tag-based system attend to, as weights over the cells of frames: for `tubelet attend`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from tubelet.attention.tags import FrameReading, SelfReading
from tubelet.core.protocol import Glance

NAMES = {
    "spatio_temporal": "spatio-temporal attention",
    "tag_attention": "tag attention",
    "self_attention": "self-attention",
}
MOST_FRAMES = 4  # shown of a clip beside the frame asked about


class Point(NamedTuple):
    """A point of one frame of a clip.

    Example:
        >>> from tubelet.models.tags.glances import Point
        >>> Point(t=2, x=0.5, y=0.25).cell(height=4, width=8)
        12
    """

    t: int  # frame of the clip
    x: float  # from 0 to 1, of the frame's width
    y: float  # from 0 to 1, of the frame's height

    def cell(self, height: int, width: int) -> int:
        """Return the number of the cell with the point, row by row."""
        row = min(int(self.y * height), height - 1)
        column = min(int(self.x * width), width - 1)
        return row * width + column


def has_attention(network: nn.Module) -> bool:
    """Whether any of the attentions is on.

    Example:
        >>> from tubelet.attention.tags import SelfReadingConfig
        >>> from tubelet.models.tags.glances import has_attention
        >>> has_attention(torch.nn.Sequential(SelfReadingConfig().build(8))), has_attention(torch.nn.ReLU())
        (True, False)
    """
    return any(isinstance(module, FrameReading | SelfReading) for module in network.modules())


@contextmanager
def inputs_of_attentions(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the features that each attention gets, by the module's name, while the network runs.

    Example:
        >>> from tubelet.attention.tags import SelfReadingConfig
        >>> from tubelet.models.tags.glances import inputs_of_attentions
        >>> network = torch.nn.Sequential(SelfReadingConfig().build(8))
        >>> with inputs_of_attentions(network) as inputs:
        ...     _ = network(torch.rand(1, 8, 2, 3, 5))
        >>> inputs["0"].shape
        torch.Size([1, 8, 2, 3, 5])
    """
    inputs: dict[str, Tensor] = {}
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, FrameReading | SelfReading):

            def record(_: nn.Module, arguments: tuple[Tensor], name: str = name) -> None:
                inputs[name] = arguments[0]

            handles.append(module.register_forward_pre_hook(record))
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def glances(network: nn.Module, inputs: dict[str, Tensor], point: Point, index: Tensor) -> list[Glance]:
    """Return the attention weights of a point.

    Spatio-temporal and tag attention read the point's frame with the queries of all frames at that point. What the
    query of the point's own frame reads in other frames is shown too, for some of them.

    Args:
        network: Whose attentions got the inputs.
        inputs: From `inputs_of_attentions`, B = 1.
        point: Of one frame of the clip.
        index: Numbers of the clip's frames in the video, [T].
    """
    shown: list[Glance] = []
    for name, module in network.named_modules():
        if name not in inputs:
            continue
        features = inputs[name].float()  # under autocast they may be bfloat16
        cell = point.cell(features.shape[-2], features.shape[-1])
        title = NAMES.get(name, name)
        if isinstance(module, SelfReading):
            shown.append(_glance(title, index[point.t], module.weights(features, point.t, cell)))
        elif isinstance(module, FrameReading):
            weights = module.weights(features, cell)  # [T, T, H, W]
            shown.append(_glance(title, index[point.t], weights[:, point.t].mean(0)))
            others = _other_frames(len(index), point.t)
            reader = f"{title}, read from frame {int(index[point.t])}"
            shown += [_glance(reader, index[t], weights[point.t, t]) for t in others]
    return shown


def _glance(name: str, frame: Tensor, values: Tensor) -> Glance:
    return Glance(name=name, frame=int(frame), values=values.float())


def _other_frames(length: int, t: int) -> list[int]:
    """Some frames of the clip, evenly, without frame `t`."""
    others = [n for n in range(length) if n != t]
    count = min(MOST_FRAMES, len(others))
    return [others[round(n * (len(others) - 1) / max(count - 1, 1))] for n in range(count)]
