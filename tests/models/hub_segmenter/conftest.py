"""Image segmenters of transformers at a thousandth of their size, saved as the hub has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

CLASSES = ("dog", "cat", "car")
SIDE = 64
Saved = tuple[Path, Any, Any]  # the folder, the network and the processor that were saved into it


def theirs(*names: str) -> list[Any]:
    """Classes of transformers, which older ones lack."""
    transformers = pytest.importorskip("transformers")
    for name in names:
        if not hasattr(transformers, name):
            pytest.skip(f"transformers {transformers.__version__} has no {name}")
    return [getattr(transformers, name) for name in names]


def rf_detr() -> tuple[Any, Any]:
    config, network, processor = theirs("RfDetrConfig", "RfDetrForInstanceSegmentation", "RfDetrImageProcessor")
    backbone = {
        "model_type": "rf_detr_dinov2",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
        "num_windows": 1,
        "out_features": ["stage1", "stage2"],
        "num_register_tokens": 0,
    }
    settings = config(
        backbone_config=backbone,
        d_model=32,
        decoder_layers=2,
        decoder_ffn_dim=32,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=4,
        num_queries=10,
        group_detr=1,
        intermediate_size=32,
        id2label=dict(enumerate(CLASSES)),
    )
    return network(settings), processor(size={"height": SIDE, "width": SIDE})


def eomt() -> tuple[Any, Any]:
    config, network, processor = theirs("EomtConfig", "EomtForUniversalSegmentation", "EomtImageProcessor")
    settings = config(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=SIDE,
        num_blocks=2,
        num_queries=8,
        id2label=dict(enumerate(CLASSES)),
    )
    return network(settings), processor(do_pad=True, size={"shortest_edge": SIDE, "longest_edge": SIDE})


def mask2former() -> tuple[Any, Any]:
    config, network, processor, swin = theirs(
        "Mask2FormerConfig", "Mask2FormerForUniversalSegmentation", "Mask2FormerImageProcessor", "SwinConfig"
    )
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = swin(image_size=SIDE, embed_dim=16, depths=[1] * 4, num_heads=[1] * 4, out_features=stages)
    settings = config(
        backbone_config=backbone,
        hidden_dim=32,
        feature_size=32,
        mask_feature_size=32,
        num_attention_heads=4,
        encoder_layers=1,
        encoder_feedforward_dim=32,
        decoder_layers=2,
        dim_feedforward=32,
        num_queries=7,
        id2label=dict(enumerate(CLASSES)),
    )
    return network(settings), processor(size={"shortest_edge": 48, "longest_edge": 80})


MAKERS = {"rf_detr": rf_detr, "eomt": eomt, "mask2former": mask2former}


@pytest.fixture(scope="session")
def save_theirs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    made: dict[str, Saved] = {}

    def save(kind: str) -> Saved:
        if kind not in made:
            torch.manual_seed(0)
            network, processor = MAKERS[kind]()
            folder = tmp_path_factory.mktemp(kind)
            network.save_pretrained(folder)
            processor.save_pretrained(folder)
            made[kind] = folder, network.eval(), processor
        return made[kind]

    return save
