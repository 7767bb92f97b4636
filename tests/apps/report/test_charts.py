from __future__ import annotations

import re
from xml.etree import ElementTree

from tubelet.apps.report import charts


def test_a_drawing_is_valid_svg_with_a_line_for_each_series() -> None:
    svg = charts.drawing({"a": [(0, 0), (1, 1)], "<b>": [(0.5, -0.2)]}, "threshold", low=-0.5)
    tree = ElementTree.fromstring(svg)
    assert len(tree.findall("{http://www.w3.org/2000/svg}polyline")) == 2
    assert "<b>" not in svg


def test_lines_run_from_the_lower_left_to_the_upper_right() -> None:
    (points,) = re.findall(r'points="([^"]*)"', charts.lines({"a": [(0, 0), (1, 1)]}, "x", "y"))
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points.split())
    assert x1 < x2
    assert y1 > y2


def test_bars_are_as_long_as_their_values_and_undefined_ones_say_so() -> None:
    html = charts.bars({"cow": [0.25, -1.0]}, ["one", "two"])
    assert "width:25.0%" in html
    assert "not defined" in html


def test_a_time_line_joins_frames_of_one_colour_and_leaves_absences_out() -> None:
    svg = charts.timeline({"cow 1": ["#111111", "#111111", None, "", "#222222"]}, {"cow 1": [4]})
    tree = ElementTree.fromstring(svg)
    boxes = tree.findall("{*}rect") or tree.findall("rect")
    assert [box.get("fill") or box.get("class") for box in boxes] == ["#111111", "nobody", "#222222"]
    assert float(boxes[0].get("width")) == 2 * float(boxes[1].get("width"))
    assert svg.count('class="mark"') == 1
