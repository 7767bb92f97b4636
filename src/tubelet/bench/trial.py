"""One trial: train an experiment, predict videos that it has not seen, measure all that the tables show.

`run_trial` leaves `trial.json` and `predictions.json` beside the model; `table` puts trials of several seeds side by
side as mean and deviation. What a benchmark of systems compares are trials of one budget on the same videos.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from tubelet.core.atomic import replacing
from tubelet.core.types import VideoSet
from tubelet.core.untrusted.documents import read_figures
from tubelet.evaluation.measures import measure
from tubelet.evaluation.tables import Sheet, markdown
from tubelet.formats import ytvis as ytvis_files
from tubelet.inference.predict import predict
from tubelet.models import weights
from tubelet.recipes.experiment import Experiment
from tubelet.training.loop import CHECKPOINTS

TRIAL = "trial.json"
PREDICTIONS = "predictions.json"
FIGURES = ("ap", "jf", "identity")  # the measures that a trial takes


def run_trial(experiment: Experiment, test: VideoSet, out: Path, *, device: str = "cpu") -> dict[str, float]:
    """Train into `out`, predict `test`, write and return its figures; a folder with a trial in it is only read.

    Shares are fractions: AP AP50 AP75 AR1 AR10 (YouTube-VIS), J&F J F (DAVIS, unsupervised, at most 20 proposals),
    IDF1 MOTA IDs HOTA (on masks, scores from 0.3 on) and IDF1_best (the same at the best of all thresholds, chosen on
    the test videos: an upper bound). Then frames a second of prediction, from files to tracks; peak megabytes of the
    process so far, or of the accelerator; parameters; and seconds of training, of its last part alone where it was
    resumed. On a CPU seconds are those of its cores, so that other work beside it does not
    count; elsewhere they are the clock's.
    """
    done = out / TRIAL
    if done.is_file():
        figures: dict[str, float] = read_figures(done)
        return figures
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    if experiment.run(out, device=device, resume=(out / CHECKPOINTS).is_dir()).model is None:
        raise KeyboardInterrupt  # the training was asked to end, and has said how to go on
    trained = clock()
    model = weights.load(out, device=device)
    opened = clock()
    predictions = [predict(model, video, threshold=0.0) for video in test.videos]
    seconds = clock() - opened
    ytvis_files.write_predictions(out / PREDICTIONS, predictions)
    figures = measure(test.videos, predictions, FIGURES)
    figures["fps"] = sum(len(video) for video in test.videos) / seconds
    figures["peak_mb"] = _peak_megabytes(device)
    figures["parameters"] = sum(p.numel() for p in model.parameters())
    figures["train_s"] = trained - began
    with replacing(done) as temporary:
        temporary.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return figures


def spread(trials: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and sample deviation (0 for one trial) of every figure that all trials have."""
    names = [name for name in trials[0] if all(name in trial for trial in trials)]
    values = {name: np.array([trial[name] for trial in trials], float) for name in names}
    return {name: (float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else 0.0) for name, v in values.items()}


def table(rows: Mapping[str, Sequence[Mapping[str, float]]], names: Sequence[str]) -> str:
    """A Markdown table of systems by figures, mean +- deviation; shares in percent, the rest as they are."""
    lines = [(system, *cells(trials, names)) for system, trials in rows.items()]
    return markdown(Sheet(columns=("", *names), rows=tuple(lines)))


def cells(trials: Sequence[Mapping[str, float]], names: Sequence[str]) -> list[str]:
    """Mean +- deviation of each figure as a table shows it, empty where it is missing."""
    figures = spread(trials)
    return [_cell(name, *figures[name]) if name in figures else "" for name in names]


# what is no share: the factor and the digits with which it is shown
SHOWN = {"IDs": (1, 1), "fps": (1, 1), "peak_mb": (1, 0), "parameters": (1e-6, 2), "train_s": (1, 0)}


def _cell(name: str, mean: float, deviation: float) -> str:
    factor, digits = SHOWN.get(name, (100, 1))
    told = f"{mean * factor:,.{digits}f}"
    return told if name == "parameters" else f"{told} ± {deviation * factor:,.{digits}f}"


def _peak_megabytes(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
