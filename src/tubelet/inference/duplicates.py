"""Leave out objects that were found twice: output for people, where benchmarks rank all that was found.

Mask transformers often find an object with several queries. Average precision only ranks the extra ones below the best;
a person sees every object several times, and IDF1 and MOTA count them as false.
"""

from __future__ import annotations

from collections.abc import Sequence

from tubelet.core import masks
from tubelet.core.arguments import fraction
from tubelet.core.types import Track


def without_duplicates(tracks: Sequence[Track], overlap: float) -> tuple[Track, ...]:
    """Remove tracks that overlap one with a better score, whatever the classes; the order stays.

    Args:
        tracks: Of one video.
        overlap: A track is a duplicate if its spatio-temporal IoU with a better one that stays is
            larger than this.

    Raises:
        ConfigError: if `overlap` is not from 0 to 1.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.inference.duplicates import without_duplicates
        >>> rle = masks.encode(np.ones((1, 8, 8), bool))[0]
        >>> worse = tubelet.Track(id=1, label=0, score=0.6, rles=(rle, rle))
        >>> better = tubelet.Track(id=2, label=1, score=0.9, rles=(rle, None))
        >>> [track.id for track in without_duplicates([worse, better], overlap=0.4)]
        [2]
    """
    overlap = fraction("distinct", overlap)
    ranked = sorted(range(len(tracks)), key=lambda n: -tracks[n].score)

    chosen: list[int] = []
    for n in ranked:
        ious = (masks.spatio_temporal_iou(tracks[n].rles, tracks[better].rles) for better in chosen)
        if not any(iou > overlap for iou in ious):
            chosen.append(n)
    return tuple(tracks[n] for n in sorted(chosen))
