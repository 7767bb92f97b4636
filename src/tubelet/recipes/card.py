"""The model card of a run: README.md beside the model, which says what it is, of what data, and how good."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tubelet import __version__
from tubelet.core.atomic import replacing
from tubelet.core.types import VideoSet
from tubelet.training.checkpoint import writing
from tubelet.training.log import VALIDATION, percent, read_metrics

CARD = "README.md"
MOST_CLASSES = 100  # that are named

Recipe = Mapping[str, Any]


def write_card(out: Path, recipe: Recipe, training: VideoSet, validation: VideoSet | None) -> Path:
    """Write `out`/README.md for a finished training; returns its path. Raises TubeletError for a full disk.

    `recipe` is an `Experiment` as JSON values.
    """
    path = out / CARD
    lines = read_metrics(out / "metrics.jsonl")
    sections = [
        f"# {recipe['about']}\n",
        "A model for video instance segmentation, trained with tubelet.\n",
        "".join(f"{line}\n" for line in _use(out)),
        "## Data\n",
        _table(_data(recipe, training, validation)),
        "## Training\n",
        _table(_training(recipe, lines)),
        "![losses and validation](curve.png)\n" if (out / "curve.png").is_file() else "",
        "## Figures\n",
        _figures(recipe, lines),
        "## Configuration\n",
        f"```json\n{json.dumps(recipe, indent=1)}\n```\n",
    ]
    with writing(path), replacing(path) as temporary:
        temporary.write_text("\n".join(section for section in sections if section), encoding="utf-8")
    return path


def _use(out: Path) -> Iterator[str]:
    name = "best.safetensors" if (out / "best.safetensors").is_file() else "model.safetensors"
    yield "```python"
    yield "import tubelet"
    yield ""
    yield f'model = tubelet.load("{name}")'
    yield 'prediction = tubelet.predict(model, "video.mp4")'
    yield "```"


def _data(recipe: Recipe, training: VideoSet, validation: VideoSet | None) -> Iterator[tuple[str, object]]:
    named = {name: value for name, value in recipe["data"].items() if value and name != "world"}
    yield "data", "; ".join(f"{name}: {_short(value)}" for name, value in named.items())
    yield "videos trained on", len(training.videos)
    if validation is not None:
        yield "videos validated on", min(len(validation.videos), recipe["validation"]["videos"])
    classes = training.classes[:MOST_CLASSES]
    more = f" and {len(training.classes) - MOST_CLASSES} more" if len(training.classes) > MOST_CLASSES else ""
    yield f"classes ({len(training.classes)})", ", ".join(classes) + more


def _training(recipe: Recipe, lines: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, object]]:
    train = recipe["train"]
    optim = recipe["optim"]
    yield "model", recipe["model"]["kind"]
    yield "starts from", recipe["init"]
    yield "steps", max((int(line["step"]) for line in lines), default=0)
    yield "clips", max((int(line["samples"]) for line in lines if "samples" in line), default=0)
    yield "optimizer", f"{optim['kind']}, lr {optim['lr']:g}"
    yield "precision", train["precision"]
    yield "moving average", train["ema"] or "none"
    yield "seed", train["seed"]
    yield "tubelet", __version__
    yield "PyTorch", torch.__version__
    yield "Python", platform.python_version()
    yield "machine", platform.machine()


def _figures(recipe: Recipe, lines: Sequence[Mapping[str, float]]) -> str:
    validations = [line for line in lines if any(name.startswith(VALIDATION) for name in line)]
    if not validations:
        return "No videos were validated on (`data.validation=PATH` or `data.hold_out=0.1`).\n"

    names = [name for name in validations[-1] if name.startswith(VALIDATION)]
    best = max(reversed(validations), key=lambda line: line.get(names[0], -1.0))  # of equal ones the last
    rows = [f"| weights | step | {' | '.join(name.removeprefix(VALIDATION) for name in names)} |"]
    rows.append("|---" * (len(names) + 2) + "|")
    for weights, line in (("best.safetensors", best), ("model.safetensors", validations[-1])):
        values = " | ".join(percent(line[name]) if name in line else "" for name in names)
        rows.append(f"| {weights} | {line['step']} | {values} |")
    notes = "Measured on the validation videos, shares in percent. The best weights were chosen on these same videos."
    if recipe["paper"]:
        paper = ", ".join(f"{name} {value:g}" for name, value in recipe["paper"].items())
        notes += f"\nThe paper's figures, on its own test videos: {paper}."
    return "\n".join(rows) + f"\n\n{notes}\n"


def _table(rows: Iterator[tuple[str, object]]) -> str:
    """A Markdown table; what comes from outside cannot break out of its cell."""
    body = "".join(f"| {_cell(name)} | {_cell(value)} |\n" for name, value in rows)
    return f"| | |\n|---|---|\n{body}"


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
