"""What the fingerprint scripts share: the hashes, the `tubelet` command, and names that moved between trees."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import runpy
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import torchvision  # noqa: F401  # exported networks use its operators
from torch import Tensor

import tubelet

Prints = dict[str, str]  # name of what was looked at -> its fingerprint, or the value itself

# what is not at the top of the package: its modules, the newest first, and its name there
MOVED = {
    "VideoWriter": ("tubelet.video.writer",),
}
ATTEND = ("attend",)  # what models call the method that tells where they look, the newest name first
CHANGING = ("samples_per_second", "waiting")  # of a training's metrics


def moved(name: str) -> Any:
    """A class or function by its name in MOVED, from whichever module this tree has it in."""
    for module in MOVED[name]:
        with contextlib.suppress(ModuleNotFoundError):
            return getattr(importlib.import_module(module), name)
    raise SystemExit(f"{name} is in none of {', '.join(MOVED[name])}: add its module to fingerprint_prints.py")


def demo() -> Path:
    """The video that the package brings."""
    assert tubelet.__file__ is not None
    (video,) = Path(tubelet.__file__).parent.rglob("demo.mp4")
    return video


def of_tensor(tensor: Tensor) -> str:
    """Type, shape and the hash of the bytes."""
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{kind} {list(tensor.shape)} {hashlib.sha256(data).hexdigest()}"


def of_scalar(value: Tensor) -> str:
    """A number that can be read, to the last bit."""
    return repr(float(value.detach()))


def of_text(text: str) -> str:
    """The hash of a text too long to be kept."""
    return hashlib.sha256(text.encode()).hexdigest()


def of_exported(path: Path, frames: Tensor) -> Prints:
    """What an exported network (.pt2 or .onnx) gives for the first frames, as many as it takes."""
    if path.suffix == ".pt2":
        program = torch.export.load(path)
        network = program.module()
        shape = program.example_inputs[0][0].shape
        with torch.no_grad():
            outputs = network(taken(frames, tuple(shape)))
        return {str(n): of_tensor(output) for n, output in enumerate(outputs)}

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    entry = session.get_inputs()[0]
    outputs = session.run(None, {entry.name: taken(frames, tuple(entry.shape)).numpy()})
    names = [output.name for output in session.get_outputs()]
    return {name: of_tensor(torch.from_numpy(output)) for name, output in zip(names, outputs, strict=True)}


def taken(frames: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The first frames, as many as this input [T, 3, H, W] or [3, H, W] holds."""
    pixels = frames[0] if len(shape) == 3 else frames[: shape[0]]
    return pixels.float()


def of_file(path: Path) -> str:
    """The hash of the bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def of_folder(folder: Path) -> Prints:
    """Every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert files, f"{folder} is empty, so nothing is compared"
    return {str(path.relative_to(folder)): of_file(path) for path in files}


def of_archive(path: Path) -> Prints:
    """Every file in a zip archive; when it was packed is not compared."""
    with zipfile.ZipFile(path) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def of_run(folder: Path) -> Prints:
    """The final model of a training, and its metrics without those that tell of time."""
    recorded = {"model": of_file(folder / "model.safetensors")}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        metrics = {name: value for name, value in json.loads(line).items() if name not in CHANGING}
        recorded[f"step {metrics['step']:02d}"] = json.dumps(metrics)
    return recorded


def under(prefix: str, prints: Prints) -> Prints:
    """The same prints with a prefix before each name."""
    return {f"{prefix}/{name}": value for name, value in prints.items()}


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


def command(*arguments: str | Path) -> Said:
    """Run `tubelet` with these arguments, in this process."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["tubelet", *map(str, arguments)]),
        mock.patch.dict("os.environ", {"COLUMNS": "100"}),
    ):
        try:
            runpy.run_module("tubelet", run_name="__main__", alter_sys=True)
        except SystemExit as left:
            code = int(left.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


def of_said(said: Said) -> str:
    """The exit code and what was said; other libraries' warnings are left out where all is well."""
    return f"exit code {said.code}\n{said.out}{said.err if said.code else ''}"


def answer(*arguments: str | Path) -> str:
    """What a command prints where all is well; anything else ends the recording."""
    said = command(*arguments)
    if said.code != 0:
        raise SystemExit(f"tubelet {' '.join(map(str, arguments))}: exit code {said.code}\n{said.out}{said.err}")
    return said.out


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generator at a seed, and as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
