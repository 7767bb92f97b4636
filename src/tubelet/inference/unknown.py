"""Name an object "unknown" where its class is in doubt: output for people, who read a wrong name as a mistake."""

from __future__ import annotations

from dataclasses import replace

from tubelet.core.records import AnyPrediction

UNKNOWN = "unknown"


def with_unknown(prediction: AnyPrediction, below: float) -> AnyPrediction:
    """Add the class "unknown", last, and give it to the tracks whose score is lower than `below`.

    Example:
        >>> from tubelet.inference.unknown import with_unknown
        >>> doubtful = tubelet.Track(id=1, label=0, score=0.6, rles=(None,))
        >>> sure = tubelet.Track(id=2, label=0, score=0.9, rles=(None,))
        >>> prediction = tubelet.Prediction(
        ...     video="v", size=(4, 6), length=1, tracks=(doubtful, sure), classes=("sheep",)
        ... )
        >>> named = with_unknown(prediction, below=0.7)
        >>> [named.classes[track.label] for track in named.tracks]
        ['unknown', 'sheep']
    """
    label = len(prediction.classes)
    tracks = tuple(replace(track, label=label) if track.score < below else track for track in prediction.tracks)
    return replace(prediction, tracks=tracks, classes=(*prediction.classes, UNKNOWN))
