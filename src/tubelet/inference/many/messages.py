"""Videos and outcomes as JSON, for processes that share a list of videos.

Python keeps the bytes of a file name that are not UTF-8 as lone surrogates, which strict JSON refuses. So sources
travel percent-encoded and arrive as they were; all other text is for people and is made plain.
"""

from __future__ import annotations

from dataclasses import asdict
from urllib.parse import quote, unquote

from tubelet.core.text import to_json
from tubelet.core.untrusted.documents import decode_json
from tubelet.core.untrusted.files import Buffer
from tubelet.inference.many.batch import VideoJob, VideoOutcome


def encode_job(job: VideoJob) -> str:
    r"""A video as JSON; any file name is allowed.

    >>> from tubelet.inference.many.batch import VideoJob
    >>> encode_job(VideoJob("/bad\udcff.mp4", "bad"))
    '["/bad%ED%B3%BF.mp4", "bad", null, null, null]'
    """
    frames = None if job.frames is None else _encode_source(job.frames)
    return to_json([_encode_source(job.source), job.name, job.number, job.form, frames])


def decode_job(message: Buffer | str) -> VideoJob:
    r"""The video of `encode_job`, unchanged. Raises FormatError for a message that is not JSON.

    >>> decode_job('["/bad%ED%B3%BF.mp4", "bad", null, null, null]').source
    '/bad\udcff.mp4'
    """
    source, name, number, form, frames = decode_json(message, "a video to segment")
    return VideoJob(_decode_source(source), name, number, form, None if frames is None else _decode_source(frames))


def encode_outcome(outcome: VideoOutcome) -> str:
    """An outcome as JSON; its note becomes plain text.

    >>> from tubelet.inference.many.batch import VideoOutcome
    >>> message = encode_outcome(VideoOutcome(video="/a.mp4", folder="a", status="done", objects=2))
    >>> decode_outcome(message).objects
    2
    """
    fields = asdict(outcome)
    fields["video"] = _encode_source(outcome.video)
    return to_json(fields)


def decode_outcome(message: Buffer | str) -> VideoOutcome:
    """The outcome of `encode_outcome`. Raises FormatError for a message that is not JSON.

    >>> decode_outcome('{"video": "/a.mp4", "folder": "a", "status": "failed"}').status
    'failed'
    """
    fields = decode_json(message, "the outcome of a video")
    fields["video"] = _decode_source(fields["video"])
    return VideoOutcome(**fields)


def _encode_source(source: str) -> str:
    return quote(source, errors="surrogatepass")


def _decode_source(text: str) -> str:
    return unquote(text, errors="surrogatepass")
