"""The measurements of one file of predictions that `tubelet report` shows."""

from __future__ import annotations

from dataclasses import dataclass

from tubelet.core.records import Prediction
from tubelet.evaluation.cases import Case
from tubelet.evaluation.costs import Cost
from tubelet.evaluation.diagnosis import Failure
from tubelet.evaluation.partners import Matches
from tubelet.evaluation.significance import Interval
from tubelet.evaluation.ytvis import Curves
from tubelet.formats.ytvis.document import Faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One file of predictions with all its measurements."""

    name: str
    predictions: list[Prediction]
    matches: Matches
    curves: Curves
    numbers: dict[str, float]
    identity: dict[float, dict[str, float]]  # by threshold of score
    cases: list[Case]
    failures: list[Failure]
    costs: dict[str, Cost]
    rest: float
    spread: Interval
    gain: Interval | None  # in AP over the first file
    faults: Faults
