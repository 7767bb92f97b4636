"""Small drawings in SVG and HTML for pages without network requests. All text from outside is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito: told apart by all eyes
WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 40
LANE = 18  # height of a lane of a time line

Points = Sequence[tuple[float, float]]


def lines(series: Mapping[str, Points], across: str, up: str, low: float = 0.0) -> str:
    """Draw lines over x in 0..1 and y from `low` to 1, as a figure with a legend."""
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="chart"><title>{escape(up)}</title>'
    body = _grid(across, low) + _strokes(series, low)
    return f"<figure><figcaption>{escape(up)}</figcaption>{svg}{body}</svg>{legend(list(series))}</figure>"


def drawing(series: Mapping[str, Points], across: str, low: float = 0.0) -> str:
    """Draw the same as a standalone SVG file with a legend inside."""
    look = "text{font:11px sans-serif;fill:#6a7078}.rule{stroke:#d9dce1}"
    keys = "".join(
        f'<circle cx="{LEFT + 8 + 90 * n}" cy="{HEIGHT + 10}" r="5" fill="{PALETTE[n % len(PALETTE)]}"/>'
        + _text(LEFT + 18 + 90 * n, HEIGHT + 14, name, "start")
        for n, name in enumerate(series)
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + 24}" width="{2 * WIDTH}">'
    ground = f'<rect width="{WIDTH}" height="{HEIGHT + 24}" fill="white"/>'
    return f"{head}<style>{look}</style>{ground}{_grid(across, low)}{_strokes(series, low)}{keys}</svg>\n"


def _grid(across: str, low: float) -> str:
    parts = []
    for n in range(6):
        value = low + (1 - low) * n / 5
        parts.append(_rule(_x(0), _y(value, low), _x(1), _y(value, low)))
        parts.append(_text(LEFT - 6, _y(value, low) + 4, f"{100 * value:.0f}", "end"))
        parts.append(_text(_x(n / 5), HEIGHT - BOTTOM + 16, f"{n / 5:.1f}", "middle"))
    return "".join(parts) + _text(_x(0.5), HEIGHT - 4, across, "middle")


def _strokes(series: Mapping[str, Points], low: float) -> str:
    strokes = []
    for n, points in enumerate(series.values()):
        path = " ".join(f"{_x(x):.1f},{_y(max(y, low), low):.1f}" for x, y in points)
        strokes.append(f'<polyline points="{path}" fill="none" stroke="{PALETTE[n % len(PALETTE)]}" stroke-width="2"/>')
    return "".join(strokes)


def legend(names: Sequence[str]) -> str:
    """Draw a legend: each name beside its colour."""
    keys = (
        f'<span><i style="background:{PALETTE[n % len(PALETTE)]}"></i>{escape(name)}</span>'
        for n, name in enumerate(names)
    )
    return f'<p class="legend">{"".join(keys)}</p>'


def bars(rows: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    """Draw a bar in percent for each value of each row; undefined values (-1) get none."""
    lines = []
    for name, values in rows.items():
        shown = "".join(_bar(value, PALETTE[n % len(PALETTE)]) for n, value in enumerate(values))
        lines.append(f"<tr><th>{escape(name)}</th><td>{shown}</td></tr>")
    key = legend(names) if len(names) > 1 else ""
    return f'{key}<table class="bars">{"".join(lines)}</table>'


def _bar(value: float, colour: str) -> str:
    if value < 0:
        return '<div class="bar"><span>not defined</span></div>'
    width = f"{100 * min(value, 1):.1f}%"
    return f'<div class="bar"><i style="width:{width};background:{colour}"></i><span>{100 * value:.1f}</span></div>'


def share(value: float) -> str:
    """Draw one bar for a share, which may be slightly negative."""
    width, told = f"{100 * min(max(value, 0), 1):.1f}%", f"{round(100 * value, 1) + 0.0:.1f} %"
    return f'<div class="bar"><i style="width:{width};background:{PALETTE[1]}"></i><span>{told}</span></div>'


def timeline(lanes: Mapping[str, Sequence[str | None]], marks: Mapping[str, Sequence[int]]) -> str:
    """Draw a lane for each object: a colour per frame, None if it is absent; marked frames have a notch above.

    The colour "" means that the object is there and nobody holds it.
    """
    length = max((len(lane) for lane in lanes.values()), default=1)
    step = min(14.0, 760 / length)
    width, height = 130 + step * length, LANE * len(lanes) + 22
    parts = [f'<svg viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" role="img"><title>identities</title>']
    for row, (name, lane) in enumerate(lanes.items()):
        top = row * LANE + 5
        parts.append(_text(122, top + 10, name, "end"))
        for begin, end in _stretches(lane):
            look = f'fill="{lane[begin]}"' if lane[begin] else 'class="nobody"'
            place = f'x="{130 + begin * step:.1f}" y="{top}" width="{(end - begin) * step:.1f}" height="{LANE - 6}"'
            parts.append(f"<rect {place} {look}/>")
        parts += [f'<path d="M{127 + t * step:.1f} {top - 5}l6 0l-3 7z" class="mark"/>' for t in marks.get(name, ())]
    for t in range(0, length, max(1, length // 8)):
        parts.append(_text(130 + (t + 0.5) * step, height - 6, str(t), "middle"))
    return "".join(parts) + "</svg>"


def _stretches(lane: Sequence[str | None]) -> list[tuple[int, int]]:
    """Runs of one colour in a lane, as (begin, end); absences are left out."""
    edges = [t for t in range(len(lane) + 1) if t in (0, len(lane)) or lane[t] != lane[t - 1]]
    return [(begin, end) for begin, end in pairwise(edges) if lane[begin] is not None]


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="rule"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _x(value: float) -> float:
    return LEFT + value * (WIDTH - LEFT - RIGHT)


def _y(value: float, low: float) -> float:
    return TOP + (1 - (value - low) / (1 - low)) * (HEIGHT - TOP - BOTTOM)
