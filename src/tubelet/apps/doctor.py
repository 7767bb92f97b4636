"""`tubelet doctor`: versions, devices, codecs and extras, and what is missing."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, NamedTuple

import typer

from tubelet import __version__
from tubelet.apps.console import Leave, rows_of, show, table

REQUIRED = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "pillow", "pycocotools", "pydantic")
EXTRAS = {  # of pyproject.toml: what each brings, and what it is for
    "web": (("fastapi", "uvicorn"), "the page: serve, stream"),
    "hub": (("huggingface_hub",), "models of the hub"),
    "export": (("onnx", "onnxruntime", "onnxscript"), "export to ONNX"),
    "onnx": (("onnx", "onnxruntime", "onnxscript"), "--engine onnx"),
    "openvino": (("onnx", "onnxscript", "openvino"), "--engine openvino, the fastest on a CPU"),
    "ray": (("ray",), "batch on a cluster"),
    "s3": (("s3fs",), "batch with videos and results in S3"),
    "log": (("tensorboard",), "curves of a training"),
}
FORMATS = {"pandas": "prediction.to_pandas()", "supervision": "prediction.to_supervision()"}
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "prores", "mjpeg")
ENCODER = "libx264"


class Checked(NamedTuple):
    """One line: what was looked at, what is there, and whether tubelet works without it."""

    what: str
    state: str
    is_missing: bool = False  # something that tubelet needs


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a report of a fault.")] = False,
) -> None:
    """Show versions, devices, codecs and extras, and what is missing. Exit code 1 if tubelet cannot work."""
    findings = [*_programs(), *_devices(), *_video(), *_model(), *_engines(), _sandbox(), *_extras()]
    missing = [finding for finding in findings if finding.is_missing]
    if as_json:
        from tubelet.core.text import to_json

        show(to_json({finding.what: finding.state for finding in findings}, indent=1))
    else:
        rows = [(finding.what, finding.state) for finding in findings]
        show(rows_of(table("what", "is"), rows))
        show(f"missing: {', '.join(finding.what for finding in missing)}" if missing else "all that is needed is here")
    if missing:
        raise Leave(1)


def _programs() -> Iterator[Checked]:
    yield Checked("tubelet", __version__)
    yield Checked("Python", f"{platform.python_version()} on {platform.platform(terse=True)}, {platform.machine()}")
    for name in REQUIRED:
        yield _package(name, needed=True)


def _package(name: str, *, needed: bool) -> Checked:
    try:
        return Checked(name, version(name))
    except PackageNotFoundError:
        return Checked(name, "not installed", is_missing=needed)


def _devices() -> Iterator[Checked]:
    try:
        import torch
    except ImportError:
        return
    yield Checked("CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch")

    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
    yield Checked("CUDA", ", ".join(names) or f"no device; {built}")
    yield Checked("Apple GPU", "here" if torch.backends.mps.is_available() else "none")


def _video() -> Iterator[Checked]:
    try:
        import av
    except ImportError as error:
        yield Checked("PyAV", f"not installed ({error})", is_missing=True)
        return
    libraries = ".".join(map(str, av.library_versions.get("libavcodec", ())))
    yield Checked("PyAV", f"{av.__version__}, libavcodec {libraries}")

    absent = [name for name in DECODERS if name not in av.codecs_available]
    yield Checked("decoders", f"none for {', '.join(absent)}" if absent else ", ".join(DECODERS))
    has_encoder = ENCODER in av.codecs_available
    yield Checked("H.264 encoder", ENCODER if has_encoder else "none: overlays cannot be written", not has_encoder)


def _model() -> Iterator[Checked]:
    if "torch" not in sys.modules:
        return
    from tubelet.core.errors import TubeletError
    from tubelet.models import weights

    try:
        yield Checked("bundled model", str(weights.find("default")))
    except TubeletError as error:
        yield Checked("bundled model", str(error), is_missing=True)


def _engines() -> Iterator[Checked]:
    """What computes the network on the CPU, and what `auto` takes."""
    if "torch" not in sys.modules:
        return
    import torch

    from tubelet.engines.choice import fastest, found
    from tubelet.models.weights import computes_bf16

    bf16 = computes_bf16(torch.device("cpu"))
    automatic = next(iter(fastest(torch.bfloat16 if bf16 else torch.float32)), "torch")
    names = ", ".join(found())
    yield Checked("engines", f"{names}; auto takes {automatic} for {'bf16' if bf16 else 'fp32'} on the CPU")


def _sandbox() -> Checked:
    from tubelet.apps.web import sandbox

    return Checked("sandbox", f"what reads videos for the page sees {sandbox.described()}")


def _extras() -> Iterator[Checked]:
    for extra, (packages, use) in EXTRAS.items():
        absent = [name for name in packages if _package(name, needed=False).state == "not installed"]
        state = f"no {', '.join(absent)}: pip install 'tubelet[{extra}]'" if absent else "here"
        yield Checked(f"extra {extra}", f"{state} ({use})")
    for name, use in FORMATS.items():
        yield Checked(name, f"{_package(name, needed=False).state} ({use})")
