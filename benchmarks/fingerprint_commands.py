"""Fingerprints of the command line: what each command prints and writes, in a folder of its own."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fingerprint_prints as prints
import fingerprint_videos as videos
import numpy as np

import tubelet

FORMS = ("ytvis", "davis", "mots", "mots-png", "coco-video", "cvat", "png")
DEMO_FRAMES = 20
CPU = ("--device", "cpu")
WRONG = (  # each ends in one line on stderr
    ("predict", "nothing.mp4"),
    ("predict", "synth/JPEGImages/00000", "--model", "defualt"),
    ("predict", "synth/JPEGImages/00000", "--window", "lenght=2"),
    ("predict", "synth/JPEGImages/00000", "--views", "4"),
    ("train", "small/masktrak", "--out", "out"),
    ("train", "small/masktrack", "optim.rate=1", "--out", "out"),
    ("train", "small/masktrack", "model.neck.kind=stta", "--out", "out"),
    ("train", "small/masktrack", "train.iterations=none", "--out", "out"),
    ("train", "masktrack/ytvis2019", "--out", "out"),
    ("data", "convert", "synth", "again", "--to", "yolo"),
    ("data", "check", "nowhere"),
    ("evaluate", "ytvis", "synth/instances.json", "nothing.json"),
    ("export", "default", "--out", "network.txt"),
    ("attend", "synth/JPEGImages/00000", "--model", "default", "--at", "5,5"),
    ("synth", "more", "frames=0"),
    ("nonsense",),
)


def words() -> prints.Prints:
    """The help of every command, the lists, and what is said to mistakes."""
    recorded = helps()
    for what in ("recipes", "models", "backbones"):
        recorded[f"list {what}"] = prints.answer("list", what)
    recorded["version"] = prints.answer("--version")
    generate()
    for arguments in WRONG:
        said = prints.command(*arguments)
        assert said.code != 0, arguments
        recorded[f"wrong: {' '.join(arguments)}"] = prints.of_said(said)
    return recorded


def helps(*group: str) -> prints.Prints:
    """The help of the program, or of one of its groups of commands, and of all below it."""
    text = prints.answer(*group, "--help")
    recorded = {" ".join(["help", *group]): text}
    _, _, listed = text.partition("\nCommands:\n")
    for name in re.findall(r"^  ([\w-]+)", listed, re.MULTILINE):
        recorded |= helps(*group, name)
    return recorded


def predict() -> prints.Prints:
    """The bundled model on the beginning of the demo video, by `predict`, `stream` and `batch`."""
    cut(Path("cut.mp4"))
    recorded = {"cut": prints.of_file(Path("cut.mp4"))}
    recorded["said"] = prints.answer("predict", "cut.mp4", *CPU, "--semantic", "--out", "out")
    recorded |= prints.under("out", prints.of_folder(Path("out")))
    recorded["said, top"] = prints.answer("predict", "cut.mp4", *CPU, "--top", 5, "--no-video", "--out", "top")
    recorded |= prints.under("top", prints.of_folder(Path("top")))
    window = ("--window", "length=4", "stride=3")
    recorded["said, window"] = prints.answer("predict", "cut.mp4", *CPU, *window, "--no-video", "--out", "window")
    recorded |= prints.under("window", prints.of_folder(Path("window")))

    lines = prints.answer("stream", "cut.mp4", *CPU, "--json", "--masks").splitlines()
    assert len(lines) == DEMO_FRAMES
    for t, line in enumerate(lines):
        frame = {name: value for name, value in json.loads(line).items() if name != "fps"}
        recorded[f"stream/{t:02d}"] = prints.of_text(json.dumps(frame))

    prints.answer("batch", "cut.mp4", *CPU, "--workers", 1, "--no-video", "--out", "batch")
    (video,) = (path for path in Path("batch").iterdir() if path.is_dir())
    recorded["batch/predictions.json"] = prints.of_file(video / "predictions.json")
    recorded["batch/contact_sheet.png"] = prints.of_file(video / "contact_sheet.png")
    return recorded


def cut(path: Path) -> None:
    """The first frames of the demo video as a video of their own."""
    demo = tubelet.open_video(prints.demo())
    with prints.moved("VideoWriter")(path, demo.size, demo.fps) as writer:
        for t in range(DEMO_FRAMES):
            writer.write(np.ascontiguousarray(demo.frames[t].permute(1, 2, 0).numpy()), demo.time(t))


def data() -> prints.Prints:
    """Generated videos, every form and back, splitting, checking, measuring, looking."""
    recorded = {"synth": generate(), "check": prints.answer("data", "check", "synth")}
    recorded |= prints.under("synth", prints.of_folder(Path("synth")))
    recorded["stats"] = prints.answer("data", "stats", "synth", "--out", "stats.png")
    recorded["stats.png"] = prints.of_file(Path("stats.png"))
    recorded["browse"] = prints.answer("data", "browse", "synth", "--videos", 2, "--shots", 4, "--out", "sheets")
    recorded |= prints.under("browse", prints.of_folder(Path("sheets")))
    recorded["split"] = prints.answer("data", "split", "synth", "--videos", 1, "--out", "split")
    recorded |= prints.under("split", prints.of_folder(Path("split")))
    for form in FORMS:
        recorded[f"to {form}"] = prints.answer("data", "convert", "synth", form, "--to", form)
        recorded |= prints.under(f"to {form}", prints.of_folder(Path(form)))
        back = f"from-{form}"
        recorded[f"from {form}"] = prints.answer("data", "convert", form, back, "--to", "ytvis")
        recorded |= prints.under(f"from {form}", prints.of_folder(Path(back)))
        recorded[f"stats of {form}"] = prints.answer("data", "stats", form)
    return recorded


def generate() -> str:
    """Three small generated videos in the folder `synth`."""
    size = ("height=96", "width=160", "frames=6", "objects=[2, 4]", "occluders=[1, 2]")
    return prints.answer("synth", "synth", *size, "--videos", 3, "--seed", 5)


def evaluate() -> prints.Prints:
    """Every measure of made-up answers: the truth, late in places, with strays, gaps and mistaken classes."""
    generate()
    truth = json.loads(Path("synth/instances.json").read_text())
    Path("first.json").write_text(json.dumps(results(spoiled(truth, 1), 1)))
    Path("second.json").write_text(json.dumps(results(spoiled(truth, 2), 2)))
    set_of_maps(spoiled(truth, 1))

    files = ("synth/instances.json", "first.json")
    ways: dict[str, tuple[str, ...]] = {
        "ytvis": ("evaluate", "ytvis", *files, "--details", "--json", "ytvis.json"),
        "ytvis, agnostic": ("evaluate", "ytvis", *files, "--agnostic", "--markdown"),
        "ytvis, official": ("evaluate", "ytvis", *files, "--official-ids", "--latex"),
        "identity": ("evaluate", "identity", *files, "--sweep", "--curve", "curve.svg", "--json", "identity.json"),
        "identity, masks": ("evaluate", "identity", *files, "--masks", "--class-aware"),
        "failures": ("evaluate", "failures", *files, "--json", "failures.json"),
        "semantic": ("evaluate", "semantic", *files, "--details", "--json", "semantic.json"),
        "davis": ("evaluate", "davis", "davis", "maps", "--details", "--json", "davis.json"),
        "davis, semi": ("evaluate", "davis", "davis", "maps", "--semi-supervised"),
        "report": ("report", *files, "second.json", "--out", "report"),
        "submission": ("submission", "first.json", "--truth", files[0], "--out", "submission.zip"),
    }
    recorded = {name: prints.answer(*arguments) for name, arguments in ways.items()}
    for path in ("ytvis.json", "identity.json", "failures.json", "semantic.json", "davis.json"):
        recorded[path] = Path(path).read_text()
    recorded["curve.svg"] = prints.of_file(Path("curve.svg"))
    recorded |= prints.under("submission.zip", prints.of_archive(Path("submission.zip")))
    return recorded | prints.under("report", prints.of_folder(Path("report")))


def spoiled(truth: dict[str, Any], seed: int) -> dict[str, Any]:
    """A data set with the same videos whose masks are a frame late or missing, whose classes and identities change."""
    rng = np.random.default_rng(seed)
    spoilt = copy.deepcopy(truth)
    for annotation in spoilt["annotations"]:
        masks = annotation["segmentations"]
        if rng.random() < 0.6:
            start = int(rng.integers(1, len(masks)))
            masks[start:] = masks[start - 1 : -1]  # late from here on
        if rng.random() < 0.4:
            masks[int(rng.integers(len(masks)))] = None
        if rng.random() < 0.2:
            annotation["category_id"] = 1 + annotation["category_id"] % len(truth["categories"])

    *_, one, other = (a for a in spoilt["annotations"] if a["video_id"] == most_crowded(truth))
    half = len(one["segmentations"]) // 2
    later = one["segmentations"][half:]
    one["segmentations"][half:] = other["segmentations"][half:]
    other["segmentations"][half:] = later
    return spoilt


def most_crowded(truth: dict[str, Any]) -> int:
    """The id of the video with the most objects."""
    (video, _), *_ = Counter(annotation["video_id"] for annotation in truth["annotations"]).most_common(1)
    return int(video)


def results(spoilt: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Such a data set as a list of results with scores, each object twice, the second time with a low score."""
    rng = np.random.default_rng(seed)
    fields = ("video_id", "category_id", "segmentations")
    listed = []
    for annotation in spoilt["annotations"]:
        for most in (1.0, 0.4):
            score = round(most * float(rng.random()), 3)
            listed.append({**{field: annotation[field] for field in fields}, "score": score})
    return listed


def set_of_maps(spoilt: dict[str, Any]) -> None:
    """The truth and such a data set as label maps, in the folders `davis` and `maps`."""
    Path("synth/spoilt").mkdir()
    Path("synth/spoilt/instances.json").write_text(json.dumps(spoilt))
    prints.answer("data", "convert", "synth", "davis", "--to", "davis")
    prints.answer("data", "convert", "synth/spoilt", "maps", "--to", "davis", "--no-frames")


def train() -> prints.Prints:
    """The recipes behind the bundled model on images, videos of one's own, and a training that goes on."""
    images()
    short = ("train.iterations=2", "train.batch_size=2", "train.workers=0", "train.precision=fp32", "train.log_every=1")
    recorded = {}
    for recipe in ("ssdlite-start", "ssdlite", "default"):
        folder = f"runs/{recipe}"
        prints.answer(
            "train",
            recipe,
            "init=default" if recipe == "default" else "init=ssdlite",
            "data.annotations=coco.json",
            "data.images=images",
            *short,
            *CPU,
            "--out",
            folder,
        )
        recorded |= prints.under(recipe, prints.of_run(Path(folder)))

    generate()
    videos_ = ("data.annotations=synth/instances.json", *short)
    prints.answer("train", "finetune", *videos_, *CPU, "--out", "runs/finetune")
    recorded |= prints.under("finetune", prints.of_run(Path("runs/finetune")))

    halves = ("train", "small/masktrack", "data.videos=4", *short[1:], *CPU, "--out", "runs/halves")
    prints.answer(*halves, "train.iterations=2")
    prints.answer(*halves, "train.iterations=3", "--resume")
    return recorded | prints.under("resumed", prints.of_run(Path("runs/halves")))


def images() -> None:
    """Four annotated images in COCO's form."""
    classes = ("person", "cat", "dog", "car")
    written: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1 + k, "name": name} for k, name in enumerate(classes)],
    }
    frames, masks = videos.video(3, 4)
    videos.write_frames(frames, Path("images"))
    for n in range(4):
        size = {"height": videos.HEIGHT, "width": videos.WIDTH}
        written["images"].append({"id": n + 1, "file_name": f"{n:05d}.png", **size})
        for k, mask in enumerate(masks[:, n]):
            if mask.any():
                y, x = (int(cells.min()) for cells in mask.nonzero().T)
                high, wide = (int(cells.max() - cells.min() + 1) for cells in mask.nonzero().T)
                corners = [x, y, x + wide, y, x + wide, y + high, x, y + high]
                outline = {"bbox": [x, y, wide, high], "area": high * wide, "segmentation": [corners]}
                number = len(written["annotations"]) + 1
                common = {"id": number, "image_id": n + 1, "category_id": k + 1, "iscrowd": 0}
                written["annotations"].append({**common, **outline})
    Path("coco.json").write_text(json.dumps(written))


def export() -> prints.Prints:
    """The bundled model's network as a file of torch and as one of ONNX: what they give for the demo's first frame."""
    frames = tubelet.open_video(prints.demo()).frames[0][None, :, :192, :320]
    recorded = {}
    for name in ("network.pt2", "network.onnx"):
        recorded[f"said, {name}"] = prints.answer("export", "default", "--out", name, "--size", "192x320")
        recorded |= prints.under(name, prints.of_exported(Path(name), frames))
    return recorded


PARTS: dict[str, Callable[[], prints.Prints]] = {
    "words": words,
    "predict": predict,
    "data": data,
    "evaluate": evaluate,
    "train": train,
    "export": export,
}
