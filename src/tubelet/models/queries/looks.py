"""What a query attends to in the decoder's last layer, as weights over the cells of frames (`tubelet attend`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from tubelet.core.protocol import Glance

MOST_FRAMES = 6  # shown of a clip, which may be the whole video


class QueryLook(NamedTuple):
    """The weights of one attention in one frame of the clip."""

    name: str
    t: int  # frame of the clip
    weights: Tensor  # [L], over the padded cells of the last layer's scale


def shown_frames(length: int, t: int) -> list[int]:
    """Choose the frames of a clip to show: all of a short one, else some evenly, and always frame `t`.

    Example:
        >>> from tubelet.models.queries.looks import shown_frames
        >>> shown_frames(length=4, t=1), shown_frames(length=100, t=40)
        ([0, 1, 2, 3], [0, 20, 40, 59, 79, 99])
    """
    if length <= MOST_FRAMES:
        return list(range(length))

    frames = [round(n * (length - 1) / (MOST_FRAMES - 1)) for n in range(MOST_FRAMES)]
    nearest = min(range(MOST_FRAMES), key=lambda n: abs(frames[n] - t))
    frames[nearest] = t
    return frames


def with_share(name: str, share: Tensor | float) -> str:
    """Add the share of all weights to a name, since each picture is scaled by its own maximum.

    Example:
        >>> from tubelet.models.queries.looks import with_share
        >>> with_share("clip query 7", 0.125)
        'clip query 7, 12 %'
    """
    return f"{name}, {100 * float(share):.0f} %"


def to_glances(
    looks: Sequence[QueryLook],
    index: Tensor,
    padded: tuple[int, int],
    shape: tuple[int, int],
    size: tuple[int, int],
) -> list[Glance]:
    """Convert weights over padded cells to glances over the frame.

    Args:
        looks: Of a clip.
        index: Numbers of the clip's frames in the video, [T].
        padded: Height and width of the padded network input.
        shape: Rows and columns of the scale, h * w = L.
        size: Height and width of the network input without padding.

    Example:
        >>> from tubelet.models.queries.looks import QueryLook, to_glances
        >>> look = QueryLook("cross-attention", t=1, weights=torch.ones(12))
        >>> index = torch.tensor([7, 8])
        >>> (glance,) = to_glances([look], index, padded=(96, 128), shape=(3, 4), size=(60, 128))
        >>> glance.frame, glance.values.shape
        (8, torch.Size([2, 4]))
    """
    rows = -(-size[0] * shape[0] // padded[0])
    columns = -(-size[1] * shape[1] // padded[1])
    glances = []
    for look in looks:
        values = look.weights.unflatten(0, shape)[:rows, :columns]
        glances.append(Glance(name=look.name, frame=int(index[look.t]), values=values.float()))
    return glances
