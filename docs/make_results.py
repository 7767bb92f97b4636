"""Writes the tables of results.md from the summaries in bench/: `python docs/make_results.py`.

A summary is what `tubelet bench vis` leaves, `DIR/<set>.json`; here its name may tell the plan too. The tables stand
between `<!-- SUMMARY ROWS -->` and `<!-- end -->`, such as `<!-- generated systems -->`; what is around them stays.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tubelet.bench.runner import BASE, comparison_tables
from tubelet.recipes import small

DOCS = Path(__file__).parent
PAGE = DOCS / "results.md"
ROWS = {"systems": list(small.SYSTEMS), "ablations": [BASE, *small.ABLATIONS]}
PLACE = re.compile(r"(<!-- ([a-z-]+) (systems|ablations) -->\n).*?(<!-- end -->)", re.DOTALL)


def page() -> str:
    """The whole of results.md with its tables made anew."""
    return PLACE.sub(_filled, PAGE.read_text(encoding="utf-8"))


def _filled(place: re.Match[str]) -> str:
    begin, name, rows, end = place.groups()
    summary = json.loads((DOCS / "bench" / f"{name}.json").read_text(encoding="utf-8"))
    return f"{begin}\n{comparison_tables(summary, ROWS[rows])}\n\n{end}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
