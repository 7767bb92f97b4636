"""Tell which pinned versions have published weaknesses, by the database of osv.dev; part of `make check`.

It never fails: what is published tomorrow would break the check of today's commit, and some weaknesses have no version
without them. Where the database cannot be reached, it says so.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ADDRESS = "https://api.osv.dev/v1/querybatch"
SECONDS = 5
LARGEST = 1 << 24  # bytes of an answer
PINS = Path(__file__).resolve().parents[1] / "constraints.txt"

Pin = tuple[str, str]  # name, version


def pins_of(text: str) -> list[Pin]:
    """The pinned packages of a constraints file."""
    return re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, re.MULTILINE)


def ask(queries: bytes) -> bytes:
    """Send the queries; raises OSError where the database cannot be reached."""
    request = urllib.request.Request(ADDRESS, queries, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        return response.read(LARGEST)


def advisories(pins: list[Pin], ask: Callable[[bytes], bytes]) -> list[str]:
    """A line for each pin with published weaknesses. Raises OSError or ValueError where there is no answer."""
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in pins]
    answer: dict[str, Any] = json.loads(ask(json.dumps({"queries": queries}).encode()))
    lines = []
    for (name, version), result in zip(pins, answer["results"], strict=True):
        ids = [found["id"] for found in result.get("vulns", ())]
        if ids:
            lines.append(f"{name} {version}: {', '.join(ids)}")
    return lines


def main() -> int:
    """Print what is known."""
    pins = pins_of(PINS.read_text())
    try:
        lines = advisories(pins, ask)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"weaknesses of the {len(pins)} pinned packages: not checked, the database cannot be reached ({error})")
        return 0
    print(f"published weaknesses of the {len(pins)} pinned packages: {len(lines) or 'none'}", *lines, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
