"""Where a training begins: its data, its weights, and what was there before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tubelet.apps.cli import call
from tubelet.core import masks
from tubelet.core.errors import ConfigError, FormatError
from tubelet.core.types import Clip, Track, Video, VideoSet
from tubelet.data.clips import ClipDataset
from tubelet.formats.label_maps import encode_map
from tubelet.models import weights
from tubelet.models.rcnn.model import MaskTrackConfig
from tubelet.recipes import experiment, find, starting
from tubelet.recipes.experiment import Experiment
from tubelet.recipes.training import adjusted
from tubelet.training import checkpoint, loop
from tubelet.training.log import read_metrics

SQUARE = [[2.0, 2.0, 30.0, 2.0, 30.0, 30.0, 2.0, 30.0]]


class Pull(nn.Module):
    """Its loss tells where it began."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3))

    def forward(self, clips: list[Clip]) -> dict[str, Tensor]:
        return {"pull": (self.weight - clips[0].frames.float().mean() / 255).square().sum()}


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A recipe of a toy model whose pretrained weights are all 5."""

    def start_from(model: nn.Module, source: str, *, parts: str = "all") -> list[str]:
        nn.init.constant_(next(model.parameters()), 5.0)
        return []

    monkeypatch.setattr(MaskTrackConfig, "build", lambda self, classes: Pull())
    monkeypatch.setattr(starting, "start_from", start_from)
    monkeypatch.setattr(loop, "training_curve", lambda metrics, out: None)
    small = ("frames=2", "height=32", "width=48")
    return find("small/masktrack").override(
        "init=somewhere",
        "data.videos=2",
        *(f"data.world.{change}" for change in small),
        "transforms=[]",
        "optim.parts={}",
        "train.iterations=3",
        "train.log_every=1",
        "train.workers=0",
    )


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(out / "metrics.jsonl")]


def no_checkpoint(*arguments: Any, **named: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("state", ["nothing", "empty", "killed before the first checkpoint", "killed after it"])
def test_resuming_from_any_state_gives_the_same_losses(
    recipe: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    recipe.run(tmp_path / "whole", device="cpu")
    out = tmp_path / "resumed"
    if state == "empty":
        (out / "checkpoints").mkdir(parents=True)
    if state.startswith("killed"):
        with monkeypatch.context() as patched:
            patched.setattr(*((checkpoint, "save") if "before" in state else (loop, "Log")), no_checkpoint)
            with pytest.raises(KeyboardInterrupt):
                recipe.run(out, device="cpu")
        assert bool(checkpoint.saved(out / "checkpoints")) == ("after" in state)
    recipe.run(out, device="cpu", resume=True)
    assert losses(out) == losses(tmp_path / "whole")
    assert losses(out)[0] > 40  # three weights of 5, not of 0 to 1


def forget(run: Path, *names: str) -> None:
    """Take a setting out of the checkpoints of a training, as if it had begun before there was such a one."""
    for folder in checkpoint.saved(run / "checkpoints"):
        path = folder / "settings.json"
        settings = json.loads(path.read_text())
        part = settings
        for name in names[:-1]:
            part = part[name]
        del part[names[-1]]
        path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "setting", ["config.association.leash", "config.window", "recipe.sampler.context", "optim.eps"]
)
def test_a_training_from_before_a_setting_resumes_with_its_default(
    recipe: Experiment, tmp_path: Path, setting: str
) -> None:
    recipe.run(tmp_path, device="cpu")
    forget(tmp_path, *setting.split("."))
    recipe.run(tmp_path, device="cpu", resume=True)


def test_a_training_from_before_a_setting_is_refused_with_another_value(recipe: Experiment, tmp_path: Path) -> None:
    changed = recipe.override("model.window.causal=true")
    changed.run(tmp_path, device="cpu")
    forget(tmp_path, "config", "window", "causal")
    with pytest.raises(
        ConfigError, match=r"config\.window\.causal was null when this training began .*, now it is true"
    ):
        changed.run(tmp_path, device="cpu", resume=True)


def test_pretrained_weights_are_not_asked_for_where_a_checkpoint_is(
    recipe: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.run(tmp_path, device="cpu")
    monkeypatch.setattr(starting, "start_from", no_checkpoint)
    recipe.run(tmp_path, device="cpu", resume=True)


# data


def write_images(folder: Path, change: Callable[[dict[str, Any]], object] = lambda tree: None) -> Path:
    """Two images with a square each, in COCO's form."""
    (folder / "images").mkdir()
    for number in (1, 2):
        noise = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), noise)
    tree = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 40, "width": 60} for n in (1, 2)],
        "categories": [{"id": 1, "name": "boat"}],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "segmentation": SQUARE} for n in (1, 2)],
    }
    change(tree)
    (folder / "coco.json").write_text(json.dumps(tree))
    return folder / "coco.json"


def all_crowds(tree: dict[str, Any]) -> None:
    for annotation in tree["annotations"]:
        annotation["iscrowd"] = 1


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda tree: tree["annotations"].clear(), "found 2 without any: 0 annotations, 0 of them crowds"),
        (all_crowds, "found 2 without any: 2 annotations, 2 of them crowds"),
        (lambda tree: (tree["images"].clear(), tree["annotations"].clear()), "found 0 without any"),
    ],
)
@pytest.mark.parametrize("name", ["finetune", "default"])
def test_nothing_to_learn_from_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, change: Callable[[Any], object], found: str
) -> None:
    annotations = write_images(tmp_path, change)
    assert call(["train", name, f"data.annotations={annotations}", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert f"expected videos or images with at least one object to learn from, {found}" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_split_that_leaves_no_object_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = write_images(tmp_path, lambda tree: tree["annotations"].pop())
    (tmp_path / "split.json").write_text('{"train": [2]}')
    given = [f"data.annotations={annotations}", f"data.split={tmp_path / 'split.json'}"]
    assert call(["train", "default", *given, "--out", str(tmp_path / "out")]) == 2
    assert "found 1 without any: 0 annotations" in capsys.readouterr().err


def test_a_few_frames_to_learn_from_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    track = Track(id=1, label=0, score=1.0, rles=masks.encode(np.ones((4, 8, 8), bool)))
    video = Video(id="v", size=(8, 8), frames=[None] * 4, tracks=(track,))
    experiment._warn_of_few(VideoSet(videos=[video] * 3, classes=("dog",)))
    assert caplog.text == ""
    experiment._warn_of_few(VideoSet(videos=[video], classes=("dog",)))
    assert "only 4 of the frames to learn from have an object" in caplog.text


def test_finetune_starts_as_the_bundled_model_and_leaves_its_trunk() -> None:
    recipe = find("finetune")
    bundled = weights.load("default", device="cpu", engine="torch")
    model = recipe.model.build(bundled.classes)
    weights.start_from(model, "default")
    assert all(torch.equal(tensor, bundled.state_dict()[name]) for name, tensor in model.state_dict().items())
    frozen = {".".join(name.split(".")[:2]) for name, p in model.named_parameters() if not p.requires_grad}
    assert {"detector.stem", "detector.stages"} <= frozen
    assert recipe.validation.start


def test_finetune_takes_images_as_pseudo_videos(tmp_path: Path) -> None:
    recipe = find("finetune").override(f"data.annotations={write_images(tmp_path)}")
    videos = recipe.data.read()
    clip = ClipDataset(videos, recipe.sampler, recipe.transforms, recipe.train.seed)[0]
    assert videos.classes == ("boat",)
    assert clip.index.tolist() == [0, 1]
    assert clip.key.all()
    assert not torch.equal(clip.frames[0], clip.frames[1])
    assert clip.tracks is not None
    assert clip.tracks.masks[0].any(-1).any(-1).all()


def test_finetune_learns_from_images_in_any_form(tmp_path: Path) -> None:
    maps = tmp_path / "voc"
    for folder, kind in (("JPEGImages", 0), ("SegmentationClass", 12), ("SegmentationObject", 1)):
        (maps / folder).mkdir(parents=True)
        for number in (1, 2):
            picture = np.zeros((96, 128), np.uint8)
            picture[20:70, 30:90] = kind
            data = encode_map(picture) if kind else cv2.imencode(".jpg", picture)[1].tobytes()
            (maps / folder / f"{number}{'.png' if kind else '.jpg'}").write_bytes(data)
    small = ["train.iterations=2", "train.batch_size=1", "train.workers=0", "train.precision=fp32", "train.log_every=1"]
    outcome = call(["train", "finetune", f"data.annotations={maps}", *small, "--out", str(tmp_path / "run")])
    assert outcome == 0
    assert len(losses(tmp_path / "run")) == 2
    assert all(np.isfinite(losses(tmp_path / "run")))


def test_other_recipes_say_which_one_takes_images(tmp_path: Path) -> None:
    recipe = find("masktrack/ytvis2019").override(f"data.annotations={write_images(tmp_path)}")
    with pytest.raises(FormatError, match=r"coco\.json: expected videos, found COCO images; the recipe finetune takes"):
        recipe.data.read()


def test_where_nothing_can_be_written_nothing_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["train", "finetune", "data.annotations=missing.json", "--out", "/proc/run"]) == 2
    assert "/proc: cannot be written" in capsys.readouterr().err


# from Python


def test_training_from_python_reads_like_the_command(recipe: Experiment, tmp_path: Path) -> None:
    import tubelet

    outcome = tubelet.train(recipe, tmp_path / "run", device="cpu", train={"iterations": 2}, optim={"lr": 0.01})
    assert outcome.model == tmp_path / "run/model.safetensors"
    assert [line["step"] for line in read_metrics(tmp_path / "run/metrics.jsonl")] == [1, 2]
    with pytest.raises(ConfigError, match="did you mean 'optim'"):
        tubelet.train(recipe, tmp_path / "other", optin={"lr": 0.01})
    with pytest.raises(ConfigError, match="unknown recipe 'finetun'"):
        tubelet.train("finetun", tmp_path / "other")


def test_a_rate_that_does_not_fit_the_batch_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    adjusted("masktrack/ytvis2019", "train.batch_size=4", "train.accumulate=4")
    assert not caplog.records
    adjusted("masktrack/ytvis2019", "train.batch_size=2")
    assert "by the linear scaling rule optim.lr=0.000625 fits 2 clips" in caplog.text
