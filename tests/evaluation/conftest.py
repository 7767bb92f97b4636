"""The plain restatements in tests/oracles are imported by name; a busy machine may take its time over an example."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "oracles"))
settings.register_profile("evaluation", deadline=None)
settings.load_profile("evaluation")
