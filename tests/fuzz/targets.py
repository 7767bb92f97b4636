"""Every reader of bytes from outside, with small valid files to damage.

A reader gets a folder in which one file is damaged, and reads all of it: frames and masks too, which are read late.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

from field.films import Film
from tubelet.core import masks
from tubelet.core.errors import TubeletError
from tubelet.core.records import Prediction, Track
from tubelet.core.types import VideoSet

SIZE = (24, 32)
LENGTH = 3
Write = Callable[[Path], None]
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Target:
    """A reader, and how its valid files are written.

    `damaged` are patterns of the files that are changed, all by default.
    """

    name: str
    write: Write
    read: Read
    damaged: Sequence[str] = ("**/*",)

    def files(self, folder: Path) -> list[Path]:
        """The files that may be damaged, in a fixed order."""
        matching = {path for pattern in self.damaged for path in folder.glob(pattern) if path.is_file()}
        return sorted(matching)


def read_set(videos: VideoSet) -> None:
    """Use everything of a data set."""
    for video in videos.videos[:4]:
        for frame in list(video.frames)[:6]:
            assert frame.shape[1:] == video.size
        for track in (video.tracks or ())[:4]:
            read_masks(track, len(video))


def read_masks(track: Track, length: int) -> None:
    """Decode the masks of a track, if they are small."""
    assert len(track.rles) == length
    for rle in list(track.rles)[:6]:
        if rle is not None and rle.size[0] * rle.size[1] < 1 << 22:
            assert masks.decode([rle]).shape[1:] == rle.size


# results


def prediction() -> Prediction:
    mask = np.zeros((LENGTH, *SIZE), bool)
    mask[:, 4:12, 6:20] = True
    rles = tuple(masks.encode(mask))
    tracks = (Track(id=1, label=0, score=0.9, rles=rles), Track(id=4, label=1, score=0.5, rles=(None, *rles[1:])))
    return Prediction(video="clip", size=SIZE, length=LENGTH, tracks=tracks, classes=("dog", "cat"))


def write_results(folder: Path) -> None:
    from tubelet.formats.ytvis import write_predictions

    write_predictions(folder / "predictions.json", [prediction()])


def write_lines(folder: Path) -> None:
    from tubelet.formats import frame_lines

    frame_lines.write(folder / "predictions.jsonl", [prediction()])


def read_results(folder: Path) -> None:
    from tubelet.inference.reopening import open_prediction

    result = open_prediction(folder)
    for track in result.tracks[:4]:
        read_masks(track, result.length)


def write_rles(folder: Path) -> None:
    result = prediction()
    values = [masks.to_json(rle) for track in result.tracks for rle in track.rles]
    values += [{"size": list(SIZE), "counts": [10, 20, 30, 708]}, [[1, 1, 9, 1, 9, 9]]]
    (folder / "rles.json").write_text(json.dumps(values))


def read_rles(folder: Path) -> None:
    from tubelet.core.untrusted.documents import read_json

    values = read_json(folder / "rles.json")
    refusals = []
    for value in values if isinstance(values, list) else [values]:
        try:
            rle = masks.from_json(value, SIZE)
        except TubeletError as error:
            refusals.append(error)
            continue
        if rle is not None:
            assert masks.decode([rle])[0].sum() == masks.areas([rle])[0]
            masks.boxes([rle])
    if refusals:
        raise refusals[0]


def write_edits(folder: Path) -> None:
    from tubelet.editing.session import Editing

    write_results(folder)
    editing = Editing(prediction())
    editing.split(1, 2)
    editing.redraw(4, 1, [(1, 1), (9, 1), (9, 9)])
    editing.rename(4, "goat")
    editing.add("dog", 0, [(2, 2), (8, 2), (8, 8)])
    editing.swap(1, 4, 1)
    editing.see([0, 1])
    editing.save(folder / "edits.json")


def read_edits(folder: Path) -> None:
    from tubelet.editing.session import Editing, seen_frames
    from tubelet.inference.reopening import open_prediction

    editing = Editing(open_prediction(folder / "predictions.json"))
    editing.load(folder / "edits.json")
    seen_frames(folder)


# data sets


def write_generated(folder: Path) -> None:
    from tubelet.synthetic.config import Synthetic
    from tubelet.synthetic.generator import write

    height, width = SIZE
    world = Synthetic(height=height, width=width, frames=2, objects=(2, 2), size=(0.6, 0.9))
    write(folder, world, seed=1, videos=1)


def write_form(form: str) -> Write:
    def write(folder: Path) -> None:
        from tubelet.formats import registry

        write_generated(folder.with_name("source"))
        shutil.rmtree(folder)
        registry.convert(folder.with_name("source"), folder, to=form)

    return write


def write_zip(form: str) -> Write:
    def write(folder: Path) -> None:
        inner = folder / "set"
        inner.mkdir()
        write_form(form)(inner)
        with zipfile.ZipFile(folder / "set.zip", "w") as archive:
            for path in sorted(inner.rglob("*")):
                archive.write(path, path.relative_to(inner))
        shutil.rmtree(inner)
        shutil.rmtree(folder / "source")

    return write


def read_form(form: str, name: str = ".") -> Read:
    def read(folder: Path) -> None:
        from tubelet.formats import registry

        with suppress(TubeletError):
            registry.detect(folder / name)
        read_set(registry.open_set(folder / name, form))

    return read


def read_coco(folder: Path) -> None:
    from tubelet.formats import registry

    read_set(registry.open_set(folder / "instances.json", "coco", folder / "images"))


def write_label_studio(folder: Path) -> None:
    picture(folder / "a.png", size=(4, 8))
    region = {"id": "a", "original_width": 8, "original_height": 4}
    brushed = {"rle": brush(32), "brushlabels": ["dog"]}
    drawn = {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["dog"]}
    box = {"x": 1, "y": 2, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["cat"]}
    result = [
        {"type": "brushlabels", "value": brushed, **region},
        {"type": "polygonlabels", "value": drawn, **region, "id": "b"},
        {"type": "rectanglelabels", "value": box, **region, "id": "c"},
    ]
    tasks = [{"data": {"image": "/up/a.png"}, "annotations": [{"result": result}]}]
    (folder / "project.json").write_text(json.dumps(tasks))


def brush(pixels: int) -> list[int]:
    """What Label Studio's brush saves for an image of which all is painted: one run of equal words."""
    runs = f"{4 * pixels:032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    bits = f"{runs}110{4 * pixels - 1:08b}{255:08b}"
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def write_sav(folder: Path) -> None:
    Film(numbers=(0, 1, 2, 3, 4)).write(folder).rename(folder / "sav_1.mp4")
    rle = masks.to_json(masks.encode(np.ones((1, 48, 64), bool))[0])
    masklets = [[rle], [rle]]
    document = {"video_id": "sav_1", "video_frame_count": 5.0, "masklet": masklets, "masklet_id": [0]}
    (folder / "sav_1_manual.json").write_text(json.dumps(document))


def write_voc(folder: Path) -> None:
    from tubelet.formats.label_maps import encode_map

    objects = np.zeros(SIZE, np.int64)
    objects[1:4, 1:4] = 1
    objects[0] = 255
    for name, data in (("SegmentationClass", np.where(objects == 1, 12, 0)), ("SegmentationObject", objects)):
        (folder / name).mkdir()
        (folder / name / "2007_000032.png").write_bytes(encode_map(data))
    (folder / "JPEGImages").mkdir()
    picture(folder / "JPEGImages" / "2007_000032.jpg")


def write_sbd(folder: Path) -> None:
    from scipy.io import savemat

    objects = np.zeros(SIZE, np.uint8)
    objects[2:9, 3:9] = 1
    for name in ("inst", "img"):
        (folder / name).mkdir()
    struct = {"Segmentation": objects, "Categories": [7], "Boundaries": []}
    savemat(folder / "inst" / "2008_000002.mat", {"GTinst": struct}, do_compression=True)
    picture(folder / "img" / "2008_000002.jpg")


# pictures and videos


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = SIZE) -> None:
    values = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(values).convert(mode).save(path)


def write_deep(path: Path) -> None:
    Image.fromarray(np.full(SIZE, 4000, np.uint16)).save(path)


def write_float(path: Path) -> None:
    Image.fromarray(np.full(SIZE, 0.5, np.float32)).save(path)


PICTURES: dict[str, Write] = {
    **{f"image.{suffix}": picture for suffix in ("png", "jpg", "webp", "bmp", "tif", "gif")},
    "grey.png": lambda path: picture(path, "L"),
    "palette.png": lambda path: picture(path, "P"),
    "deep.png": write_deep,
    "float.tif": write_float,
}


def read_picture(folder: Path) -> None:
    """All ways to decode a picture; refuses what the first of them refuses."""
    from tubelet.core.untrusted import images

    (path,) = folder.iterdir()
    data = path.read_bytes()
    with suppress(TubeletError):
        images.decode(data, "a file")
    with suppress(TubeletError):
        images.decode_rgb(data, "a file", size=SIZE)
    with suppress(TubeletError):
        images.decode_samples(data, "a file")
    with suppress(TubeletError):
        images.lies_on_its_side(path)
    with suppress(TubeletError):
        read_film(path)
    images.decode(data, "a file", rgb=True)


FILMS = {
    "mp4": Film(numbers=(0, 1, 2, 3, 4, 5), b_frames=2),
    "mp4 of fragments": Film(
        numbers=(0, 1, 2, 3, 4, 5), container_options="movflags=frag_keyframe+empty_moov+default_base_moof"
    ),
    "mkv": Film(suffix=".mkv", numbers=(0, 1, 2, 3, 4, 5)),
    "webm": Film(suffix=".webm", codec="libvpx", numbers=(0, 1, 2, 3, 4, 5)),
    "ts": Film(suffix=".ts", numbers=(0, 1, 2, 3, 4, 5)),
    "avi": Film(suffix=".avi", codec="mjpeg", pixels="yuvj420p", numbers=(0, 1, 2, 3, 4, 5)),
    "mpg": Film(suffix=".mpg", codec="mpeg2video", numbers=(0, 1, 2, 3, 4, 5)),
    "flv": Film(suffix=".flv", numbers=(0, 1, 2, 3, 4, 5)),
    "gif": Film(suffix=".gif", codec="gif", pixels="rgb8", numbers=(0, 1, 2, 3, 4, 5)),
    "apng": Film(suffix=".png", numbers=(0, 1, 2, 3, 4, 5)),
    "webp": Film(suffix=".webp", numbers=(0, 1, 2, 3, 4, 5)),
}
MOST_FRAMES = 40  # of a damaged video that are looked at


def read_film(path: Path) -> None:
    """The probe of the page, frames in order, and a few from the end."""
    from tubelet.apps.web.probe import probe_here
    from tubelet.video.reader import open_video

    with suppress(TubeletError):
        probe_here(path, 1000)
    video = open_video(path)
    height, width = video.size
    assert len(video) > 0
    if height * width > 1 << 22:
        return
    for frame, _ in zip(video.frames, range(MOST_FRAMES), strict=False):
        assert frame.shape == (3, height, width)
    for t in (len(video) - 1, len(video) // 2, 0):
        assert video.frames[t].shape == (3, height, width)
        video.time(t)


def read_only_film(folder: Path) -> None:
    (path,) = folder.iterdir()
    read_film(path)


# weights, checkpoints and settings


def write_model(folder: Path) -> None:
    from model_fixtures import TWO_STAGE
    from tubelet.core.text import to_json
    from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig
    from tubelet.models.rcnn.model import MaskTrackConfig
    from tubelet.training.checkpoint import save_model

    config = MaskTrackConfig(
        detector=TWO_STAGE, mask=MaskHeadConfig(convs=1, channels=16), match=FullyConnectedMatchConfig(channels=32)
    )
    model = config.build(("dog", "cat"))
    metadata = {"config": to_json(config.model_dump(mode="json")), "classes": '["dog","cat"]', "recipe_name": '"sta"'}
    save_model(folder / "model.safetensors", model, metadata)


def read_model(folder: Path) -> None:
    from tubelet.models.weights import contents, loading

    path = folder / "model.safetensors"
    with suppress(TubeletError):
        contents.recipe_of(path)
    with suppress(TubeletError):
        contents.weights_of_training(path)
    loading.load(path, device="cpu", engine="torch")


def training_state() -> Any:
    from tubelet.training.checkpoint import TrainingProgress, TrainingState
    from tubelet.training.optim import WeightAverage

    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.named_parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    progress = TrainingProgress(step=2, samples=8, losses={"class": 0.3}, made=1)
    return TrainingState(model=model, optimizer=optimizer, average=WeightAverage(model, 0.9), progress=progress)


SETTINGS = {"train": {"iterations": 4, "seed": 0}, "optim": {"lr": 0.1}}


def write_checkpoint(folder: Path) -> None:
    from tubelet.training import checkpoint

    checkpoint.save(folder, SETTINGS, training_state())


def read_checkpoint(folder: Path) -> None:
    from tubelet.training import checkpoint

    checkpoint.resume(folder, SETTINGS, training_state())


def write_metrics(folder: Path) -> None:
    lines = [{"step": 1, "loss": 0.5, "lr": 0.1}, {"step": 2, "loss": 0.25}, {"step": 2, "validation_AP": 0.1}]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def read_metrics(folder: Path) -> None:
    from tubelet.drawing.curves import training_curve
    from tubelet.training import log

    with suppress(TubeletError):
        log.read_metrics(folder / "metrics.jsonl")
    training_curve(folder / "metrics.jsonl", folder.with_name("curve.png"))


def write_settings(folder: Path) -> None:
    from tubelet import recipes

    overrides = [
        "optim.lr=0.01", "model.neck=null", "model.window.length=2", "train.log=[]", "train.iterations=10",
        "optim.schedule.at=[10, 20]", "model.detector.backbone.name=resnet18", 'model.neck={"kind": "sta"}',
    ]  # fmt: skip
    (folder / "overrides.json").write_text(json.dumps(overrides))
    tree = recipes.find("sta/ytvis2019").model_dump(mode="json")
    (folder / "tree.json").write_text(json.dumps(tree))


def read_settings(folder: Path) -> None:
    from tubelet import recipes
    from tubelet.core.untrusted.documents import read_json
    from tubelet.recipes.experiment import Experiment

    recipe = recipes.find("sta/ytvis2019")
    with suppress(TubeletError):
        tree = read_json(folder / "tree.json")
        if isinstance(tree, dict):
            Experiment.from_tree(tree)
    overrides = read_json(folder / "overrides.json")
    for override in overrides if isinstance(overrides, list) else [overrides]:
        with suppress(TubeletError):
            recipe.override(override)
    if isinstance(overrides, list):
        recipe.override(*overrides)


# the page


JOB = "1" * 16
VIDEO = "2" * 16
REFUSED = (
    400,
    404,
    405,
    409,
    422,
    499,
    503,
    507,
)  # what a server may answer to a request that is wrong, or at a wrong time


@cache
def served(root: Path) -> Any:
    """The jobs of a server without a worker, which would need a process of its own."""
    from tubelet.apps.web.jobs.queue import Jobs
    from tubelet.apps.web.jobs.store import Store
    from tubelet.apps.web.limits import Limits

    shutil.rmtree(root, ignore_errors=True)
    jobs = Jobs(Store(root), Limits(), lambda name: None, ["following"])  # type: ignore[arg-type, return-value]
    jobs.models.described = [{"name": "following", "follows": True, "attends": True, "classes": ["dog", "cat"]}]
    return jobs


def add_finished_job(store: Any) -> None:
    from tubelet.apps.web import results
    from tubelet.apps.web.jobs.store import Film as Listed
    from tubelet.apps.web.jobs.store import Job
    from tubelet.inference.results import VideoPrediction
    from tubelet.video.reader import open_video

    height, width = SIZE
    film = Listed(
        id=VIDEO, name="clip.mp4", example=False, bytes=1000, width=width, height=height, frames=LENGTH,
        seconds=0.1, playable=True, webm=False, created=1.0,
    )  # fmt: skip
    with store.scratch() as scratch:
        (scratch / "video").mkdir()
        Film(numbers=tuple(range(LENGTH)), size=(48, 64)).write(scratch / "video").rename(scratch / "video" / "source")
        store.add_video(film, scratch / "video")

    job = Job(
        id=JOB, video=VIDEO, model="following", length=None, stride=None, state="done", error=None, attempts=1,
        objects=2, seconds=0.1, created=1.0,
    )  # fmt: skip
    store._insert("jobs", job)
    store.job_folder(JOB).mkdir()
    video = open_video(store.video_folder(VIDEO) / "source")
    result = prediction()
    whole = VideoPrediction(
        video="clip", size=SIZE, length=LENGTH, tracks=result.tracks, classes=result.classes, source=video
    )
    results.write(store.job_folder(JOB) / results.RESULT, whole)


def fresh_client(root: Path) -> Any:
    """A client of a server with one finished job, without edits."""
    from starlette.testclient import TestClient

    from tubelet.apps.web import server
    from tubelet.apps.web.guard import Access

    jobs = served(root)
    if jobs.store.job(JOB) is None:
        shutil.rmtree(jobs.store.video_folder(VIDEO), ignore_errors=True)
        jobs.store._list.change("DELETE FROM videos")
        add_finished_job(jobs.store)
    for table in ("steps", "seen"):
        jobs.store._list.change(f"DELETE FROM {table}")
    return TestClient(server.build(jobs, Access()), base_url="http://127.0.0.1")


def write_page(folder: Path) -> None:
    edits = f"/api/jobs/{JOB}/edits?revision="
    polygon = {"size": list(SIZE), "polygon": [[1, 1], [9, 1], [9, 9]]}
    files = f"/api/jobs/{JOB}/files"
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/api/jobs", {"video": VIDEO, "model": "following", "length": 2, "stride": 1, "classes": ["dog"]}),
        ("POST", f"{edits}0", {"kind": "rename", "track": 1, "name": "goat"}),
        ("POST", f"{edits}1", {"kind": "split", "track": 1, "at": 2, "new": 7}),
        ("POST", f"{edits}2", {"kind": "redraw", "track": 1, "frame": 1, "mask": polygon}),
        ("GET", f"/api/jobs/{JOB}/edits", None),
        ("POST", f"/api/jobs/{JOB}/undo?revision=3", None),
        ("POST", f"/api/jobs/{JOB}/redo?revision=4", None),
        ("PUT", f"/api/jobs/{JOB}/seen", {"frames": [[0, 1]]}),
        ("POST", f"/api/jobs/{JOB}/follow", {"revision": 5, "track": 1, "frame": 1, "ways": "both"}),
        ("POST", f"/api/videos/{VIDEO}/attention", {"model": "following", "frame": 1, "x": 2, "y": 3}),
        ("GET", f"/api/jobs/{JOB}/doubts?threshold=0.5", None),
        ("GET", f"{files}/table.csv?threshold=0.5", None),
        ("POST", f"{files}/labels.zip?threshold=0.5&form=davis&frames=all", None),
        ("GET", "/api/videos", None),
        ("DELETE", "/api/jobs/3333333333333333", None),
    ]
    (folder / "requests.json").write_text(json.dumps(requests))


def ask_page(folder: Path) -> None:
    """Send every request; what is no JSON is sent as it stands."""
    data = (folder / "requests.json").read_bytes()
    try:
        requests = json.loads(data)
    except ValueError:
        requests = [("POST", f"/api/jobs/{JOB}/edits?revision=0", None), ("PUT", f"/api/jobs/{JOB}/seen", None)]
    client = fresh_client(folder.with_name("server"))
    for request in requests if isinstance(requests, list) else ():
        if isinstance(request, list | tuple) and len(request) == 3:
            ask(client, *request, data)


def ask(client: Any, method: Any, path: Any, body: Any, data: bytes) -> None:
    content = data if body is None else json.dumps(body).encode()
    try:
        answer = client.request(str(method), str(path), content=content, headers={"Content-Type": "application/json"})
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):  # the client's refusal
        return
    is_fine = answer.status_code < 400 or answer.status_code in REFUSED
    assert is_fine, f"{method} {path}: {answer.status_code} {answer.text[:200]}"


SETS = ("ytvis", "coco-video", "cvat", "mots", "mots-png", "davis", "png", "yolo-seg", "labelme")
ZIPS = ("ytvis", "cvat", "davis")
TARGETS = (
    Target("results", write_results, read_results),
    Target("results, lines", write_lines, read_results),
    Target("RLE", write_rles, read_rles),
    Target("edits", write_edits, read_edits, damaged=("edits.json",)),
    *(Target(form, write_form(form), read_form(form)) for form in SETS),
    *(Target(f"{form}, zipped", write_zip(form), read_form(form, "set.zip")) for form in ZIPS),
    Target("coco", write_form("coco-video"), read_coco, damaged=("*.json",)),
    Target("label-studio", write_label_studio, read_form("label-studio"), damaged=("*.json",)),
    Target("sav", write_sav, read_form("sav"), damaged=("*.json",)),
    Target("voc", write_voc, read_form("voc")),
    Target("sbd", write_sbd, read_form("sbd")),
    *(
        Target(name, lambda folder, name=name, write=write: write(folder / name), read_picture)
        for name, write in PICTURES.items()
    ),
    *(Target(name, lambda folder, film=film: film.write(folder), read_only_film) for name, film in FILMS.items()),  # type: ignore[misc]
    Target("weights", write_model, read_model),
    Target("checkpoint", write_checkpoint, read_checkpoint),
    Target("metrics", write_metrics, read_metrics),
    Target("settings", write_settings, read_settings),
    Target("page", write_page, ask_page),
)
