"""The two-stage detector against torchvision's own Mask R-CNN, tensor by tensor: equal boxes, scores and masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn

from tubelet.core.matching import assign
from tubelet.core.types import Clip
from tubelet.models import weights
from tubelet.models.inputs import InputConfig, KeepRatio
from tubelet.models.rcnn.detectors.detector import Detections
from tubelet.models.rcnn.detectors.two_stage import TwoStageConfig
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.models.tags.model import TagConfig
from tubelet.models.weights.key_maps import from_torchvision

HEIGHT, WIDTH, CLASSES = 128, 192, 5

CONFIG = MaskTrackConfig(
    detector=TwoStageConfig(
        input=InputConfig(resize=KeepRatio(long=WIDTH, short=HEIGHT)),
        proposals_per_level=1000,
        proposals=1000,
        max_detections=30,
        aligned=False,
    )
)


@dataclass(frozen=True)
class Pair:
    """One model twice."""

    theirs: MaskRCNN
    ours: MaskTrackRCNN


def random_mask_rcnn() -> MaskRCNN:
    """Random weights that say something: norms with statistics, regions with scores that differ."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=HEIGHT,
        max_size=WIDTH,
        box_score_thresh=0.05,
        box_nms_thresh=0.5,
        box_detections_per_img=30,
        rpn_pre_nms_top_n_test=1000,
        rpn_post_nms_top_n_test=1000,
        rpn_nms_thresh=0.7,
    ).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                module.weight.uniform_(0.5, 1.0)
                module.bias.normal_(std=0.1)
        scale(model.backbone.body.layer4, 0.5)
        scale(model.rpn.head.cls_logits, 100)
        scale(model.rpn.head.bbox_pred, 30)
        scale(model.roi_heads.box_predictor.cls_score, 40)
        scale(model.roi_heads.box_predictor.bbox_pred, 40)
        scale(model.roi_heads.mask_predictor.mask_fcn_logits, 10)
    return model


def scale(part: nn.Module, factor: float) -> None:
    for name, parameter in part.named_parameters():
        if name.endswith("weight"):
            parameter *= factor


def twin(theirs: MaskRCNN, norm_eps: float = 1e-5) -> MaskTrackRCNN:
    ours = CONFIG.build(tuple(map(str, range(CLASSES)))).eval()
    mapped = from_torchvision(theirs.state_dict(), norm_eps=norm_eps)
    missing, unknown = ours.load_state_dict(mapped, strict=False)
    assert unknown == []
    assert {name.split(".")[0] for name in missing} == {"match"}
    return ours


@pytest.fixture(scope="module")
def pair() -> Pair:
    theirs = random_mask_rcnn()
    return Pair(theirs, twin(theirs))


@pytest.fixture(scope="module")
def frame() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, 8, 12, generator=generator)
    smooth = nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)
    return (smooth * 255).to(torch.uint8)


@pytest.fixture(scope="module")
def answer(pair: Pair, frame: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        return dict(pair.theirs([frame[0].float() / 255])[0])


@pytest.fixture(scope="module")
def found(pair: Pair, frame: Tensor) -> Detections:
    return detected(pair.ours, frame)


def detected(model: MaskTrackRCNN, frame: Tensor) -> Detections:
    with torch.inference_mode():
        images = model.detector.config.input.prepare([frame])
        return model.detector.detect(model.detector.extract(images), images)[0]


def test_the_random_model_has_something_to_say(answer: dict[str, Tensor]) -> None:
    assert len(answer["boxes"]) >= 20
    assert len(answer["labels"].unique()) >= 2
    assert (answer["scores"].amax() - answer["scores"].amin()) > 0.1
    assert answer["masks"].amax() > 0.6


def partners(boxes: Tensor, scores: Tensor, answer: dict[str, Tensor]) -> Tensor:
    """Which of ours is each of theirs: rows whose scores differ in the last bits may stand in another order."""
    distance = torch.cdist(boxes, answer["boxes"], p=1) + 1000 * torch.cdist(scores[:, None], answer["scores"][:, None])
    ours, theirs = assign(distance)
    return ours[theirs.argsort()]


def test_boxes_scores_and_labels_are_torchvisions(answer: dict[str, Tensor], found: Detections) -> None:
    assert len(found) == len(answer["boxes"])
    torch.testing.assert_close(found.confidence, answer["scores"], rtol=0, atol=1e-4)
    paired = found[partners(found.boxes, found.confidence, answer)]
    assert torch.equal(paired.labels + 1, answer["labels"])
    torch.testing.assert_close(paired.confidence, answer["scores"], rtol=0, atol=1e-4)
    torch.testing.assert_close(paired.boxes, answer["boxes"], rtol=0, atol=0.01)


def test_masks_are_torchvisions(pair: Pair, frame: Tensor, answer: dict[str, Tensor], found: Detections) -> None:
    clip = Clip(frames=frame, index=torch.tensor([0]), key=torch.tensor([True]))
    with torch.inference_mode():
        _, tracks = pair.ours.step(pair.ours.start(), clip)
    assert tracks.masks.shape == (len(answer["masks"]), 1, HEIGHT, WIDTH)
    paired = tracks.masks[partners(found.boxes, found.confidence, answer)]
    torch.testing.assert_close(paired, answer["masks"], rtol=0, atol=1e-3)


def test_the_pyramid_and_its_proposals_are_torchvisions(pair: Pair, frame: Tensor) -> None:
    ours = pair.ours.detector
    with torch.inference_mode():
        images = ours.config.input.prepare([frame])
        listed, _ = pair.theirs.transform([frame[0].float() / 255])
        torch.testing.assert_close(images.pixels, listed.tensors, rtol=0, atol=1e-5)
        maps = ours.extract(images).maps
        theirs = pair.theirs.backbone(listed.tensors)
        for mine, other in zip(maps, theirs.values(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
        (proposals,), _ = pair.theirs.rpn(listed, theirs)
        torch.testing.assert_close(ours.propose(ours.extract(images), images)[0], proposals, rtol=0, atol=0.01)


def test_what_their_norms_add_to_the_variance_is_carried_over(pair: Pair, frame: Tensor) -> None:
    # the published weights belong to norms that add nothing; here they add so much that the difference is plain
    body = pair.theirs.backbone
    images = pair.ours.detector.config.input.prepare([frame])
    set_eps(body, 0.05)
    try:
        ours = twin(pair.theirs, norm_eps=0.05)
        with torch.inference_mode():
            theirs = list(body(images.pixels).values())
    finally:
        set_eps(body, 1e-5)
    with torch.inference_mode():
        carried = ours.detector.extract(images).maps
        ignored = pair.ours.detector.extract(images).maps
    for mine, other, wrong in zip(carried, theirs, ignored, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)
        assert (wrong - other).abs().max() > 0.01


def set_eps(model: nn.Module, eps: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps


def test_a_video_classifiers_encoder_becomes_the_tag_models(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.video.r2plus1d_18(weights=None)
    save_file(theirs.state_dict(), tmp_path / "r2plus1d.safetensors")
    model = TagConfig().build(("object",))
    random = weights.start_from(model, str(tmp_path / "r2plus1d.safetensors"))
    assert not [name for name in random if name.startswith("network.encoder.")]
    assert torch.equal(model.network.encoder.stem[0].weight, theirs.stem[0].weight)
    assert torch.equal(model.network.encoder.layer3[1].conv2[0][0].weight, theirs.layer3[1].conv2[0][0].weight)
