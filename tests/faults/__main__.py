"""Inject faults at every place where a command writes, and print a table: `make faults`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
os.environ["TUBELET_ENGINE"] = "torch"

from faults.places import KINDS, Fault, Kind
from faults.scenarios import SCENARIOS, Scenario, prepare, reference, try_fault

LIMITS = (0, 1, 50, 200, 1_000, 4_000, 20_000)  # bytes at which files end


def warm() -> None:
    """Import what commands import, once, so that every child has it."""
    import tubelet.apps.report.command
    import tubelet.inference.many.batch
    import tubelet.inference.predict
    import tubelet.models.weights
    import tubelet.recipes
    import tubelet.recipes.training  # noqa: F401


def places_of(total: int, most: int) -> list[int]:
    """At most `most` places, spread over all, with the first and the last."""
    if total <= most:
        return list(range(total))
    return sorted({round(n * (total - 1) / (most - 1)) for n in range(most)})


def faults_of(total: int, most: int) -> list[Fault]:
    """All faults to try on a command with so many places."""
    kinds: tuple[Kind, ...] = ("kill", "full", "broken")
    at_places = [Fault(kind, place) for kind in kinds for place in places_of(total, most)]
    return at_places + [Fault("limit", size) for size in LIMITS]


def measure(scenario: Scenario, root: Path, inputs: Path, most: int) -> tuple[Counter[str], list[str]]:
    """Try a scenario's faults: how many of each kind, and what was wrong."""
    expected, total = reference(scenario, root / "reference", inputs)
    tried: Counter[str] = Counter()
    wrong: list[str] = []
    for number, fault in enumerate(faults_of(total, most)):
        folder = root / f"{number}"
        tried[fault.kind] += 1
        wrong += [f"{scenario.name}, {fault.kind} at {fault.place} of {total}: {what}"
                  for what in try_fault(scenario, folder, inputs, expected, fault)]  # fmt: skip
    return tried, wrong


def main() -> int:
    """Print the table; the exit code is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument("names", nargs="*", help="scenarios; all without names")
    parser.add_argument("--most", type=int, default=60, help="places of a command at which each fault is tried")
    chosen = parser.parse_args()

    warm()
    print(f"| command | {' | '.join(KINDS)} | wrong |\n|---|{'--:|' * (len(KINDS) + 1)}")
    total: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name) / "inputs")
        for scenario in SCENARIOS:
            if chosen.names and scenario.name not in chosen.names:
                continue
            root = Path(name) / scenario.name.replace(" ", "-")
            tried, wrong = measure(scenario, root, Path(name) / "inputs", chosen.most)
            print(f"| {scenario.name} | {' | '.join(str(tried[kind]) for kind in KINDS)} | {len(wrong)} |", flush=True)
            total += tried
            failures += wrong
    print(f"| all: {sum(total.values())} | {' | '.join(str(total[kind]) for kind in KINDS)} | {len(failures)} |")
    print(*failures, sep="\n", file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
