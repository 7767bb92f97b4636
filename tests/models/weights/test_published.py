"""Published Mask2Formers: transformers' own networks, randomly started and saved, are the oracle; names are facts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tubelet.core.errors import WeightsError
from tubelet.models import weights
from tubelet.models.mask2former.model import Mask2Former, Mask2FormerConfig
from tubelet.models.weights import hub
from tubelet.models.weights.key_maps import from_detectron2, from_transformers
from tubelet.models.weights.published import describe

CLASSES = ("dog", "cat", "car")
Saved = tuple[Path, Any]  # the folder, and the network that was saved into it


@pytest.fixture(scope="module")
def save_theirs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """A network of transformers with this backbone and small decoders, saved as the hub has them."""
    from transformers import Mask2FormerConfig as Theirs
    from transformers import Mask2FormerForUniversalSegmentation as Network
    from transformers import ResNetConfig, SwinConfig

    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbones = {
        "swin": SwinConfig(image_size=224, embed_dim=96, depths=[2, 2, 6, 2], out_features=stages),
        "resnet": ResNetConfig(
            depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", out_features=stages
        ),
    }
    made: dict[str, Saved] = {}

    def save(kind: str) -> Saved:
        if kind not in made:
            torch.manual_seed(0)
            small = {"hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "num_attention_heads": 4}
            layers = {"encoder_layers": 2, "encoder_feedforward_dim": 40, "decoder_layers": 5, "dim_feedforward": 48}
            names = dict(enumerate(CLASSES))
            config = Theirs(backbone_config=backbones[kind], num_queries=7, id2label=names, **small, **layers)
            network = Network(config).eval()
            stir(network)
            folder = tmp_path_factory.mktemp(kind)
            network.save_pretrained(folder)
            made[kind] = folder, network
        return made[kind]

    return save


@torch.no_grad()
def stir(network: torch.nn.Module) -> None:
    """Away from a fresh start, where norms do nothing and offsets are round numbers."""
    random = torch.Generator().manual_seed(1)
    for name, tensor in network.named_parameters():
        if tensor.ndim == 1 or "sampling_offsets" in name or "attention_weights" in name:
            tensor += 0.1 * torch.randn(tensor.shape, generator=random)
    for name, tensor in network.named_buffers():
        if name.endswith("running_mean"):
            tensor += 0.1 * torch.randn(tensor.shape, generator=random)
        if name.endswith("running_var"):
            tensor *= 1 + torch.rand(tensor.shape, generator=random)


# the oracle


@pytest.mark.parametrize("kind", ["swin", "resnet"])
@pytest.mark.parametrize("size", [(96, 128), (256, 320)])  # a map of stage 4 smaller and larger than a window
def test_a_network_of_transformers_gives_the_same_classes_and_masks_here(
    save_theirs: Callable[[str], Saved], kind: str, size: tuple[int, int]
) -> None:
    folder, theirs = save_theirs(kind)
    ours = weights.load(folder, device="cpu", precision="fp32")
    assert isinstance(ours, Mask2Former)
    assert ours.classes == CLASSES
    frame = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    with torch.inference_mode():
        expected = theirs((frame.float() - torch.tensor(MEAN)) / torch.tensor(STD))
        pixels = ours.pixel_decoder(ours.backbone((frame.float() - torch.tensor(MEAN)) / torch.tensor(STD)))
        found = ours.decoder(pixels, 1, every=False)[-1]
        masks = found.kernels[0, 0] @ pixels.features[0].flatten(1)
    torch.testing.assert_close(found.logits, expected.class_queries_logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        masks, expected.masks_queries_logits[0].flatten(1), rtol=0, atol=1e-4 * float(masks.abs().max().clamp(min=1))
    )


MEAN = [[[123.675]], [[116.28]], [[103.53]]]
STD = [[[58.395]], [[57.12]], [[57.375]]]


def test_names_of_todays_modules_map_like_those_of_files(save_theirs: Callable[[str], Saved]) -> None:
    folder, theirs = save_theirs("swin")
    from_file, from_module = (
        from_transformers(load_file(folder / "model.safetensors")),
        from_transformers(theirs.state_dict()),
    )
    assert from_module.keys() == from_file.keys()
    assert all(torch.equal(tensor, from_module[name]) for name, tensor in from_file.items())


def test_a_model_of_images_knows_no_time_and_a_model_of_video_does(
    save_theirs: Callable[[str], Saved], tmp_path: Path
) -> None:
    folder = copied(save_theirs("resnet")[0], tmp_path)
    image = weights.load(folder, device="cpu").config
    assert isinstance(image, Mask2FormerConfig)
    assert (image.decoder.temporal_position, image.window.length, image.input.resize.short) == (False, 1, 360)
    change_config(folder, architectures=["VideoMask2FormerForVideoSegmentation"], model_type="video_mask2former")
    video = weights.load(folder, device="cpu").config
    assert isinstance(video, Mask2FormerConfig)
    assert (video.decoder.temporal_position, video.window.length) == (True, None)


def test_training_starts_from_a_published_model_with_all_but_the_head(save_theirs: Callable[[str], Saved]) -> None:
    folder, _ = save_theirs("resnet")
    config = weights.load(folder, device="cpu").config
    model = config.build(("a", "b"))
    assert weights.start_from(model, str(folder)) == ["decoder.class_predictor.bias", "decoder.class_predictor.weight"]


# the authors' names: facts of model_final_34112b.pkl and its like


def detectron2_r50(classes: int = 40, queries: int = 100) -> dict[str, tuple[int, ...]]:
    """Every name in the authors' Mask2Former-VIS with ResNet-50, and its shape."""
    shapes: dict[str, tuple[int, ...]] = {"criterion.empty_weight": (classes + 1,)}

    def linear(name: str, out: int, into: int) -> None:
        shapes.update({f"{name}.weight": (out, into), f"{name}.bias": (out,)})

    def norm(name: str, channels: int, *, batch: bool = False) -> None:
        kinds = ("weight", "bias", "running_mean", "running_var") if batch else ("weight", "bias")
        shapes.update({f"{name}.{kind}": (channels,) for kind in kinds})

    def convolution(name: str, out: int, into: int, side: int) -> None:
        shapes[f"{name}.weight"] = (out, into, side, side)
        norm(f"{name}.norm", out, batch=name.startswith("backbone"))

    convolution("backbone.stem.conv1", 64, 3, 7)
    into = 64
    for stage, blocks in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        middle, out = 2 ** (stage + 4), 2 ** (stage + 6)
        for block in range(blocks):
            here = f"backbone.res{stage}.{block}"
            if block == 0:
                convolution(f"{here}.shortcut", out, into, 1)
            convolution(f"{here}.conv1", middle, into, 1)
            convolution(f"{here}.conv2", middle, middle, 3)
            convolution(f"{here}.conv3", out, middle, 1)
            into = out
    pixels = "sem_seg_head.pixel_decoder"
    for level, channels in enumerate((2048, 1024, 512)):
        shapes.update({f"{pixels}.input_proj.{level}.0.weight": (256, channels, 1, 1)})
        shapes.update({f"{pixels}.input_proj.{level}.0.bias": (256,)})
        norm(f"{pixels}.input_proj.{level}.1", 256)
    shapes[f"{pixels}.transformer.level_embed"] = (3, 256)
    for layer in range(6):
        here = f"{pixels}.transformer.encoder.layers.{layer}"
        for name, out in (
            ("sampling_offsets", 192),
            ("attention_weights", 96),
            ("value_proj", 256),
            ("output_proj", 256),
        ):
            linear(f"{here}.self_attn.{name}", out, 256)
        linear(f"{here}.linear1", 1024, 256)
        linear(f"{here}.linear2", 256, 1024)
        norm(f"{here}.norm1", 256)
        norm(f"{here}.norm2", 256)
    convolution(f"{pixels}.adapter_1", 256, 256, 1)
    convolution(f"{pixels}.layer_1", 256, 256, 3)
    shapes.update({f"{pixels}.mask_features.weight": (256, 256, 1, 1), f"{pixels}.mask_features.bias": (256,)})
    predictor = "sem_seg_head.predictor"
    for layer in range(9):
        for kind, part in (("self", "self_attn"), ("cross", "multihead_attn")):
            here = f"{predictor}.transformer_{kind}_attention_layers.{layer}"
            shapes.update({f"{here}.{part}.in_proj_weight": (768, 256), f"{here}.{part}.in_proj_bias": (768,)})
            linear(f"{here}.{part}.out_proj", 256, 256)
            norm(f"{here}.norm", 256)
        here = f"{predictor}.transformer_ffn_layers.{layer}"
        linear(f"{here}.linear1", 2048, 256)
        linear(f"{here}.linear2", 256, 2048)
        norm(f"{here}.norm", 256)
    norm(f"{predictor}.decoder_norm", 256)
    for name, rows in (("query_feat", queries), ("query_embed", queries), ("level_embed", 3)):
        shapes[f"{predictor}.{name}.weight"] = (rows, 256)
    linear(f"{predictor}.class_embed", classes + 1, 256)
    for layer in range(3):
        linear(f"{predictor}.mask_embed.layers.{layer}", 256, 256)
    return shapes


def on_meta(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("video", [True, False])
def test_the_authors_resnet_50_fits_name_by_name(video: bool, tmp_path: Path) -> None:
    shapes = detectron2_r50() if video else detectron2_r50(classes=80)
    if not video:  # their models of images call the queries otherwise
        shapes = {name.replace("query_feat", "static_query"): shape for name, shape in shapes.items()}
    described = describe(tmp_path / "a.safetensors", on_meta(shapes), {})
    assert described is not None
    config, classes, tensors = described
    weights.check_fit(config, classes, tensors, "a.safetensors")
    assert (config.backbone.name, config.queries, len(classes)) == ("resnet50", 100, 40 if video else 80)
    assert config.decoder.temporal_position is video
    assert config.but(window=Mask2FormerConfig().window) == Mask2FormerConfig().override(
        f"decoder.temporal_position={json.dumps(video)}"
    )


def test_the_classes_of_a_converted_file_may_be_told(tmp_path: Path) -> None:
    tensors, names = on_meta(detectron2_r50(classes=2)), {"classes": '["dog", "cat"]'}
    described = describe(tmp_path / "a.safetensors", tensors, names)
    assert described is not None
    assert described[1] == ("dog", "cat")
    with pytest.raises(WeightsError, match="list of class names"):
        describe(tmp_path / "a.safetensors", tensors, {"classes": '"dog"'})


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.patch_embed.proj.weight", "backbone.body.patch_embed.proj.weight"),
        ("backbone.layers.0.blocks.1.attn.qkv.bias", "backbone.body.layers_0.blocks.1.attn.qkv.bias"),
        ("backbone.layers.2.blocks.17.mlp.fc2.weight", "backbone.body.layers_2.blocks.17.mlp.fc2.weight"),
        ("backbone.layers.1.downsample.reduction.weight", "backbone.body.layers_2.downsample.reduction.weight"),
        ("backbone.norm3.weight", "backbone.norms.3.weight"),
        ("backbone.layers.0.blocks.1.attn.relative_position_index", None),
        (
            "sem_seg_head.transformer.encoder.layers.4.norm2.bias",
            "pixel_decoder.encoder.layers.4.final_layer_norm.bias",
        ),
        ("sem_seg_head.mask_features.weight", "pixel_decoder.mask_projection.weight"),
    ],
)
def test_the_authors_swin_and_first_names_map_too(theirs: str, ours: str | None) -> None:
    assert list(from_detectron2({theirs: torch.zeros(1)})) == ([] if ours is None else [ours])


# refused


def copied(folder: Path, target: Path) -> Path:
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def change_config(folder: Path, **fields: Any) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **fields}))


@pytest.fixture
def published(save_theirs: Callable[[str], Saved], tmp_path: Path) -> Path:
    return copied(save_theirs("resnet")[0], tmp_path)


def refused(folder: Path, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason) as caught:
        weights.load(folder, device="cpu")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_without_config_json_it_is_told_that_it_is_missing(published: Path) -> None:
    (published / "config.json").unlink()
    refused(published, r"expected transformers' config\.json beside it")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id2label": {"0": "a"}}, "2 of another shape"),
        ({"id2label": {str(n): "a" for n in range(81)}}, "of another shape"),
        ({"id2label": {"0": "a", "2": "b"}}, "count its 2 classes from 0"),
        ({"id2label": ["a", "b"]}, "expected id2label"),
        ({"id2label": {"0": 5}}, "expected id2label"),
        ({"num_attention_heads": 10**12}, "num_attention_heads from 1 to 1024"),
        ({"num_attention_heads": 5}, "number of heads that divides its 32 channels, got 5"),
        ({"model_type": "detr"}, "expected the config of a mask2former, got 'detr'"),
        ({"model_type": None}, "expected the config of a mask2former"),
    ],
)
def test_a_config_that_does_not_go_with_the_tensors_is_refused(
    published: Path, fields: dict[str, Any], reason: str
) -> None:
    change_config(published, **fields)
    refused(published, reason)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "[" * 100_000, "\x00"])
def test_a_config_json_of_another_form_is_refused(published: Path, text: str) -> None:
    (published / "config.json").write_text(text)
    refused(published, r"config\.json: expected")


def test_enormous_sizes_in_a_config_are_not_believed(published: Path) -> None:
    change_config(published, num_queries=10**12, hidden_dim=10**9, decoder_layers=10**9, encoder_layers=10**9)
    assert len(weights.load(published, device="cpu").classes) == 3  # sizes are the tensors' own


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


QUERIES, CONVOLUTION = (
    "model.transformer_module.queries_features.weight",
    "stages.3.layers.1.layer.1.convolution.weight",
)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: {k: v for k, v in t.items() if k != QUERIES}, "nothing in it is our decoder.queries_features"),
        (lambda t: {**t, QUERIES: torch.zeros(7)}, "to have 2 sides"),
        (lambda t: {**t, QUERIES: torch.zeros(8, 32)}, "of another shape"),
        (lambda t: {**t, QUERIES: torch.zeros(7, 0)}, "to have 2 sides"),
        (lambda t: {**t, "model.secret": torch.zeros(1)}, "1 unknown"),
        (lambda t: {k: v for k, v in t.items() if not k.endswith(CONVOLUTION)}, "another model: 1 missing"),
        (lambda t: {k: v for k, v in t.items() if ".stages.2." not in k}, "backbone of a published size"),
        (
            lambda t: {k.replace("decoder.layers.3.", "decoder.layers.99999999."): v for k, v in t.items()},
            "more tensors than the file has",
        ),
    ],
)
def test_tensors_of_another_model_are_refused(published: Path, change: Any, reason: str) -> None:
    rewritten(published, change)
    refused(published, reason)


def test_our_own_file_that_asks_for_a_billion_layers_is_refused_at_once(tmp_path: Path) -> None:
    for override in ("decoder.layers=1000000000", "pixel_decoder.layers=1000000000", "queries=1000000000000"):
        config = Mask2FormerConfig.model_validate_json(Mask2FormerConfig().override(override).model_dump_json())
        told = {"config": config.model_dump_json(), "classes": '["a"]'}
        save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", told)
        refused(tmp_path, "more tensors than the file has|another model")


def test_a_folder_with_a_pickle_alone_is_told_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    refused(tmp_path, r"is a pickle, which is never read: docs/published-weights\.md")


# the hub


def test_the_hub_s_models_are_listed_with_what_one_must_know() -> None:
    rows = {row.name: row for row in weights.list_models() if row.where.startswith("hub")}
    assert len(rows) == len(hub.PUBLISHED) == 26
    large = rows["facebook/mask2former-swin-large-coco-instance"]
    assert (large.where, large.megabytes, large.classes, large.published) == ("hub", 866, 80, "50.1 AP, COCO")
    assert all(("CC BY-NC 4.0" in row.licence) != row.commercial for row in rows.values())


def test_a_listed_name_loads_what_the_hub_gives(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []

    def give(name: str, file: str, revision: str) -> str:
        asked.append((name, file, revision))
        return str(published / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", give)
    name = "facebook/mask2former-swin-tiny-coco-instance"
    assert weights.load(name, device="cpu").classes == CLASSES
    assert asked == [(name, "config.json", "main"), (name, "model.safetensors", "main")]


def test_without_a_network_it_is_told_which_files_go_where(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(WeightsError) as caught:
        weights.load("facebook/mask2former-swin-small-coco-instance", device="cpu")
    told = str(caught.value)
    assert "\n" not in told
    assert "cannot be fetched (no connection)" in told
    assert "put its config.json and model.safetensors into one folder and give the folder" in told
    assert "models--facebook--mask2former-swin-small-coco-instance" in told


def test_a_model_that_the_hub_has_only_as_a_pickle_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("fetched"))
    name = next(model.name for model in hub.PUBLISHED if model.revision is None)
    with pytest.raises(WeightsError, match=r"only a pickle.*docs/published-weights\.md"):
        weights.load(name, device="cpu")


def test_a_name_that_is_not_listed_is_never_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(WeightsError, match="did you mean 'facebook/mask2former-swin-tiny-coco-instance'"):
        weights.load("facebook/mask2former-swin-tiny-coco", device="cpu")
