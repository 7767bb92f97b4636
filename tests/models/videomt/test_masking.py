"""Masked attention: what is blocked, how often, and until when."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tubelet.core.types import Clip
from tubelet.models.videomt.masking import AnnealedMasking, MaskingConfig, attention_bias
from tubelet.models.videomt.model import VidEoMT

Build = Callable[..., VidEoMT]
MakeClip = Callable[..., Clip]


def test_layers_fall_from_one_to_zero_one_after_the_other() -> None:
    config = MaskingConfig(batches=600)
    rows = [[config.probability(layer, 4, batch) for batch in range(0, 601, 50)] for layer in range(4)]
    for layer, row in enumerate(rows):
        start = 2 * (layer + 1)  # in steps of 50: windows of 100 batches
        assert row[: start + 1] == [1.0] * (start + 1)
        assert row[start + 1] == pytest.approx(0.5**0.9)
        assert row[start + 2 :] == [0.0] * (len(row) - start - 2)


def test_no_masking_at_all_can_be_asked_for() -> None:
    assert MaskingConfig(batches=0).probability(0, 3, 0) == 0


def test_patches_outside_a_querys_mask_are_blocked_for_the_share_of_queries_that_is_drawn() -> None:
    masking = AnnealedMasking(MaskingConfig(batches=40), layers=2)
    kernels = torch.ones(1, 2000, 1)
    features = torch.full((1, 1, 8, 8), -1.0)
    features[..., :4] = 1.0  # the left half is inside
    blocked = masking.blocked(0, kernels, features, (2, 2))
    assert blocked is not None
    assert blocked[0].tolist() == [[False, True, False, True]] * 2000

    for _ in range(15):  # halfway through the fall of layer 0
        masking.advance()
    torch.manual_seed(0)
    some = masking.blocked(0, kernels, features, (2, 2))
    assert some is not None
    assert not some[..., [0, 2]].any()
    assert float(some[..., 1].float().mean()) == pytest.approx(0.5**0.9, abs=0.05)
    for _ in range(5):
        masking.advance()
    assert masking.blocked(0, kernels, features, (2, 2)) is None
    assert masking.blocked(1, kernels, features, (2, 2)) is not None


def test_queries_class_and_registers_are_never_blocked() -> None:
    bias = attention_bias(torch.ones(2, 3, 4, dtype=torch.bool), tokens=3 + 5 + 4, like=torch.zeros(1))
    assert bias.shape == (2, 1, 12, 12)
    assert bias[:, 0, :3, 8:].isneginf().all()
    bias[:, 0, :3, 8:] = 0
    assert not bias.any()


def test_it_changes_training_but_nothing_at_test(build: Build, make_clip: MakeClip) -> None:
    clip = make_clip((0, ((4, 10, 40, 50),) * 2))

    def loss(model: VidEoMT) -> float:
        torch.manual_seed(0)
        return torch.stack(list(model([clip]).values())).sum().item()

    assert loss(build().train()) != loss(build("masking.batches=0").train())
    with torch.no_grad():
        masked, plain = build(), build("masking.batches=0")
        for model in (masked, plain):
            _, tracks = model.step(model.start(), clip)
            assert torch.equal(tracks.masks, plain.step(plain.start(), clip)[1].masks)


def test_training_counts_its_batches_and_a_file_keeps_the_count(build: Build, make_clip: MakeClip) -> None:
    model, clip = build().train(), make_clip((0, ((4, 10, 40, 50),) * 2))
    for _ in range(3):
        model([clip])
    model.eval()([clip])  # losses of a validation are no training
    assert int(model.state_dict()["network.masking.num_batches_tracked"]) == 3
