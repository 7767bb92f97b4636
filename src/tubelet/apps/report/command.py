"""`tubelet report`: measure predictions in every way, then `page.render` writes one page about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tubelet.apps.report import film
from tubelet.apps.report.result import Result
from tubelet.core.atomic import check_file, replacing
from tubelet.core.errors import ConfigError
from tubelet.core.text import plain
from tubelet.evaluation import cases, diagnosis, identity, significance, ytvis
from tubelet.evaluation.costs import costs
from tubelet.evaluation.pairing import pair
from tubelet.evaluation.partners import match
from tubelet.formats import ytvis as files
from tubelet.formats.ytvis.document import Faults
from tubelet.formats.ytvis.numbering import AnnotatedSet

NAME = "report.html"
SEED = 0  # of the bootstrap: the same files give the same page


def write(
    truth: Path,
    predictions: Sequence[Path],
    out: Path,
    *,
    frames: Path | None = None,
    jobs: int = 1,
    lenient: bool = False,
) -> Path:
    """Write `report.html` into a folder, completely or not at all; returns its path."""
    from tubelet.apps.report.page import render

    if len({path.stem for path in predictions}) < len(predictions):
        names = [path.stem for path in predictions]
        raise ConfigError(f"files to compare need names of their own, got {', '.join(names)}")
    check_file(out / NAME)
    videos = files.read(truth, frames, faults=Faults(lenient=lenient))
    results: list[Result] = []
    for path in predictions:
        results.append(measure(path, videos, results[0] if results else None, jobs=jobs, lenient=lenient))
    page = render(truth.name, videos, results, frames=frames is not None or film.has_frames(videos.videos))
    with replacing(out / NAME) as temporary:
        temporary.write_text(plain(page), encoding="utf-8")
    return out / NAME


def measure(path: Path, videos: AnnotatedSet, first: Result | None, *, jobs: int, lenient: bool) -> Result:
    """Measure one file of predictions, and compare it with the first one if given."""
    faults = Faults(lenient=lenient)
    answers = files.read_predictions(path, videos, faults=faults)
    pairs = pair(videos.videos, answers)
    matches = match(pairs, ytvis.AREAS, jobs=jobs)
    curves = ytvis.curves(matches)
    numbered = cases.cases(pairs, jobs=jobs)
    failures = diagnosis.failures(numbered)
    _, by_kind, rest = costs(numbered, failures)
    rng = np.random.default_rng(SEED)
    return Result(
        name=path.stem,
        predictions=answers,
        matches=matches,
        curves=curves,
        numbers=ytvis.numbers(curves),
        identity=identity.sweep(videos.videos, answers, jobs=jobs),
        cases=numbered,
        failures=failures,
        costs=by_kind,
        rest=rest,
        spread=significance.spread(matches, rng),
        gain=None if first is None else significance.compare(first.matches, matches, np.random.default_rng(SEED)),
        faults=faults,
    )
