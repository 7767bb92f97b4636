"""Weights from files: what goes in comes out, what is unsafe or does not fit is refused with one line."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.models import WeightsEnum
from torchvision.models.detection import maskrcnn_resnet50_fpn

from tubelet.core.errors import ConfigError, WeightsError
from tubelet.core.types import Clip
from tubelet.models import weights
from tubelet.models.backbones import BackboneConfig
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.models.weights import finding, loading
from tubelet.models.weights.key_maps import COCO_IDS, from_coco_ssdlite
from tubelet.training.checkpoint import save_model

Build = Callable[..., MaskTrackRCNN]
MakeClip = Callable[..., Clip]


def metadata(model: MaskTrackRCNN, **changes: str) -> dict[str, str]:
    return {"config": model.config.model_dump_json(), "classes": json.dumps(model.classes), **changes}


TINY = "detector.backbone.name=mobilenetv3_small_050"  # two megabytes


@pytest.fixture
def tiny(build: Build) -> MaskTrackRCNN:
    return build(TINY)


@pytest.fixture
def saved(tiny: MaskTrackRCNN, tmp_path: Path) -> Path:
    save_model(tmp_path / "model.safetensors", tiny, metadata(tiny))
    return tmp_path / "model.safetensors"


def refused(path: str | Path, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason) as caught:
        weights.load(path, device="cpu")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert str(path) in str(caught.value)


# there and back


@pytest.mark.parametrize(
    "overrides", [(TINY,), ('detector={"kind": "ssdlite", "score_threshold": 0.0, "channels": 8}', "match.cosine=0.1")]
)
def test_a_saved_model_loads_and_answers_the_same(
    build: Build, make_clip: MakeClip, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    model, clip = build(*overrides), make_clip(((7, 0, 6, 6, 30), (8, 1, 50, 20, 34)))
    save_model(tmp_path / "a.safetensors", model, metadata(model))
    again = weights.load(tmp_path / "a.safetensors", device="cpu", precision="fp32")
    assert not again.training
    assert again.config == model.config
    assert again.classes == model.classes
    assert all(torch.equal(t, again.state_dict()[k]) for k, t in model.state_dict().items())
    with torch.inference_mode():
        (_, first), (_, second) = model.step(model.start(), clip), again.step(again.start(), clip)
    assert len(first) > 0
    assert torch.equal(first.ids, second.ids)
    torch.testing.assert_close(second.scores, first.scores, rtol=0, atol=1e-4)
    assert ((second.masks - first.masks).abs() > 1e-3).float().mean() < 1e-3  # a box may round to another pixel


def test_layers_in_bfloat16_give_single_precision_answers_close_by(
    tiny: MaskTrackRCNN, saved: Path, make_clip: MakeClip
) -> None:
    clip = make_clip(((7, 0, 6, 6, 30), (8, 1, 50, 20, 34)))
    model = weights.load(saved, device="cpu", precision="bf16")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with torch.inference_mode():
        (_, exact), (_, rough) = tiny.step(tiny.start(), clip), model.step(model.start(), clip)
    assert (rough.scores.dtype, rough.masks.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(rough.confidence[:3], exact.confidence[:3], rtol=0, atol=0.03)
    assert not torch.equal(rough.confidence[:3], exact.confidence[:3])  # it was indeed computed otherwise


def test_automatic_precision_is_that_of_the_device(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for able, wanted in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(loading, "computes_bf16", lambda _, able=able: able)
        assert weights.load(saved, device="cpu").precision == wanted


def test_the_folder_of_a_training_that_validated_stands_for_its_best_weights(saved: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "best.safetensors"):
        (tmp_path / name).write_bytes(saved.read_bytes())
    assert weights.find(tmp_path) == tmp_path / "best.safetensors"


def test_a_training_without_a_model_yet_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(WeightsError, match="no model yet; the same command with --resume"):
        weights.find(tmp_path)


def test_the_folder_of_a_training_run_stands_for_its_model(saved: Path) -> None:
    assert weights.find(saved.parent) == saved
    assert weights.load(str(saved.parent), device="cpu").classes == ("dog", "cat", "car")


def test_half_precision_files_load_in_single(tiny: MaskTrackRCNN, tmp_path: Path) -> None:
    small = {k: t.half() if t.is_floating_point() else t for k, t in tiny.state_dict().items()}
    save_model(tmp_path / "half.safetensors", small, metadata(tiny))
    again = weights.load(tmp_path / "half.safetensors", device="cpu")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    for (name, first), second in zip(tiny.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4, msg=name)


def test_counters_of_batches_may_be_missing(tiny: MaskTrackRCNN, tmp_path: Path) -> None:
    kept = {k: t for k, t in tiny.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(kept) < len(tiny.state_dict())
    save_model(tmp_path / "lean.safetensors", kept, metadata(tiny))
    assert weights.load(tmp_path / "lean.safetensors", device="cpu").classes == tiny.classes


def test_the_detector_reads_frames_at_the_area_that_is_asked_for() -> None:
    default = weights.load("default", device="cpu")
    larger = weights.load("default", device="cpu", input_size=640)
    assert isinstance(default, MaskTrackRCNN)
    assert isinstance(larger, MaskTrackRCNN)
    frames = [torch.zeros(1, 3, 360, 640, dtype=torch.uint8)]
    assert default.detector.config.input.prepare(frames).pixels.shape[-2:] == (320, 544)
    assert larger.detector.config.input.prepare(frames).pixels.shape[-2:] == (480, 864)
    assert all(torch.equal(own, larger.state_dict()[name]) for name, own in default.state_dict().items())


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("ssdlite", 640, "input_size=640: ssdlite reads frames at a size of its own; `default` can be given another"),
        ("default", 9000, "input_size=9000: expected 64 to 8192 pixels"),
    ],
)
def test_an_input_size_that_cannot_be_is_refused(name: str, size: int, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        weights.load(name, device="cpu", input_size=size)


def test_bundled_models_load_by_name_and_fit_into_24_megabytes_each_and_40_together() -> None:
    rows = [row for row in weights.list_models() if row.where == "bundled"]
    assert "default" in [row.name for row in rows]
    assert max(row.megabytes for row in rows) <= 24
    assert sum(row.megabytes for row in rows) <= 40
    for row in rows:
        model = weights.load(row.name, device="cpu")
        assert len(model.classes) == row.classes > 0
        assert row.licence
        assert all(bool(p.isfinite().all()) for p in model.parameters())


# refused


class Burglar:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("form", ["pickle", "torch", "old torch"])
def test_a_pickle_is_refused_unread_whatever_its_name(form: str, tmp_path: Path) -> None:
    evidence, path = tmp_path / "been-here", tmp_path / "model.safetensors"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Burglar(evidence)))
    else:
        torch.save({"a": Burglar(evidence)}, path, _use_new_zipfile_serialization=form == "torch")
    refused(path, "pickled checkpoint is refused")
    assert not evidence.exists()


def broken_bytes() -> dict[str, bytes]:
    random = torch.randint(0, 256, (999,), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return {
        "nothing": b"",
        "text": b"these are no weights\n" * 20,
        "noise": bytes(random.tolist()),
        "an enormous header": (2**62).to_bytes(8, "little") + b"{}",
        "a header that is no JSON": (9).to_bytes(8, "little") + b"{" * 9,
        "a tensor beyond the end": (80).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[9999],"data_offsets":[0,39996]}}'.ljust(80),
    }


@pytest.mark.parametrize("content", broken_bytes().values(), ids=broken_bytes().keys())
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(path, "expected a safetensors file")


def test_a_file_that_was_cut_off_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-1000])
    refused(saved, "expected a safetensors file")


def test_weights_without_a_model_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", "expected a model saved by tubelet")


wrong_metadata: dict[str, dict[str, str]] = {
    "classes that are a number": {"classes": "5"},
    "classes that are null": {"classes": "null"},
    "classes that are one string": {"classes": '"abc"'},
    "classes that are an object": {"classes": '{"a": 1, "b": 2, "c": 3}'},
    "classes that are numbers": {"classes": "[1, 2, 3]"},
    "classes that are no JSON": {"classes": "["},
    "classes nested without end": {"classes": "[" * 100_000},
    "too few classes": {"classes": '["dog"]'},
    "no classes": {"classes": "[]"},
    "a config that is no JSON": {"config": "{"},
    "a config nested without end": {"config": "[" * 100_000},
    "a config of another family": {"config": '{"kind": "other"}'},
    "a config with an unknown field": {"config": '{"kind": "masktrack", "secret": 1}'},
    "another model's config": {"config": "{}"},
}


@pytest.mark.parametrize("changes", wrong_metadata.values(), ids=wrong_metadata.keys())
def test_wrong_metadata_is_refused(tiny: MaskTrackRCNN, changes: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "wrong.safetensors"
    save_model(path, tiny, metadata(tiny, **changes))
    refused(path, "config|class|another model")


hostile_configs = {
    "a network that is an address": {"detector.backbone.name": "hf-hub:someone/something"},
    "a network that is a folder": {"detector.backbone.name": "local-dir:/"},
    "more memory than there is": {"detector.box_channels": 32_000_000_000},
    "a negative size": {"detector.box_channels": -5},
    "no layers": {"match.layers": 0},
}


@pytest.mark.parametrize("changes", hostile_configs.values(), ids=hostile_configs.keys())
def test_a_hostile_config_is_refused_before_anything_is_allocated(
    tiny: MaskTrackRCNN, changes: dict[str, Any], tmp_path: Path
) -> None:
    tree = tiny.config.model_dump(mode="json")
    for name, value in changes.items():
        *parents, field = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch[parent]
        branch[field] = value
    path = tmp_path / "hostile.safetensors"
    save_model(path, tiny, metadata(tiny, config=json.dumps(tree)))
    refused(path, "config|another model")


def test_weights_that_are_not_a_number_are_refused(tiny: MaskTrackRCNN, tmp_path: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    name, tensor = next((name, tensor) for name, tensor in tensors.items() if tensor.is_floating_point())
    tensor.view(-1)[-1] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata(tiny))
    refused(tmp_path / "model.safetensors", f"{name} has values that are not a number")


def test_other_tensors_are_counted(tiny: MaskTrackRCNN, tmp_path: Path) -> None:
    tensors = tiny.state_dict()
    removed = tensors.pop("mask.deconv.bias")
    tensors["mask.unheard_of"] = removed
    tensors["match.layers.1.bias"] = torch.zeros(5)
    save_model(tmp_path / "odd.safetensors", tensors, metadata(tiny))
    refused(tmp_path / "odd.safetensors", "another model: 1 missing, 1 unknown, 1 of another shape")


@pytest.mark.parametrize("name", ["no-such-model", "", ".", "a/b.safetensors", "a\0b", "~no-such-user/model"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(WeightsError, match="neither a bundled name nor a file") as caught:
        weights.load(name, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_misspelt_bundled_name_is_told_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "default.safetensors").touch()
    monkeypatch.setattr(finding, "BUNDLED", tmp_path)
    with pytest.raises(WeightsError, match="did you mean 'default'"):
        weights.load("defualt")


# starting points


def test_a_model_of_other_classes_gives_all_but_what_names_them(saved: Path, small_config: MaskTrackConfig) -> None:
    model = small_config.override(TINY).build(("a", "b", "c", "d"))
    fresh = weights.start_from(model, str(saved))
    assert fresh == [
        "detector.box_predictor.bbox_pred.bias",
        "detector.box_predictor.bbox_pred.weight",
        "detector.box_predictor.cls_score.bias",
        "detector.box_predictor.cls_score.weight",
        "mask.logits.bias",
        "mask.logits.weight",
    ]
    assert torch.equal(model.state_dict()["match.layers.0.weight"], load_file(saved)["match.layers.0.weight"])


def test_a_class_that_both_know_keeps_what_was_learned_of_it() -> None:
    bundled = weights.load("default", device="cpu", engine="torch")
    model = bundled.config.build(("goat", "dog"))
    before = model.state_dict()["detector.classes.0.weight"].clone()
    assert weights.start_from(model, "default") == []
    now = model.state_dict()["detector.classes.0.weight"]
    known = bundled.state_dict()["detector.classes.0.weight"][bundled.classes.index("dog")]
    assert torch.equal(now[1], known)
    assert torch.equal(now[0], before[0])


def test_classes_in_another_order_take_their_own_rows_along() -> None:
    bundled = weights.load("default", device="cpu", engine="torch")
    model = bundled.config.build(bundled.classes[::-1])
    assert weights.start_from(model, "default") == []
    for name, tensor in model.state_dict().items():
        known = bundled.state_dict()[name]
        assert torch.equal(tensor, known.flip(0) if name.startswith("detector.classes.") else known), name


def test_a_head_with_a_background_is_not_taken_for_other_classes_of_the_same_number(
    saved: Path, tiny: MaskTrackRCNN
) -> None:
    model = tiny.config.build(tuple(reversed(tiny.classes)))
    fresh = weights.start_from(model, str(saved))
    assert "detector.box_predictor.cls_score.weight" in fresh
    assert "match.layers.0.weight" not in fresh


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_a_plain_backbone_fills_the_backbone(name: str, small_config: MaskTrackConfig, tmp_path: Path) -> None:
    torch.manual_seed(7)
    body = timm.create_model(name, pretrained=False)
    save_file({k: v.contiguous() for k, v in body.state_dict().items()}, tmp_path / "body.safetensors")
    model = small_config.override(f"detector.backbone.name={name}").build(("a",))
    fresh = weights.start_from(model, str(tmp_path / "body.safetensors"))
    assert not [n for n in fresh if n.startswith("detector.backbone")]
    own = model.detector.backbone.body.state_dict()
    assert all(torch.equal(own[k], v) for k, v in body.state_dict().items() if k in own)


def test_the_public_mobilenet_fills_its_backbone(shared: Path, small_config: MaskTrackConfig) -> None:
    path = shared / "weights" / "mobilenetv2_coco.safetensors"
    if not path.is_file():
        pytest.skip("the public backbone is not here")
    backbone = BackboneConfig(name="mobilenetv2_100", pad_type="same").model_dump_json()
    fresh = weights.start_from(small_config.override(f"detector.backbone={backbone}").build(("a",)), str(path))
    assert not [n for n in fresh if n.startswith("detector.backbone")]


@pytest.mark.filterwarnings("ignore:.*to a meta parameter")
def test_a_file_of_torchvisions_mask_rcnn_is_known_by_its_names(tmp_path: Path) -> None:
    with torch.device("meta"):
        theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
        model = MaskTrackConfig().build(("a", "b", "c"))
    told = {k: t for k, t in theirs.state_dict().items() if t.numel() < 1_000_000}  # the large ones take time
    told["roi_heads.box_head.fc6.weight"] = torch.zeros(1)
    save_file({k: torch.zeros(t.shape, dtype=t.dtype) for k, t in told.items()}, tmp_path / "theirs.safetensors")
    fresh = weights.start_from(model, str(tmp_path / "theirs.safetensors"))
    large = {k for k, t in model.state_dict().items() if t.numel() >= 1_000_000}
    assert set(fresh) == large | {k for k in model.state_dict() if k.startswith("match.")}


def test_a_file_that_fits_nowhere_is_refused(small_config: MaskTrackConfig, tmp_path: Path) -> None:
    save_file({"some.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="none of its 1 tensors fits"):
        weights.start_from(small_config.build(("a",)), str(tmp_path / "other.safetensors"))


def test_weights_fetched_by_name_are_those_of_norms_without_epsilon(
    small_config: MaskTrackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    variance = torch.full((64,), 0.5)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: {"backbone.body.bn1.running_var": variance})
    model = small_config.build(("a",))
    weights.start_from(model, "torchvision/maskrcnn_resnet50_fpn")
    held = model.state_dict()["detector.backbone.body.bn1.running_var"]
    torch.testing.assert_close(held + 1e-5, variance, rtol=0, atol=1e-7)


def test_without_a_network_the_place_to_put_the_file_is_named(
    small_config: MaskTrackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> dict[str, Tensor]:
        raise URLError("Name or service not known")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(WeightsError, match=r"cannot be fetched.*without a network put \S+\.pth into") as caught:
        weights.start_from(small_config.build(("a",)), "torchvision/maskrcnn_resnet50_fpn")
    assert "\n" not in str(caught.value)


def test_unknown_public_weights_are_refused(small_config: MaskTrackConfig) -> None:
    with pytest.raises(WeightsError, match=r"did you mean .torchvision/maskrcnn"):
        weights.start_from(small_config.build(("a",)), "torchvision/maskrcnn_resnet500")


def test_of_91_scores_the_80_that_coco_uses_stay() -> None:
    anchors, channels = 3, 4
    weight = torch.arange(anchors * 91 * channels, dtype=torch.float32).view(anchors * 91, channels, 1, 1)
    bias = torch.arange(anchors * 91, dtype=torch.float32)
    other = torch.randn(12, channels, 1, 1)
    mapped = from_coco_ssdlite({"cls.2.pw.weight": weight, "cls.2.pw.bias": bias, "box.2.pw.weight": other})
    assert set(mapped) == {"detector.cls.2.pw.weight", "detector.cls.2.pw.bias", "detector.box.2.pw.weight"}
    assert mapped["detector.box.2.pw.weight"] is other
    assert mapped["detector.cls.2.pw.weight"].shape == (anchors * 80, channels, 1, 1)
    for anchor in range(anchors):
        for k, coco in enumerate(COCO_IDS):
            assert mapped["detector.cls.2.pw.bias"][anchor * 80 + k] == bias[anchor * 91 + coco]
            assert torch.equal(mapped["detector.cls.2.pw.weight"][anchor * 80 + k], weight[anchor * 91 + coco])


def test_the_80_ids_are_cocos(shared: Path) -> None:
    assert len(COCO_IDS) == 80
    document = json.loads((shared / "data" / "coco_instances" / "instances.json").read_text())
    assert sorted(category["id"] for category in document["categories"]) == list(COCO_IDS)
