"""Shows that a refactor changes nothing: fingerprints of all that the package computes and writes, of one tree each.

    PYTHONPATH=old/src OMP_NUM_THREADS=1 python benchmarks/fingerprints.py record old.json
    PYTHONPATH=new/src OMP_NUM_THREADS=1 python benchmarks/fingerprints.py record new.json
    python benchmarks/fingerprints.py compare old.json new.json

`record` takes minutes on one core. It writes, under a name each, the SHA-256 of the exact bytes of tensors and files,
and numbers and texts as they are: for the nine systems and the bundled model parameters, losses, gradients, predictions
and attention; for the command line what it prints and writes. `compare` names what differs and ends with exit code 1 if
anything does. Both take names of parts, such as `sta` or `data`, to look at these alone.

The script runs against trees whose modules are called differently. So it uses the top of the package, the recipes,
`tubelet.core.types` and the command line, and finds the little else by the names in `fingerprint_prints.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Prints = dict[str, str]  # name of what was looked at -> its fingerprint, or the value itself
Recording = dict[str, Prints]  # by part
WIDTH = 60  # characters shown on either side of a difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record", help="write the fingerprints of the tree on PYTHONPATH")
    recording.add_argument("file", type=Path)
    recording.add_argument("parts", nargs="*", help="only these; default: all")
    comparing = verbs.add_parser("compare", help="say what differs between two recordings")
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    comparing.add_argument("parts", nargs="*", help="only these; default: all")
    arguments = parser.parse_args()

    if arguments.verb == "record":
        record(arguments.file.resolve(), arguments.parts)
    else:
        sys.exit(report(load(arguments.first), load(arguments.second), arguments.parts))


def record(file: Path, names: list[str]) -> None:
    """Write the fingerprints of the parts of these names, of all where there are none."""
    parts = all_parts()
    unknown = [name for name in names if name not in parts]
    if unknown:
        sys.exit(f"no part {unknown[0]!r}; there are {', '.join(parts)}")

    os.environ["TUBELET_ENGINE"] = "torch"  # equal to the last bit whatever else is installed
    print(f"recording the package in {home()}")
    recorded: Recording = {}
    for name in names or parts:
        began = time.process_time()
        with tempfile.TemporaryDirectory(prefix="fingerprints-") as scratch:
            os.chdir(scratch)  # so that printed paths are the same each time
            recorded[name] = parts[name]()
            os.chdir(file.parent)
        file.write_text(json.dumps(recorded, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{name:18s} {len(recorded[name]):5d} fingerprints {time.process_time() - began:6.1f} s", flush=True)


def home() -> Path:
    """Where the package lies that is imported here."""
    import tubelet

    assert tubelet.__file__ is not None
    return Path(tubelet.__file__).parent


def all_parts() -> Mapping[str, Callable[[], Prints]]:
    """What can be recorded, by name; each part writes into the current folder alone."""
    import fingerprint_commands
    import fingerprint_systems
    import torch

    torch.set_num_threads(1)
    return {**fingerprint_systems.PARTS, **fingerprint_commands.PARTS}


def load(file: Path) -> Recording:
    """A recording."""
    recorded: Recording = json.loads(file.read_text(encoding="utf-8"))
    return recorded


def report(first: Recording, second: Recording, parts: list[str]) -> int:
    """Print the differences and how many there are; the exit code."""
    if parts:
        first = {part: first.get(part, {}) for part in parts}
        second = {part: second.get(part, {}) for part in parts}
    lines = differences(first, second)
    compared = len(flat(first).keys() | flat(second).keys())
    print(*lines, f"{compared} compared, {len(lines)} differ", sep="\n")
    return 1 if lines or not compared else 0


def differences(first: Recording, second: Recording) -> list[str]:
    """One line for each fingerprint that is not the same in both, or that only one of them has."""
    old, new = flat(first), flat(second)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            lines.append(f"{name}: only in the first")
        elif name not in old:
            lines.append(f"{name}: only in the second")
        elif old[name] != new[name]:
            lines.append(f"{name}: {parting(old[name], new[name])}")
    return lines


def flat(recorded: Recording) -> Prints:
    """All fingerprints, named `part/name`."""
    return {f"{part}/{name}": value for part, prints in recorded.items() for name, value in prints.items()}


def parting(old: str, new: str) -> str:
    """Two values around the first character in which they differ."""
    alike = (a == b for a, b in zip(old, new, strict=False))
    same = next((n for n, one in enumerate(alike) if not one), min(len(old), len(new)))
    start = max(same - WIDTH, 0)
    before, after = (text[start : same + WIDTH] for text in (old, new))
    return f"{before!r} became {after!r}"


if __name__ == "__main__":
    main()
