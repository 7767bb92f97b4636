"""The model card that a training writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tubelet
from tubelet.core.types import VideoSet
from tubelet.recipes import find
from tubelet.recipes.card import write_card

GENERATED = find("masktrack/generated").model_dump(mode="json")
LOG = """{"step": 10, "lr": 0.1, "loss": 2.0, "samples": 20}
{"step": 10, "validation_AP": 0.25, "validation_AP50": 0.5}
{"step": 20, "lr": 0.1, "loss": 1.0, "samples": 40}
{"step": 20, "validation_AP": 0.2, "validation_AP50": 0.6}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "metrics.jsonl").write_text(LOG)
    (tmp_path / "curve.png").touch()
    (tmp_path / "best.safetensors").touch()
    return tmp_path


def videos(count: int, *classes: str) -> VideoSet:
    return VideoSet(videos=[tubelet.Video(id=str(n), size=(4, 4), frames=[]) for n in range(count)], classes=classes)


def test_it_says_data_recipe_seed_versions_figures_and_curve(folder: Path) -> None:
    recipe = find("masktrack/ytvis2019").override("train.seed=7", "data.annotations=sets/train.json")
    text = write_card(
        folder, recipe.model_dump(mode="json"), videos(9, "dog", "cat"), videos(2, "dog", "cat")
    ).read_text()
    for expected in (
        f"# {recipe.about}\n",
        "| data | kind: ytvis; annotations: sets/train.json |",
        "| videos trained on | 9 |",
        "| videos validated on | 2 |",
        "| classes (2) | dog, cat |",
        "| starts from | torchvision/maskrcnn_resnet50_fpn |",
        "| steps | 20 |",
        "| clips | 40 |",
        "| seed | 7 |",
        f"| tubelet | {tubelet.__version__} |",
        f"| PyTorch | {torch.__version__} |",
        "![losses and validation](curve.png)",
        "| best.safetensors | 10 | 25.0 | 50.0 |",
        "| model.safetensors | 20 | 20.0 | 60.0 |",
        "AP 30.3",
        'tubelet.load("best.safetensors")',
    ):
        assert expected in text


def test_without_validation_it_says_so(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text(LOG.splitlines()[0] + "\n")
    (folder / "best.safetensors").unlink()
    text = write_card(folder, GENERATED, videos(3, "dog"), None).read_text()
    assert "No videos were validated on" in text
    assert 'tubelet.load("model.safetensors")' in text


def test_names_from_outside_stay_in_their_cell(folder: Path) -> None:
    text = write_card(folder, GENERATED, videos(1, "a|b\n## c", "<script>"), None).read_text()
    assert "| classes (2) | a\\|b ## c, &lt;script> |" in text


def test_a_finished_training_has_one(tmp_path: Path) -> None:
    recipe = find("small/masktrack").override(
        "data.videos=4", "data.world.frames=2", "train.iterations=1", "data.hold_out=0.3", "train.batch_size=1"
    )
    recipe.run(tmp_path / "run", device="cpu")
    assert "| videos trained on | 3 |" in (tmp_path / "run/README.md").read_text()
