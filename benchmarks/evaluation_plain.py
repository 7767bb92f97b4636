"""The straightforward evaluator as a program: standard JSON, per pair and per frame merge and area."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "oracles"))
import ytvis_oracle as plain


def main(truth_file: str, results_file: str) -> None:
    """Print the twelve numbers as JSON."""
    truth, results = json.loads(Path(truth_file).read_text()), json.loads(Path(results_file).read_text())
    plain.prepare(truth, results)
    print(json.dumps(plain.evaluate(truth, results)))


if __name__ == "__main__":
    main(*sys.argv[1:])
