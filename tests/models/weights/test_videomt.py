"""Published VidEoMTs: transformers' own network, randomly started and saved, is the oracle, frame by frame."""

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
from tubelet.models.videomt.model import VidEoMT, VidEoMTConfig
from tubelet.models.weights.videomt import from_eomt

CLASSES = ("dog", "cat", "car")
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 96,
    "num_blocks": 2,
    "num_queries": 7,
    "id2label": dict(enumerate(CLASSES)),
}


def theirs(name: str) -> Any:
    """A class of transformers, which older ones lack."""
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, name):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    return getattr(transformers, name)


@torch.no_grad()
def stir(network: torch.nn.Module) -> None:
    """Away from a fresh start, where norms do nothing."""
    random = torch.Generator().manual_seed(1)
    for tensor in network.parameters():
        if tensor.ndim == 1:
            tensor += 0.1 * torch.randn(tensor.shape, generator=random)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A small VidEoMT of transformers, saved as the hub has them."""
    torch.manual_seed(0)
    network = theirs("VideomtForUniversalSegmentation")(theirs("VideomtConfig")(**SMALL)).eval()
    stir(network)
    folder = tmp_path_factory.mktemp("videomt")
    network.save_pretrained(folder)
    return folder, network


@pytest.fixture
def published(saved: tuple[Path, Any], tmp_path: Path) -> Path:
    for path in saved[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_network_of_transformers_gives_the_same_classes_and_masks_frame_by_frame(saved: tuple[Path, Any]) -> None:
    folder, network = saved
    ours = weights.load(folder, device="cpu", precision="fp32")
    assert isinstance(ours, VidEoMT)
    assert ours.classes == CLASSES
    clip = torch.randn(1, 3, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    queries: Tensor | None = None
    with torch.inference_mode():
        expected = network(pixel_values_videos=clip)
        for t in range(3):
            (found,), queries = ours.network(ours.network.backbone(clip[:, t]), queries, every=False)
            torch.testing.assert_close(found.logits[0], expected.class_queries_logits[t], rtol=0, atol=1e-4)
            masks = expected.masks_queries_logits[t]
            torch.testing.assert_close(found.mask_logits[0], masks, rtol=0, atol=1e-4 * float(masks.abs().max()))


@pytest.mark.parametrize(
    ("size", "encoder"),
    [
        ((384, 12, 6, 3), ()),
        ((768, 12, 12, 3), ("encoder.channels=768", "encoder.heads=12")),
        (
            (1024, 24, 16, 4),
            ("encoder.channels=1024", "encoder.layers=24", "encoder.heads=16", "encoder.query_layers=4"),
        ),
    ],
    ids=["S", "B", "L"],
)
def test_the_published_sizes_fit_name_by_name(
    size: tuple[int, int, int, int], encoder: tuple[str, ...], tmp_path: Path
) -> None:
    channels, layers, heads, blocks = size
    config = theirs("VideomtConfig")(
        hidden_size=channels,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_blocks=blocks,
        id2label={n: f"class {n}" for n in range(40)},
    )
    with torch.device("meta"):
        network = theirs("VideomtForUniversalSegmentation")(config)
    config.save_pretrained(tmp_path)
    found, classes, tensors = described(tmp_path, network.state_dict())
    weights.check_fit(found, classes, tensors, "model.safetensors")
    assert found.encoder == VidEoMTConfig().override(*encoder).encoder
    assert found.input == VidEoMTConfig().input
    assert (found.queries, len(classes)) == (200, 40)


def described(folder: Path, tensors: dict[str, Tensor]) -> tuple[VidEoMTConfig, tuple[str, ...], dict[str, Tensor]]:
    from tubelet.models.weights.published import describe

    description = describe(folder / "model.safetensors", tensors, {})
    assert description is not None
    config, classes, ours = description
    assert isinstance(config, VidEoMTConfig)
    return config, classes, ours


def test_training_starts_from_a_published_model_with_all_but_the_head(published: Path) -> None:
    config = weights.load(published, device="cpu").config
    model = config.build(("a", "b"))
    assert weights.start_from(model, str(published)) == [
        "network.heads.class_predictor.bias",
        "network.heads.class_predictor.weight",
    ]


def test_training_starts_from_an_image_eomt_with_all_but_the_propagation(published: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    segmenter = theirs("EomtForUniversalSegmentation")(theirs("EomtConfig")(**SMALL))
    segmenter.save_pretrained(tmp_path / "eomt")
    model = weights.load(published, device="cpu").config.build(CLASSES)
    assert weights.start_from(model, str(tmp_path / "eomt")) == [
        "network.query_updater.bias",
        "network.query_updater.weight",
    ]


# refused


def refused(folder: Path, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason) as caught:
        weights.load(folder, device="cpu")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def change_config(folder: Path, **fields: Any) -> None:
    before = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**before, **fields}))


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id2label": {"0": "a"}}, "2 of another shape"),
        ({"id2label": ["a", "b"]}, "expected id2label"),
        ({"num_attention_heads": 5}, "heads that divide the 32 channels, got 5"),
        ({"num_attention_heads": 10**12}, "num_attention_heads from 1 to 1024"),
        ({"model_type": "detr"}, "expected the config of a videomt, got 'detr'"),
    ],
)
def test_a_config_that_does_not_go_with_the_tensors_is_refused(
    published: Path, fields: dict[str, Any], reason: str
) -> None:
    change_config(published, **fields)
    refused(published, reason)


def test_without_config_json_it_is_told_that_it_is_missing(published: Path) -> None:
    (published / "config.json").unlink()
    refused(published, r"expected transformers' config\.json beside it")


def test_enormous_sizes_in_a_config_are_not_believed(published: Path) -> None:
    change_config(published, num_queries=10**12, hidden_size=10**9, num_hidden_layers=10**9, num_blocks=10**9)
    assert len(weights.load(published, device="cpu").classes) == 3  # sizes are the tensors' own


POSITIONS = "embeddings.position_embeddings.weight"
PATCHES = "embeddings.patch_embeddings.projection.weight"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda t: without(t, "layers.1.norm1.weight"),
            r"1 missing.*network\.backbone\.body\.blocks\.1\.norm1\.weight",
        ),
        (lambda t: without(t, "layers.1."), r"missing.*attn\.proj\.bias, .* and \d+ more"),
        (lambda t: without(t, "query_updater"), "an EoMT of images, not of video"),
        (lambda t: without(t, POSITIONS), "nothing in it is our network.backbone.body.pos_embed"),
        (lambda t: {**t, POSITIONS: torch.zeros(35, 32)}, "positions of a square of patches, got 35"),
        (lambda t: {**t, PATCHES: torch.zeros(32, 3, 14, 14)}, "patch"),
        (lambda t: {**t, "query.weight": torch.zeros(7)}, "to have 2 sides"),
        (lambda t: {**t, "layers.0.secret": torch.zeros(1)}, "1 unknown"),
        (lambda t: {**t, "layers.99999999.norm1.bias": torch.zeros(1)}, "layers|more tensors than the file has"),
    ],
)
def test_tensors_of_another_model_are_refused(published: Path, change: Any, reason: str) -> None:
    rewritten(published, change)
    refused(published, reason)


def without(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if part not in name}


def test_names_that_are_unknown_stay_so_that_they_can_be_told() -> None:
    assert list(from_eomt({"secret": torch.zeros(1)})) == ["secret"]
