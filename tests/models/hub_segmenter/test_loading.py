"""Segmenters of the hub from folders: the network and its processor are the oracle; what does not fit is told."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tubelet.core.errors import ConfigError, WeightsError
from tubelet.core.protocol import VideoSegmenter
from tubelet.core.types import Clip
from tubelet.inference.predict import predict
from tubelet.models import weights
from tubelet.models.hub_segmenter import loading
from tubelet.models.hub_segmenter.answers import FAMILIES
from tubelet.models.hub_segmenter.loading import load_segmenter
from tubelet.models.hub_segmenter.model import HubSegmenter, HubSegmenterConfig

CLASSES = ("dog", "cat", "car")
KINDS = ("rf_detr", "eomt", "mask2former")
Saved = tuple[Path, Any, Any]
Save = Callable[[str], Saved]
every_kind = pytest.mark.parametrize("kind", KINDS)


def frames(count: int, size: tuple[int, int] = (50, 90)) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@every_kind
@pytest.mark.parametrize("size", [(50, 90), (90, 50), (64, 64), (33, 200)])
def test_pictures_are_those_of_the_checkpoints_own_processor(
    save_theirs: Save, kind: str, size: tuple[int, int]
) -> None:
    folder, _, processor = save_theirs(kind)
    pixels, _ = load_segmenter(folder).pictures.prepare(frames(2, size))
    expected = processor(images=list(frames(2, size)), return_tensors="pt")["pixel_values"]
    assert pixels.shape == expected.shape
    torch.testing.assert_close(pixels, expected, atol=0.05, rtol=0)  # older processors round to whole levels


@every_kind
def test_the_threshold_is_that_of_its_processor(save_theirs: Save, kind: str) -> None:
    folder, _, processor = save_theirs(kind)
    default = inspect.signature(processor.post_process_instance_segmentation).parameters["threshold"].default
    assert load_segmenter(folder).association.birth == default == FAMILIES[kind].threshold


@every_kind
def test_masks_and_classes_are_the_networks_own(save_theirs: Save, kind: str) -> None:
    folder, network, _ = save_theirs(kind)
    model = load_segmenter(folder, HubSegmenterConfig(score=0.0))
    assert model.classes == CLASSES
    shown = frames(2)
    pixels, size = model.pictures.prepare(shown)
    with torch.inference_mode():
        found = model.detect(shown)
        answer = model.family.read(network(pixel_values=pixels))
    for b, frame in enumerate(found):
        assert len(frame.masks) > 0
        rows = [int((answer.embeddings[b] - e).abs().sum(1).argmin()) for e in frame.embeddings]
        height = round(answer.mask_logits.shape[2] * size[0] / pixels.shape[2])
        whole = answer.mask_logits[b, rows].sigmoid()
        torch.testing.assert_close(frame.masks, whole[:, :height, : frame.masks.shape[2]], atol=1e-5, rtol=1e-4)
        shares = frame.detections.scores / answer.scores[b, rows]
        expected = torch.ones_like(shares)
        if model.family.rescored:
            inside = frame.masks > 0.5
            mean = (frame.masks * inside).flatten(1).sum(1) / inside.flatten(1).sum(1)
            expected = mean[:, None].expand_as(shares)
        torch.testing.assert_close(shares, expected, atol=1e-4, rtol=1e-4)
        confidence = frame.detections.confidence.tolist()
        assert confidence == sorted(confidence, reverse=True)


@pytest.mark.parametrize("kind", ["rf_detr", "eomt"])
def test_a_folder_is_a_models_name_and_a_video_is_predicted(save_theirs: Save, kind: str) -> None:
    model = weights.load(save_theirs(kind)[0], device="cpu")
    assert isinstance(model, HubSegmenter)
    assert isinstance(model, VideoSegmenter)
    assert not model.training
    video = np.random.default_rng(0).integers(0, 256, (3, 50, 90, 3), np.uint8)
    found = predict(model, video, threshold=0.0)
    assert (found.length, found.size) == (3, (50, 90))


def test_a_listed_name_loads_what_the_hub_gives(save_theirs: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_theirs("rf_detr")[0]
    asked: list[tuple[str, str, str]] = []

    def give(name: str, file: str, revision: str) -> str:
        asked.append((name, file, revision))
        return str(folder / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", give)
    assert isinstance(weights.load("roboflow/rf-detr-seg-small", device="cpu"), HubSegmenter)
    files = ("config.json", "model.safetensors", "preprocessor_config.json")
    assert asked == [("Roboflow/rf-detr-seg-small", file, "main") for file in files]


def test_a_mask2former_of_a_folder_stays_ours(save_theirs: Save) -> None:
    assert not loading.is_segmenter(save_theirs("mask2former")[0] / "model.safetensors")


def test_training_is_refused(save_theirs: Save) -> None:
    model = load_segmenter(save_theirs("eomt")[0])
    clip = Clip(frames=frames(1), index=torch.arange(1), key=torch.ones(1, dtype=torch.bool))
    with pytest.raises(ConfigError, match="is not trained here"):
        model([clip])


def test_classes_may_leave_numbers_out(save_theirs: Save, tmp_path: Path) -> None:
    folder = copied(save_theirs("rf_detr")[0], tmp_path)
    change(folder / "config.json", id2label={"0": "dog", "2": "car"}, num_labels=3)
    columns, classes = loading._classes(json.loads((folder / "config.json").read_text()), folder)
    assert (columns, classes) == ((0, 2), ("dog", "car"))


# refused


def copied(folder: Path, target: Path) -> Path:
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def change(path: Path, **fields: Any) -> None:
    before = json.loads(path.read_text())
    path.write_text(json.dumps({**before, **fields}))


@pytest.fixture
def published(save_theirs: Save, tmp_path: Path) -> Path:
    return copied(save_theirs("eomt")[0], tmp_path)


def refused(folder: Path, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason) as caught:
        load_segmenter(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_missing_file_is_named(published: Path, name: str) -> None:
    (published / name).unlink()
    refused(published, name)


def test_a_pickle_is_never_read(published: Path) -> None:
    (published / "model.safetensors").unlink()
    (published / "pytorch_model.bin").write_bytes(b"PK")
    refused(published, "expected config.json, model.safetensors")
    with pytest.raises(WeightsError, match="is a pickle, which is never read"):
        weights.load(published, device="cpu")


@pytest.mark.parametrize(
    ("file", "fields", "reason"),
    [
        ("config.json", {"model_type": "detr"}, "expected a model_type of rf_detr"),
        ("config.json", {"model_type": ["rf_detr"]}, "expected a model_type of rf_detr"),
        ("config.json", {"id2label": None}, "expected id2label"),
        ("config.json", {"id2label": {"a": "b"}}, "expected id2label"),
        ("config.json", {"hidden_size": 10**5, "num_attention_heads": 1}, "its config asks for|cannot read it"),
        ("config.json", {"num_hidden_layers": 2}, "cannot read it|missing|shape"),
        ("preprocessor_config.json", {"size": None}, "expected a size in words"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 10**9}}, "short"),
        ("preprocessor_config.json", {"image_std": [1, 2]}, "std"),
        ("preprocessor_config.json", {"do_split_image": True}, "of a semantic segmenter"),
    ],
)
def test_settings_that_do_not_fit_are_refused(published: Path, file: str, fields: dict[str, Any], reason: str) -> None:
    change(published / file, **fields)
    if fields == {"num_hidden_layers": 2}:
        tensors = load_file(published / "model.safetensors")
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("layers.1.")}
        save_file(kept, published / "model.safetensors", {"format": "pt"})
    refused(published, reason)


def test_missing_tensors_are_named(published: Path) -> None:
    tensors = load_file(published / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "mask_head.fc2" not in name}
    save_file(kept, published / "model.safetensors", {"format": "pt"})
    refused(published, r"2 tensors are missing: mask_head\.fc2\.bias, mask_head\.fc2\.weight")


def test_an_older_transformers_is_told(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: object) -> Any:
        raise ImportError

    monkeypatch.setattr(type(FAMILIES["eomt"]), "network_class", absent)
    refused(published, r"needs transformers \(pip install tubelet\[hub\]\), one that has Eomt")
