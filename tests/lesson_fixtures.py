"""Labels of small films, as a training on the page writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toy import Toy, moving_patches
from tubelet.apps.web import results
from tubelet.apps.web.jobs import lessons
from tubelet.apps.web.jobs.trainings import LESSONS
from tubelet.inference.predict import predict
from tubelet.video.writer import VideoWriter

SIZE, LENGTH = (48, 64), 10


def write_lessons(
    folder: Path,
    videos: Sequence[tuple[str, ...]],
    frames: list[int] | None = None,
    classes: Sequence[str] = Toy.classes,
    last: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Write the labels of videos with patches of these colours, and `last` in their last frame; returns the notes."""
    rows = []
    for number, colours in enumerate(videos):
        source = folder / f"{number}.mp4"
        with VideoWriter(source, SIZE, 10) as writer:
            for frame in [
                *moving_patches(LENGTH, SIZE, colours)[:-1],
                moving_patches(LENGTH, SIZE, (*colours, *last))[-1],
            ]:
                writer.write(frame)
        results.write(folder / f"{number}.json.gz", predict(Toy(shrink=1), source))
        lesson = lessons.Lesson(result=f"{number}.json.gz", source=str(source), name=f"film {number}", frames=frames)
        rows.append(asdict(lesson))
    (folder / LESSONS).write_text(json.dumps(rows))
    lessons.write_lessons(folder, 0.5, classes, lambda done, total: None)
    return lessons.notes_of(folder)
