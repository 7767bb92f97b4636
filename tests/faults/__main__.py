"""Inject faults at every place where a command writes, and print a table: `make faults`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
os.environ["TUBELET_ENGINE"] = "torch"

from faults.page import PageJob
from faults.places import KINDS, Fault, Kind, places_of
from faults.scenarios import SCENARIOS, Scenario, prepare, reference, try_fault

ALL = (*SCENARIOS, PageJob("serve, a job", (), varying=("jobs.sqlite",)))
CLUSTER = "batch --ray"
LIMITS = (0, 1, 50, 200, 1_000, 4_000, 20_000)  # bytes at which files end


def warm() -> None:
    """Import what commands import, once, so that every child has it."""
    import tubelet.apps.report.command
    import tubelet.apps.web.jobs.tasks
    import tubelet.apps.web.jobs.work
    import tubelet.export.network
    import tubelet.inference.many.batch
    import tubelet.inference.predict
    import tubelet.models.weights
    import tubelet.recipes
    import tubelet.recipes.training  # noqa: F401


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


def rows(names: Sequence[str], root: Path, most: int) -> Iterator[tuple[str, Counter[str], list[str]]]:
    """What was tried of each scenario, or of those with these names, and what was wrong."""
    for scenario in ALL:
        if not names or scenario.name in names:
            yield scenario.name, *measure(scenario, root / scenario.name.replace(" ", "-"), root / "inputs", most)

    if names and CLUSTER not in names:
        return
    if find_spec("ray") is None:
        print(f"{CLUSTER}: the extra `ray` is not installed", file=sys.stderr)
        return
    from faults import cluster

    yield from cluster.measure(root / "cluster", most)


def main() -> int:
    """Print the table; the exit code is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument("names", nargs="*", help="scenarios; all without names")
    parser.add_argument("--most", type=int, default=60, help="places of a command at which each fault is tried")
    chosen = parser.parse_args()

    warm()
    page, messages = sys.stdout, sys.stderr  # while there is a cluster, Ray's words go elsewhere
    print(f"| command | {' | '.join(KINDS)} | wrong |\n|---|{'--:|' * (len(KINDS) + 1)}")
    total: Counter[str] = Counter()
    num_wrong = 0
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name) / "inputs")
        for title, tried, wrong in rows(chosen.names, Path(name), chosen.most):
            row = f"| {title} | {' | '.join(str(tried[kind]) for kind in KINDS)} | {len(wrong)} |"
            print(row, file=page, flush=True)
            print(*wrong, sep="\n", end="\n" if wrong else "", file=messages, flush=True)
            total += tried
            num_wrong += len(wrong)
    print(f"| all: {sum(total.values())} | {' | '.join(str(total[kind]) for kind in KINDS)} | {num_wrong} |")
    return int(num_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
