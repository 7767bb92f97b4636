"""Checkpoints: the state of a training as safetensors and JSON, never pickle.

    checkpoints/step-000100/
        model.safetensors       weights and buffers
        average.safetensors     their moving average, where one is kept
        optimizer.safetensors   tensors named parameter/key
        settings.json           what a resumed training must agree with: configs, classes, number of clips
        progress.json           step, samples taken, best validation, running sums of the log; written last

A folder is written under a temporary name and renamed when it is complete, so it is complete or not
there. Random states are not stored: the loop seeds each batch from (seed, step, part, rank). Tensors
are whole, also where each process holds a slice.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from tubelet.core.atomic import discard, replacing, replacing_folder
from tubelet.core.errors import ConfigError, FormatError, InputError, TubeletError, WeightsError, WriteError
from tubelet.core.untrusted.documents import decode_json, read_json
from tubelet.core.untrusted.tensors import read_tensors
from tubelet.training.optim import WeightAverage, load_state_tensors, state_tensors
from tubelet.training.sharded_tensors import cut_like, whole

FORMAT = "1"  # of model files and checkpoints
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Tensors = Mapping[str, Tensor]


def save_model(path: Path, model: nn.Module | Tensors, metadata: Mapping[str, str]) -> None:
    """Write weights as one safetensors file, atomically; raises TubeletError if they cannot be written.

    `metadata` holds JSON texts (`config`: the model's config, `classes`: its class names); `tubelet`, the version of
    the format, is added.
    """
    tensors = model.state_dict() if isinstance(model, nn.Module) else model
    with writing(path), replacing(path, durable=True) as partial:
        write_tensors(partial, tensors, {**metadata, "tubelet": FORMAT})


@dataclass(slots=True)
class TrainingProgress:
    """How far a training is, with the sums of the log since its last line, so that the log goes on exactly too.

    Example:
        >>> from tubelet.training.checkpoint import TrainingProgress
        >>> progress = TrainingProgress()
        >>> progress.count({"mask": 1.5}, grad_norm=3.0, samples=4, finite=True)
        >>> progress.step, progress.samples, progress.losses
        (1, 4, {'mask': 1.5})
    """

    step: int = 0
    samples: int = 0  # taken by all processes so far: the number of the next one
    skipped: int = 0  # steps that were not finite
    failures: int = 0  # of those, the last ones in a row
    made: int = 0  # steps in the sums
    losses: dict[str, float] = field(default_factory=dict)
    grad_norm: float = 0.0
    validations: int = 0
    best: float | None = None  # highest deciding number of a validation
    best_step: int = 0  # its step
    without_better: int = 0  # validations since then
    validated_by: str = ""  # the settings of these validations
    without_objects: int = 0  # validations in a row that found none
    with_one_class: int = 0  # validations in a row that found objects of one class alone
    clips_read: int = 0  # by this process, those with annotations
    clips_empty: int = 0  # of these, without an object
    advised: list[str] = field(default_factory=list)  # names of the advice that was given, each once

    def count(self, losses: dict[str, float], grad_norm: float, samples: int, *, finite: bool) -> None:
        """Count one step; only a finite one enters the sums."""
        self.step += 1
        self.samples += samples
        self.failures = 0 if finite else self.failures + 1
        if not finite:
            self.skipped += 1
            return
        self.made += 1
        self.grad_norm += grad_norm
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value


@dataclass(slots=True, kw_only=True)
class TrainingState:
    """All that changes during a training, and so all that a checkpoint holds."""

    model: nn.Module
    optimizer: Optimizer
    average: WeightAverage | None = None
    progress: TrainingProgress = field(default_factory=TrainingProgress)


def save(folder: Path, settings: dict[str, Any], state: TrainingState, *, main: bool = True) -> Path:
    """Write a checkpoint and return its path; on an error, a TubeletError, what was there before stays.

    All processes must call it, because each may hold a slice of every tensor; only the `main` one writes.
    """
    path = path_of(folder, state.progress.step)
    tensors = {"model": state.model.state_dict(), "optimizer": state_tensors(state.optimizer)}
    if state.average is not None:
        tensors["average"] = state.average.weights
    tensors = {name: whole(of_one_file, keep=main) for name, of_one_file in tensors.items()}
    if not main:
        return path
    with writing(path), replacing_folder(path, durable=True) as partial:  # of the same step, an incomplete one at most
        for name, of_one_file in tensors.items():
            write_tensors(partial / f"{name}.safetensors", of_one_file, {"tubelet": FORMAT})
        _write_json(partial / "settings.json", settings)
        _write_json(partial / "progress.json", asdict(state.progress))
    return path


def resume(
    folder: Path,
    settings: dict[str, Any],
    state: TrainingState,
    *,
    free: Collection[str] = (),
    defaults: Collection[str] = (),
) -> None:
    """Load the latest checkpoint into `state`; without one, `state` stays as it is.

    Settings whose dotted names end in one of `free` may differ, and those of `defaults` may be missing in the
    checkpoint, which was written before there were such settings. Raises ConfigError, which names the field, for other
    settings, WeightsError for another model's weights, FormatError for a damaged checkpoint.
    """
    if not saved(folder):
        return
    path = saved(folder)[-1]
    agree(_read_json(path / "settings.json"), settings, path, free=free, defaults=defaults)
    load_weights(state.model, read_tensors(path / "model.safetensors"), path)
    try:
        load_state_tensors(state.optimizer, read_tensors(path / "optimizer.safetensors"))
        if state.average is not None:
            state.average.load(read_tensors(path / "average.safetensors"))
        state.progress = _progress_of(path)
    except (KeyError, TypeError, RuntimeError, msgspec.ValidationError) as error:
        raise FormatError(f"{path}: a damaged checkpoint, or one of another version: {error}") from None


def path_of(folder: Path, step: int) -> Path:
    """The folder of the checkpoint of a step.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.training.checkpoint import path_of
        >>> path_of(Path("checkpoints"), 100).name
        'step-000100'
    """
    return folder / f"step-{step:06d}"


def saved(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first; incomplete ones and anything else are skipped.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.training.checkpoint import saved
        >>> saved(Path("nowhere"))
        []
    """
    if not folder.is_dir():
        return []
    named = [path for path in folder.iterdir() if re.fullmatch(r"step-\d{6,}", path.name)]
    complete = [path for path in named if (path / "progress.json").is_file()]
    return sorted(complete, key=lambda path: int(path.name.removeprefix("step-")))


def prune(folder: Path, keep: int) -> None:
    """Remove all but the last `keep` checkpoints."""
    for path in saved(folder)[:-keep]:
        discard(path)


def load_weights(model: nn.Module, tensors: Tensors, where: Path) -> None:
    """Load weights into a model that must have exactly these names and shapes; raises WeightsError otherwise."""
    expected = model.state_dict()
    for name in [*expected, *tensors]:
        ours = tuple(expected[name].shape) if name in expected else "nothing"
        theirs = tuple(tensors[name].shape) if name in tensors else "nothing"
        if ours != theirs:
            raise WeightsError(f"{where}: a checkpoint of another model: {name} is {theirs}, expected {ours}")
    model.load_state_dict({name: cut_like(tensor, expected[name]) for name, tensor in tensors.items()})


def agree(
    before: dict[str, Any],
    now: dict[str, Any],
    where: Path,
    *,
    free: Collection[str] = (),
    defaults: Collection[str] = (),
) -> None:
    """Raise ConfigError, which names the field, if a training would resume with other settings; see `resume`.

    Example:
        >>> from pathlib import Path
        >>> from tubelet.training.checkpoint import agree
        >>> agree({"train": {"workers": 2}}, {"train": {"workers": 8}}, Path("step-000100"), free=["train.workers"])
        >>> agree({"optim": {}}, {"optim": {"lr": 0.1}}, Path("step-000100"), defaults=["optim.lr"])
    """
    old = _flat(_completed(before, now, defaults))
    new = _flat(now)
    for name in [*new, *(old.keys() - new.keys())]:
        if old.get(name) != new.get(name) and not name.endswith(tuple(free)):
            raise ConfigError(
                f"{name} was {json.dumps(old.get(name))} when this training began ({where}), now it is "
                f"{json.dumps(new.get(name))}: resume with the old value, or train into another folder"
            )


def _completed(before: Any, now: Any, defaults: Collection[str], prefix: str = "") -> Any:
    """Add to settings those of `defaults` that they lack; a part that is null, or of another form, lacks nothing."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [_completed(old, new, defaults, f"{prefix}{n}.") for n, (old, new) in pairs]
    if not isinstance(before, dict) or not isinstance(now, dict):
        return before

    completed = {key: _completed(old, now.get(key), defaults, f"{prefix}{key}.") for key, old in before.items()}
    newer = {key: new for key, new in now.items() if key not in before and f"{prefix}{key}" in defaults}
    return completed | newer


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around a write: turn a full disk, or a folder that cannot be written, into a TubeletError of one line."""
    try:
        yield
    except (OSError, WriteError) as error:
        code = error.code if isinstance(error, WriteError) else error.errno
        if code is None:
            raise
        hint = "; what was written before is intact: free some space and --resume" if code in NO_SPACE else ""
        raise TubeletError(f"cannot write {path}: {os.strerror(code)}{hint}") from None


def _system_code(message: str) -> int | None:
    found = re.search(r"(?:code: |os error )(\d+)", message)  # safetensors gives the system's error in its text alone
    return int(found[1]) if found else None


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(_separate(tensors), path, metadata=metadata)
    except SafetensorError as error:
        code = _system_code(str(error))
        if code is None:
            raise
        raise OSError(code, os.strerror(code)) from None
    path.chmod(mode)  # safetensors puts a file of its own there, which only its owner may read
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata, which safetensors writes in a random order, so that equal models are equal files."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = decode_json(file.read(length), str(path))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length
        file.seek(8)
        file.write(text.ljust(length))


def _separate(tensors: Tensors) -> dict[str, Tensor]:
    """Tensors on the CPU, none sharing memory with another (tied weights), as the file format demands."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return separate


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _progress_of(path: Path) -> TrainingProgress:
    """The progress of a checkpoint; TypeError, ValidationError or RuntimeError if it is not what `save` writes."""
    progress = TrainingProgress(**_read_json(path / "progress.json"))
    checked = msgspec.convert(asdict(progress), TrainingProgress)  # of its types, too
    if path_of(path.parent, checked.step) != path:
        raise RuntimeError(f"progress.json is of step {checked.step}")
    return checked


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except InputError as error:
        raise FormatError(str(error)) from None
    if not isinstance(value, dict):
        raise FormatError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {
        name: leaf
        for key, value in tree.items()
        for name, leaf in _flat(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }
