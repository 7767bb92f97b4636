"""The commands that write, on small inputs made here, and what must hold after a fault in the middle of one.

After the fault: inputs are as they were, no file that looks finished is half-written, files that belong together are
all there or none, and an error is one line and exit code 2. After the same command once more: the results are those of
a run without a fault, byte by byte, and no scratch file is left.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import av
import numpy as np
from PIL import Image
from safetensors import safe_open
from torch.export import ExportedProgram

from faults.places import Fault, Outcome, run
from tubelet.apps.cli import call
from tubelet.export.network import Exportable, exportable
from tubelet.models import weights

SCRATCH = (".partial", ".complete", "scratch")  # the last is the page's folder
PAGE_ID = re.compile(r"(?<=/)[0-9a-f]{16}(?=/)")
Wrong = str  # what does not hold, in words


@dataclass(frozen=True)
class Scenario:
    """A command, what it needs, and what it leaves.

    `again` is what a user types after a fault; `group` are files that appear together; `varying` are names of files
    whose bytes hold times or paths; `codes` are the exit codes of a command that could not do all of its work.
    """

    name: str
    arguments: Sequence[str]
    again: Sequence[str] | None = None
    group: tuple[str, ...] = ()
    varying: tuple[str, ...] = ()
    codes: tuple[int, ...] = (2,)

    def command(self, *, again: bool = False) -> Callable[[], int]:
        """The command as a function; its exit code."""
        arguments = list(self.again if again and self.again is not None else self.arguments)
        return lambda: call(arguments)


@dataclass(frozen=True)
class Export(Scenario):
    """An export whose network is traced once, for all of its runs: that takes longest, and writes nothing."""

    def command(self, *, again: bool = False) -> Callable[[], int]:
        traced = traced_network()

        def export() -> int:
            with patch.object(Exportable, "trace", lambda _: traced):
                return call(list(self.arguments))

        return export


@cache
def traced_network() -> ExportedProgram:
    return exportable(weights.load("default", device="cpu", precision="fp32"), (64, 64)).trace()


TRAINING = (
    "train", "small/masktrack", "--out", "run", "train.iterations=3", "train.batch_size=1", "train.workers=0",
    "train.log_every=1", "train.checkpoint_every=1", "train.threads=1", "data.videos=2", "data.world.frames=2",
    "init=none",
)  # fmt: skip
EVALUATION = (
    "evaluate", "model", "default", "--data", "set/instances.json", "--out", "measured", "--device", "cpu",
    "--workers", "1", "--json", "numbers.json",
)  # fmt: skip
SCENARIOS = (
    Scenario("predict", ("predict", "clip.mp4", "--out", "out", "--device", "cpu"),
             group=("out/predictions.json", "out/overlay.mp4", "out/contact_sheet.png")),
    Scenario("predict, as frames are finished",
             ("predict", "clip.mp4", "--out", "out", "--device", "cpu", "--results", "jsonl", "--no-video")),
    Scenario("batch", ("batch", "clip.mp4", "other.mp4", "--out", "out", "--device", "cpu", "--workers", "1"),
             varying=("finished.json", "summary.csv", "summary.parquet"), codes=(1, 2)),  # 1: not every video is done
    Scenario("train", TRAINING, again=(*TRAINING, "--resume"),
             varying=("metrics.jsonl", "curve.png", "README.md", "events.jsonl")),
    Scenario("edit", ("edit", "result", "--split", "1@2", "--rename", "1=goat"),
             group=("result/edited/predictions.json", "result/edited/edits.json")),
    Scenario("edit and draw", ("edit", "result", "--split", "1@2", "--video", "clip.mp4", "--out", "mended"),
             group=("mended/predictions.json", "mended/edits.json", "mended/overlay.mp4")),
    Scenario("data label", ("data", "label", "labels", "result=clip.mp4", "--all-frames")),
    *(
        Scenario(f"data convert --to {form}", ("data", "convert", "set", "converted", "--to", form))
        for form in ("davis", "cvat", "coco-video", "yolo-seg", "labelme")
    ),
    Scenario("data browse", ("data", "browse", "set/instances.json", "--out", "sheets")),
    Scenario("data split", ("data", "split", "set/instances.json", "--videos", "1", "--out", "parts"),
             group=("parts/train.json", "parts/val.json")),
    Scenario("synth", ("synth", "made", "--videos", "1", "frames=2")),
    Scenario("report", ("report", "set/instances.json", "result/predictions.json", "--out", "page"),
             varying=("report.html",)),
    Scenario("evaluate ytvis",
             ("evaluate", "ytvis", "set/instances.json", "result/predictions.json", "--json", "ap.json")),
    Scenario("evaluate identity", ("evaluate", "identity", "set/instances.json", "result/predictions.json", "--sweep",
             "--curve", "curve.svg"), varying=("curve.svg",)),
    Scenario("evaluate model", EVALUATION, again=(*EVALUATION, "--resume"), codes=(1, 2)),
    Scenario("table", ("table", "ifr/table3", "--runs", "runs", "--no-estimate", "--json", "table.json")),
    Export("export", ("export", "default", "--out", "network.pt2", "--size", "64x64")),
    Scenario("submission", ("submission", "result/predictions.json", "--out", "results.zip")),
)  # fmt: skip


def prepare(folder: Path) -> None:
    """Write what all commands need: two clips, a result, and a labelled set."""
    from tubelet.core.masks import encode
    from tubelet.core.records import Prediction, Track, Video, VideoSet
    from tubelet.formats.registry import write_set
    from tubelet.formats.ytvis import write_predictions
    from tubelet.video.reader import open_video
    from tubelet.video.writer import VideoWriter

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("clip", "other"):
        with VideoWriter(folder / f"{name}.mp4", size=(48, 64), fps=10, threads=1) as writer:
            for _ in range(4):
                writer.write(random.integers(0, 255, (48, 64, 3)).astype(np.uint8))

    mask = np.zeros((1, 48, 64), bool)
    mask[0, 10:30, 10:30] = True
    track = Track(id=1, label=0, score=0.9, rles=tuple(encode(mask)) * 4)
    (folder / "result").mkdir()
    prediction = Prediction(video="clip", size=(48, 64), length=4, tracks=(track,), classes=("dog",))
    write_predictions(folder / "result" / "predictions.json", [prediction])

    frames = list(open_video(folder / "clip.mp4").frames)
    videos = [Video(id=name, size=(48, 64), frames=frames, tracks=(track,)) for name in ("clip", "park")]
    write_set(folder / "set", VideoSet(videos=videos, classes=("dog",)), to="ytvis")


def try_fault(scenario: Scenario, folder: Path, inputs: Path, expected: dict[str, bytes], fault: Fault) -> list[Wrong]:
    """Run a scenario with a fault, then once more; what did not hold."""
    shutil.copytree(inputs, folder)
    given = contents(folder)
    outcome = run(scenario.command(), folder, fault)
    wrong = [*_told_wrong(scenario, outcome, fault), *_state_wrong(scenario, folder, given)]

    if not _same(scenario, contents(folder), expected):
        again = run(scenario.command(again=True), folder, Fault())
        if again.code != 0:
            wrong.append(f"the command did not work again: exit code {again.code}, {again.error[-300:]}")
        wrong += _difference(scenario, contents(folder), expected)
    return wrong


def reference(scenario: Scenario, folder: Path, inputs: Path) -> tuple[dict[str, bytes], int]:
    """What a run without a fault leaves, and the number of its places."""
    shutil.copytree(inputs, folder)
    outcome = run(scenario.command(), folder, Fault())
    if outcome.code != 0:
        raise AssertionError(f"{scenario.name} fails without a fault: {outcome.error}")
    return contents(folder), outcome.places


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their relative path; ids of the page are random, and become numbers."""
    found: dict[str, bytes] = {}
    ids: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(folder))
            found[PAGE_ID.sub(lambda id: ids.setdefault(id[0], f"id{len(ids)}"), name)] = path.read_bytes()
    return found


def _told_wrong(scenario: Scenario, outcome: Outcome, fault: Fault) -> Iterator[Wrong]:
    """Whether the command said what happened: a line and an exit code for it, or nothing at all."""
    if fault.kind == "kill" or outcome.code == 0:
        return
    if outcome.code not in scenario.codes or "Traceback" in outcome.error:
        yield f"exit code {outcome.code}: {outcome.error[-500:]}"
    elif not [line for line in outcome.error.splitlines() if line.startswith("tubelet: ")]:
        yield f"no line says what went wrong: {outcome.error[-300:]!r}"


def _state_wrong(scenario: Scenario, folder: Path, given: dict[str, bytes]) -> Iterator[Wrong]:
    """Whether what lies in the folder can be trusted."""
    now = contents(folder)
    for name, data in given.items():
        if now.get(name) != data:
            yield f"the input {name} was changed"

    finished = {name: data for name, data in now.items() if not is_scratch(name)}
    for name, data in finished.items():
        reason = broken(name, data)
        if reason:
            yield f"{name} looks finished and is not: {reason}"

    is_moving = any(part.startswith(".complete") for name in now for part in Path(name).parts)
    present = [name for name in scenario.group if name in finished]
    if present and len(present) < len(scenario.group) and not is_moving:
        yield f"of {', '.join(scenario.group)} there is {', '.join(present)} alone"


def is_scratch(name: str) -> bool:
    """Whether a file is, or lies in, a scratch file or folder."""
    return any(part.startswith(SCRATCH) for part in Path(name).parts)


def broken(name: str, data: bytes) -> str:
    """Why a file cannot be read; nothing if it can."""
    checks: dict[str, Callable[[bytes], object]] = {
        ".json": json.loads,
        ".jsonl": _lines,
        ".png": lambda data: Image.open(io.BytesIO(data)).load(),
        ".jpg": lambda data: Image.open(io.BytesIO(data)).load(),
        ".pt2": lambda data: zipfile.ZipFile(io.BytesIO(data)).testzip(),
        ".zip": lambda data: zipfile.ZipFile(io.BytesIO(data)).testzip(),
        ".mp4": _decode,
        ".safetensors": _tensors,
        ".html": lambda data: data.index(b"</html>"),
    }
    try:
        checks.get(Path(name).suffix, len)(data)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _lines(data: bytes) -> None:
    """A file that grows line by line may end within one: its readers take what comes before."""
    *complete, _ = data.split(b"\n")
    for line in complete:
        json.loads(line)


def _decode(data: bytes) -> None:
    with av.open(io.BytesIO(data)) as container:
        if not list(container.decode(video=0)):
            raise ValueError("no frame")


def _tensors(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(data)
        file.flush()
        with safe_open(file.name, "np") as tensors:
            for key in list(tensors.keys()):
                tensors.get_slice(key).get_shape()


def _fixed(scenario: Scenario, files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if Path(name).name not in scenario.varying}


def _same(scenario: Scenario, now: dict[str, bytes], expected: dict[str, bytes]) -> bool:
    return now.keys() == expected.keys() and _fixed(scenario, now) == _fixed(scenario, expected)


def _difference(scenario: Scenario, now: dict[str, bytes], expected: dict[str, bytes]) -> Iterator[Wrong]:
    """What a second run left that a run without a fault does not leave, and the other way round."""
    for name in sorted(now.keys() - expected.keys()):
        yield f"litter: {name}"
    for name in sorted(expected.keys() - now.keys()):
        yield f"lost: {name}"
    for name, data in _fixed(scenario, expected).items():
        if name in now and now[name] != data:
            yield f"{name} differs from that of a run without a fault"
