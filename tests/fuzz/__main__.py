"""Damage valid files of every kind, for as long as asked, and see how their readers take it: `make fuzz`."""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
os.environ["TUBELET_ENGINE"] = "torch"

from fuzz.search import keep, prepare, search_apart
from fuzz.targets import TARGETS


def main() -> int:
    """Print a table; the exit code is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("names", nargs="*", help="readers; all without names")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument(
        "--examples", type=int, default=50, help="damaged files of a reader before the next has its turn"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--out", type=Path, default=Path("../runs/fuzz"), help="where what was wrong is kept")
    chosen = parser.parse_args()

    targets = [target for target in TARGETS if not chosen.names or target.name in chosen.names]
    ends: dict[str, Counter[str]] = {target.name: Counter() for target in targets}
    number = chosen.seed
    print(f"seed {number}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folders = {target.name: prepare(target, Path(tempfile.mkdtemp(dir=name), "data")) for target in targets}
        end = time.monotonic() + 60 * chosen.minutes
        turns = itertools.cycle(targets)
        with suppress(KeyboardInterrupt):  # what was counted so far is printed
            while time.monotonic() < end or number < chosen.seed + len(targets):
                target = next(turns)
                number += 1
                found, wrong = search_apart(target, folders[target.name], number=number, examples=chosen.examples)
                ends[target.name] += found
                if wrong:
                    ends[target.name]["wrong"] += 1
                    kept = keep(folders[target.name], chosen.out, f"{target.name}-{number}")
                    print(f"{wrong}\nkept in {kept}\n", file=sys.stderr, flush=True)
                    folders[target.name] = prepare(target, Path(tempfile.mkdtemp(dir=name), "data"))

    print("| reader | read | refused | wrong |\n|---|--:|--:|--:|")
    for reader, counts in ends.items():
        print(f"| {reader} | {counts['read']} | {counts['refused']} | {counts['wrong']} |")
    total = sum(ends.values(), Counter())
    print(f"| all | {total['read']} | {total['refused']} | {total['wrong']} |")
    return int(total["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
