"""The page that `tubelet report` writes: one file without scripts or network requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from tubelet.apps.report import charts, film
from tubelet.apps.report.result import Result
from tubelet.apps.report.style import STYLE
from tubelet.core.records import Track
from tubelet.drawing.colours import colour
from tubelet.evaluation.cases import CONFIDENT, overlap_of
from tubelet.evaluation.diagnosis import DUPLICATE, FALSE, IDENTITY, LOOSE, Failure
from tubelet.evaluation.identity import MAIN, THRESHOLD
from tubelet.evaluation.tables import shown
from tubelet.evaluation.ytvis import RECALLS, per_class, per_threshold
from tubelet.formats.ytvis.numbering import AnnotatedSet

WORST = 6  # videos shown as film strips
PICTURES = 6  # of a strip
LISTED = 40  # failures of a kind that are listed one by one

EXPLAINED = {
    "identity switch": "two objects exchange their tracks, or a track jumps to another object",
    "identity change": "an object goes on under a new track",
    "instance merge": "one mask covers two objects",
    "instance lost": "an object that was followed is followed no more",
    "misclassified": "the right object under a wrong class",
    "duplicate": "an object found a second time",
    "false object": "a track of nothing",
    "loose mask": "the right object, too roughly for the strictest threshold",
    "missed": "an object that no track explains",
}


def render(truth: str, videos: AnnotatedSet, results: Sequence[Result], *, frames: bool) -> str:
    """Render the whole page as HTML."""
    names = [result.name for result in results]
    tracks = sum(len(video.tracks or ()) for video in videos.videos)
    head = f"{len(videos.videos)} videos, {tracks} objects, {len(videos.classes)} classes in {escape(truth)}"
    sections = [
        ("Numbers", _numbers(results)),
        ("Why not better", _failures(results)),
        ("Precision", _precision(results)),
        ("Classes", _classes(videos, results)),
        ("Identity", _identity(results)),
        ("The worst videos", _worst(videos, results, frames)),
    ]
    body = "".join(f"<section><h2>{title}</h2>{content}</section>" for title, content in sections)
    title = escape(" against ".join(names)) if len(names) > 1 else escape(names[0])
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>"
        f"<body><header><h1>{title}</h1><p>{head}</p></header>{body}</body></html>\n"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Render a table; its cells are HTML already."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="{kind}"><tr>{head}</tr>{lines}</table></div>'


def _numbers(results: Sequence[Result]) -> str:
    keys = list(results[0].numbers)
    rows = [[escape(result.name), *(shown(result.numbers[key]) for key in keys)] for result in results]
    parts = [table(["", *keys], rows, "numbers")]
    spreads = [
        [escape(r.name), shown(r.spread.value), f"{shown(r.spread.low)} to {shown(r.spread.high)}"] for r in results
    ]
    columns = ["", "AP", "95 % interval over videos"]
    if len(results) > 1:
        columns += [f"against {results[0].name}", "95 % interval", "verdict"]
        spreads = [[*row, *_verdict(result)] for row, result in zip(spreads, results, strict=True)]
    parts.append(table(columns, spreads, "numbers"))
    parts.append(
        '<p class="note">Intervals: videos drawn with replacement, 1000 times; differences on the same draws.</p>'
    )
    for result in results:
        for kind, count in result.faults.counts.items():
            parts.append(f'<p class="note">{escape(result.name)}: {count} left out for {escape(kind)}.</p>')
    return "".join(parts)


def _verdict(result: Result) -> list[str]:
    gain = result.gain
    if gain is None:
        return ["", "", ""]
    verdict = "may be luck" if gain.is_noise else "better" if gain.value > 0 else "worse"
    return [f"{100 * gain.value:+.1f}", f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}", f"<b>{verdict}</b>"]


def _failures(results: Sequence[Result]) -> str:
    parts = []
    for result in results:
        rows = []
        for kind, cost in result.costs.items():
            sure = sum(failure.kind == kind and failure.score >= CONFIDENT for failure in result.failures)
            rows.append(
                [
                    f"<b>{kind}</b><br><small>{EXPLAINED[kind]}</small>",
                    str(cost.times),
                    str(sure) if kind != "missed" else "",
                    shown(cost.alone) if cost.times else "",
                    charts.share(cost.share),
                ]
            )
        rows.append(["rest", "", "", "", charts.share(result.rest)])
        columns = ["failure", "times", f"score >= {CONFIDENT}", "AP if mended", "share of the lost AP"]
        parts.append(f"<h3>{escape(result.name)}: AP {shown(result.numbers['AP'])}</h3>")
        parts.append(table(columns, rows, "failures"))
        parts.append("".join(_listing(kind, result) for kind in result.costs))
    return "".join(parts)


def _listing(kind: str, result: Result) -> str:
    """List the failures of one kind, the most confident first."""
    found = sorted((f for f in result.failures if f.kind == kind), key=lambda f: -f.score)
    if not found:
        return ""
    rows = [
        [
            escape(f.video),
            _spans(f.frames),
            ", ".join(map(str, f.truths)),
            ", ".join(map(str, f.tracks)),
            shown(f.score),
        ]
        for f in found[:LISTED]
    ]
    left = f", the first {LISTED}" if len(found) > LISTED else ""
    inner = table(["video", "frames", "truth", "tracks", "score"], rows)
    return f"<details><summary>{kind}: {len(found)}{left}</summary>{inner}</details>"


def _spans(frames: Sequence[int]) -> str:
    """Write frame numbers as ranges: 3, 4, 5, 9 becomes 3-5, 9."""
    if not frames:
        return ""
    breaks = np.flatnonzero(np.diff(frames) > 1) + 1
    parts = np.split(np.array(frames), breaks)
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _precision(results: Sequence[Result]) -> str:
    def curve(result: Result, threshold: int | slice) -> list[tuple[float, float]]:
        values = result.curves.precision[:, 0, threshold]
        counted = values[result.curves.precision[:, 0, 0, 0] > -1]
        mean = counted.reshape(-1, len(RECALLS)).mean(0) if len(counted) else np.zeros(len(RECALLS))
        return list(zip(RECALLS.tolist(), mean.tolist(), strict=True))

    kinds: dict[str, int | slice] = {"overlap 0.50": 0, "overlap 0.75": 5, "all thresholds": slice(None)}
    figures = [
        charts.lines({result.name: curve(result, choice) for result in results}, "recall", f"precision, {name}")
        for name, choice in kinds.items()
    ]
    by_threshold = {
        result.name: [(float(t), max(row["AP"], 0.0)) for t, row in per_threshold(result.curves).items()]
        for result in results
    }
    figures.append(charts.lines(by_threshold, "threshold of overlap", "AP by threshold"))
    return f'<div class="figures">{"".join(figures)}</div>'


def _classes(videos: AnnotatedSet, results: Sequence[Result]) -> str:
    tables = [per_class(result.curves, videos.classes) for result in results]
    rows = {name: [one.get(name, {}).get("AP", -1.0) for one in tables] for name in tables[0]}
    ordered = dict(sorted(rows.items(), key=lambda item: -item[1][0]))
    return charts.bars(ordered, [result.name for result in results])


def _identity(results: Sequence[Result]) -> str:
    at = min(results[0].identity, key=lambda threshold: abs(threshold - THRESHOLD))
    rows = [[escape(result.name), *(shown(result.identity[at][key]) for key in MAIN)] for result in results]
    figures = [
        charts.lines(
            {result.name: [(t, max(row[key], -0.5)) for t, row in result.identity.items()] for result in results},
            "threshold of score",
            key,
            low=-0.5 if key == "MOTA" else 0.0,
        )
        for key in ("IDF1", "MOTA", "HOTA")
    ]
    how = "Tight boxes, overlap 0.5, whatever the class, by the rules of py-motmetrics"
    note = f'<p class="note">{how}; scores from {at:.2f}.</p>'
    return table(["", *MAIN], rows, "numbers") + note + f'<div class="figures">{"".join(figures)}</div>'


def _worst(videos: AnnotatedSet, results: Sequence[Result], frames: bool) -> str:
    badness = np.sum([list(_badness(result)) for result in results], axis=0)
    order = np.argsort(-badness, kind="stable")[:WORST]
    parts = [_video(videos, results, int(place), frames) for place in order if badness[place] > 0.05]
    note = (
        ""
        if frames
        else '<p class="note">No frames were found: masks are shown on grey. Name their folder with --frames.</p>'
    )
    return note + ("".join(parts) or "<p>None: every object is found.</p>")


def _badness(result: Result) -> Iterator[float]:
    """How bad each video is: overlap that its objects lack, plus confident false and duplicate tracks."""
    extra: dict[int, int] = {}
    for failure in result.failures:
        if failure.kind in (FALSE, DUPLICATE) and failure.score >= CONFIDENT:
            extra[failure.video_index] = extra.get(failure.video_index, 0) + 1
    for place, case in enumerate(result.cases):
        overlap = overlap_of(case.shared, case.truth_area, case.area)
        right = np.where(case.labels[:, None] == case.truth_labels, overlap, 0.0)
        found = right.max(0) if len(right) else np.zeros(right.shape[1])
        yield float((1 - found).sum()) + extra.get(place, 0)


def _video(videos: AnnotatedSet, results: Sequence[Result], place: int, frames: bool) -> str:
    video = videos.videos[place]
    telling = [_telling(result.failures, place) for result in results]
    shown_frames = film.chosen(len(video), _moments([one for found in telling for one in found]), PICTURES)
    rows: list[tuple[str, Sequence[Track], list[Failure]]] = [("truth", video.tracks or (), [])]
    rows += [
        (result.name, _sure(result.predictions[place].tracks), found)
        for result, found in zip(results, telling, strict=True)
    ]
    parts = [f"<h3>{escape(videos.names[place])} <small>video {escape(video.id)}, {len(video)} frames</small></h3>"]
    for name, tracks, found in rows:
        cells = []
        for t in shown_frames:
            kinds = sorted({failure.kind for failure in found if t in failure.frames})
            source = film.picture(video, t, tracks, videos.classes, frames=frames)
            told = f"<b>{t}</b> {escape(', '.join(kinds))}"
            mark = ' class="failing"' if kinds else ""
            cells.append(f'<figure{mark}><img alt="frame {t}" src="{source}"><figcaption>{told}</figcaption></figure>')
        parts.append(f'<h4>{escape(name)}</h4><div class="strip">{"".join(cells)}</div>')
    for result, found in zip(results, telling, strict=True):
        parts.append(f"<h4>{escape(result.name)}: who holds which object</h4>{_timeline(videos, result, place, found)}")
    return f"<article>{''.join(parts)}</article>"


def _telling(failures: Sequence[Failure], place: int) -> list[Failure]:
    """The failures of a video that deserve a picture."""
    return [
        f for f in failures if f.video_index == place and f.kind != LOOSE and (f.score >= CONFIDENT or not f.tracks)
    ]


def _moments(failures: Sequence[Failure]) -> list[int]:
    """Frames that show what happened: around failures of identity, or around the others if there are none."""
    turns = [f.frames[0] for f in failures if f.kind in IDENTITY]
    return [t for turn in turns for t in (max(turn - 1, 0), turn)] or [t for f in failures for t in f.frames]


def _sure(tracks: Sequence[Track]) -> list[Track]:
    return [track for track in tracks if track.score >= CONFIDENT]


def _timeline(videos: AnnotatedSet, result: Result, place: int, found: Sequence[Failure]) -> str:
    case = result.cases[place]
    lanes: dict[str, list[str | None]] = {}
    marks: dict[str, list[int]] = {}
    for g, column in enumerate(case.owner.T):
        track = case.pair.truths[case.objects[g]]
        name = f"{videos.classes[track.label]} {track.id}"
        ids = [case.pair.predictions[p].id if p >= 0 else None for p in column.tolist()]
        lanes[name] = [
            None if not present else "" if id is None else "#{:02x}{:02x}{:02x}".format(*colour(id))
            for present, id in zip((case.truth_area[:, g] > 0).tolist(), ids, strict=True)
        ]
        marks[name] = [f.frames[0] for f in found if f.kind in IDENTITY and g in f.truth_indices]
    return f'<div class="wide">{charts.timeline(lanes, marks)}</div>'
